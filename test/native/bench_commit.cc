// bench_commit.cc - what one native commit costs beside a plain memcpy of the same bytes into the same kind of mapping.
//
// One write a batch, in a `fast` region, on the calling thread; places vary from commit to commit within hot pages.
// Rounds of both alternate, so that a slow moment of the machine meets both. Prints one JSON object.
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <vector>

#include "stores.h"

namespace {

using namespace holdfast;

constexpr uint64_t kRegionBytes = uint64_t{8} << 20;
constexpr int kRounds = 9;

uint64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void print_spread(const char* name, std::vector<double> values, const char* after) {
  std::sort(values.begin(), values.end());
  printf("\"%s\":{\"min\":%.2f,\"median\":%.2f,\"max\":%.2f}%s", name, values.front(), values[values.size() / 2], values.back(), after);
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
  stores::Directory directory;
  StoreOptions options;
  options.directory = directory.path();
  std::unique_ptr<Store> store;
  std::string detail;
  if (Store::open(options, &store, &detail) != Code::ok) {
    fprintf(stderr, "bench_commit: %s\n", detail.c_str());
    return 1;
  }
  RegionMeta meta;
  meta.name = "bench";
  meta.size = kRegionBytes;
  meta.durability = Durability::fast;
  MetaResult made;
  if (store->create(meta, {}, &made, &detail) != Code::ok) return 1;

  // The mapping that memcpy writes to: of a file in the same directory.
  File file;
  File root;
  Mapping plain;
  if (open_directory(directory.path(), false, &root) || open_at(root, "plain", O_RDWR | O_CREAT, &file) ||
      allocate_to(file, 0, kRegionBytes) || plain.map(file, 0, kRegionBytes) || populate_write(plain.data(), kRegionBytes))
    return 1;

  const struct {
    uint32_t bytes, times;
  } cases[] = {{64, 20000}, {4096, 8000}, {65536, 800}, {1 << 20, 60}};
  printf("{\"cases\":[");
  bool first = true;
  for (const auto& one : cases) {
    const uint32_t times = quick ? one.times / 8 : one.times;
    std::vector<uint8_t> bytes(one.bytes);
    for (uint32_t i = 0; i < one.bytes; i++) bytes[i] = static_cast<uint8_t>(i * 31 + 7);
    // A megabyte of places: more than a core's own cache at the larger sizes, for both alike.
    const uint64_t places = std::max<uint64_t>(1, (uint64_t{1} << 20) / one.bytes);
    frames::Frame builder({"bench"});
    builder.ops.push_back(frames::with_data(frames::make_op(OpKind::write, 0), bytes));
    std::vector<uint8_t> frame = builder.bytes();
    auto* op = reinterpret_cast<FrameOp*>(frame.data() + sizeof(FrameHeader) + sizeof(FrameRegion));
    std::vector<uint8_t> answer;
    // Every page once, as a service's hot pages are.
    op->offset = 0;
    for (uint64_t place = 0; place < places; place++) {
      op->offset = place * one.bytes;
      store->commit(frame, Store::Patience::may_block, 0, &answer);
    }
    std::vector<double> commit_ns, memcpy_ns, ratios;
    uint64_t blocked = 0;
    for (int round = 0; round < kRounds; round++) {
      uint64_t start = nanoseconds();
      uint64_t spent = 0;
      for (uint32_t i = 0; i < times; i++) {
        op->offset = (i % places) * one.bytes;
        if (store->commit(frame, Store::Patience::never_block, 0, &answer) == Store::Progress::done) continue;
        // The ring is full of what a checkpoint has not freed: its wait on the disk is not the commit's cost.
        blocked++;
        const uint64_t from = nanoseconds();
        store->commit(frame, Store::Patience::may_block, 0, &answer);
        spent += nanoseconds() - from;
      }
      commit_ns.push_back(static_cast<double>(nanoseconds() - start - spent) / times);
      start = nanoseconds();
      for (uint32_t i = 0; i < times; i++) {
        bytes[0] = static_cast<uint8_t>(i);
        memcpy(plain.data() + (i % places) * one.bytes, bytes.data(), one.bytes);
        asm volatile("" ::: "memory");
      }
      memcpy_ns.push_back(static_cast<double>(nanoseconds() - start) / times);
      ratios.push_back(commit_ns.back() / memcpy_ns.back());
    }
    printf("%s{\"bytes\":%u,\"commits\":%u,\"blocked\":%llu,", first ? "" : ",", one.bytes, times * kRounds,
           static_cast<unsigned long long>(blocked));
    print_spread("commitNs", commit_ns, ",");
    print_spread("memcpyNs", memcpy_ns, ",");
    print_spread("ratio", ratios, "}");
    first = false;
  }
  printf("]}\n");
  store->close();
  return 0;
}
