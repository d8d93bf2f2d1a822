// overlay.cc - pages that are committed but not applied, see overlay.h.
#include "overlay.h"

#include <string.h>

#include <algorithm>

namespace holdfast {

bool Overlay::prepare(const Region& region, uint64_t offset, uint64_t length) {
  bool readable = true;
  each_page(offset, length, [&](uint64_t page, uint64_t, uint64_t, uint64_t) {
    std::unique_ptr<Page>& slot = pages_[{region.meta.incarnation, page}];
    if (slot || !readable) return;
    if (spare_.empty()) {
      slot = std::make_unique_for_overwrite<Page>();
    } else {
      slot = std::move(spare_.back());
      spare_.pop_back();
      slot->lsn = 0;
    }
    uint64_t start = page * kPageBytes;
    readable = region.load(start, std::min<uint64_t>(kPageBytes, region.meta.size - start), slot->bytes.data());
    if (!readable) pages_.erase({region.meta.incarnation, page});
  });
  return readable;
}

void Overlay::lay(const Region& region, uint64_t offset, const uint8_t* bytes, uint64_t length, uint64_t lsn) {
  each_page(offset, length, [&](uint64_t page, uint64_t in_page, uint64_t in_range, uint64_t part) {
    Page& p = *pages_.at({region.meta.incarnation, page});
    memcpy(p.bytes.data() + in_page, bytes + in_range, part);
    p.lsn = lsn;
  });
}

void Overlay::drop(const Region& region, uint64_t offset, uint64_t length, uint64_t lsn) {
  each_page(offset, length, [&](uint64_t page, uint64_t, uint64_t, uint64_t) {
    auto it = pages_.find({region.meta.incarnation, page});
    if (it == pages_.end() || it->second->lsn > lsn) return;
    if (spare_.size() < kSpareMax) spare_.push_back(std::move(it->second));
    pages_.erase(it);
  });
}

bool Overlay::read(const Region& region, uint64_t offset, uint64_t length, uint8_t* into) const {
  bool any = false;
  if (pages_.empty()) return any;
  each_page(offset, length, [&](uint64_t page, uint64_t in_page, uint64_t in_range, uint64_t part) {
    auto it = pages_.find({region.meta.incarnation, page});
    if (it == pages_.end()) return;
    memcpy(into + in_range, it->second->bytes.data() + in_page, part);
    any = true;
  });
  return any;
}

bool Overlay::touches(const Region& region, uint64_t offset, uint64_t length) const {
  bool any = false;
  if (pages_.empty()) return any;
  each_page(offset, length, [&](uint64_t page, uint64_t, uint64_t, uint64_t) {
    any = any || pages_.contains({region.meta.incarnation, page});
  });
  return any;
}

}  // namespace holdfast
