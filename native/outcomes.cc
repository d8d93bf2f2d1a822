// outcomes.cc - idempotency outcomes, see outcomes.h.
#include "outcomes.h"

#include <errno.h>
#include <fcntl.h>

#include "crc32c.h"

namespace holdfast {

namespace {

uint32_t outcome_crc(const OutcomeHeader& header, const uint8_t* answer) {
  return crc32c_headed(header, {answer, header.answer_bytes});
}

OutcomeKey key_of(const uint8_t bytes[16]) {
  OutcomeKey key;
  memcpy(key.bytes, bytes, sizeof key.bytes);
  return key;
}

}  // namespace

int Outcomes::open(const File& directory) {
  static const char* const names[2] = {"outcomes.0", "outcomes.1"};
  for (int i = 0; i < 2; i++)
    if (int error = open_at(directory, names[i], O_RDWR | O_CREAT, &files_[i])) return error;
  if (int error = sync_all(directory)) return error;
  // The one whose first outcome is older is read first; the other one is being written.
  OutcomeHeader first[2] = {};
  for (int i = 0; i < 2; i++) {
    size_t got = 0;
    if (int error = read_some(files_[i], {reinterpret_cast<uint8_t*>(&first[i]), sizeof first[i]}, 0, false, &got))
      return error;
    if (got != sizeof first[i]) first[i].time_us = 0;
  }
  int older = first[0].time_us <= first[1].time_us ? 0 : 1;
  if (int error = load(older, &current_keys_, &current_bytes_)) return error;
  if (int error = load(1 - older, &current_keys_, &current_bytes_)) return error;
  current_ = 1 - older;
  current_since_us_ = first[current_].time_us;
  return 0;
}

int Outcomes::load(int which, uint64_t* keys, uint64_t* whole_bytes) {
  std::vector<uint8_t> bytes;
  if (int error = read_whole(files_[which], SIZE_MAX, &bytes)) return error;
  size_t at = 0;
  *keys = 0;
  while (at + sizeof(OutcomeHeader) <= bytes.size()) {
    OutcomeHeader header;
    memcpy(&header, bytes.data() + at, sizeof header);
    const uint8_t* answer = bytes.data() + at + sizeof header;
    if (header.answer_bytes > bytes.size() - at - sizeof header || outcome_crc(header, answer) != header.crc) break;
    add(header, {answer, header.answer_bytes}, 0);
    at += sizeof header + header.answer_bytes;
    ++*keys;
  }
  *whole_bytes = at;
  // What a kill left half-written at the end goes, so that the next append follows a whole one.
  return at < bytes.size() ? truncate_to(files_[which], at) : 0;
}

const Outcome* Outcomes::find(const uint8_t key[16]) const {
  auto it = table_.find(key_of(key));
  return it == table_.end() ? nullptr : &it->second;
}

void Outcomes::add(const OutcomeHeader& header, std::span<const uint8_t> answer, uint64_t lsn) {
  OutcomeKey key = key_of(header.key);
  Outcome& outcome = table_[key];
  // Read from a file and now met in the ring again: a checkpoint saved it and was killed before its slot. It is saved.
  if (lsn != 0 && outcome.lsn == 0 && outcome.header.time_us == header.time_us) return;
  bytes_ += sizeof header + header.answer_bytes;
  if (outcome.header.time_us) bytes_ -= sizeof header + outcome.header.answer_bytes;  // its own earlier one
  outcome.header = header;
  outcome.answer.assign(answer.begin(), answer.end());
  outcome.lsn = lsn;
  order_.emplace_back(key, header.time_us);
  evict();
}

void Outcomes::evict() {
  uint64_t now = now_us();
  while (order_.size() > 1 && (bytes_ > 2 * bytes_max_ ||
                               (order_.size() > keys_min_ && order_.front().second + seconds_min_ * 1000000 < now))) {
    auto it = table_.find(order_.front().first);
    // A key that was used again later has a younger entry in the order.
    if (it != table_.end() && it->second.header.time_us == order_.front().second) {
      bytes_ -= sizeof it->second.header + it->second.header.answer_bytes;
      table_.erase(it);
    }
    order_.pop_front();
  }
}

std::vector<uint8_t> Outcomes::encode(uint64_t up_to) const {
  std::vector<uint8_t> bytes;
  size_t first = order_.size();
  while (first > 0) {
    auto it = table_.find(order_[first - 1].first);
    if (it != table_.end() && it->second.lsn <= saved_lsn_) break;
    first--;
  }
  for (size_t i = first; i < order_.size(); i++) {
    auto it = table_.find(order_[i].first);
    if (it == table_.end() || it->second.lsn <= saved_lsn_ || it->second.lsn > up_to) continue;
    OutcomeHeader header = it->second.header;
    header.crc = outcome_crc(header, it->second.answer.data());
    const uint8_t* h = reinterpret_cast<const uint8_t*>(&header);
    bytes.insert(bytes.end(), h, h + sizeof header);
    bytes.insert(bytes.end(), it->second.answer.begin(), it->second.answer.end());
  }
  return bytes;
}

int Outcomes::save(const std::vector<uint8_t>& encoded, uint64_t up_to) {
  if (!synced_) {
    // What an earlier process appended may be in the page cache only, and the ring is about to give its records up.
    for (const File& file : files_)
      if (int error = sync_data(file)) return error;
    synced_ = true;
  }
  if (encoded.empty()) {
    saved_lsn_ = up_to;
    return 0;
  }
  uint64_t now = now_us();
  bool enough = current_keys_ >= keys_min_ && current_since_us_ + seconds_min_ * 1000000 < now;
  if (enough || (current_keys_ > 0 && current_bytes_ + encoded.size() > bytes_max_)) {
    current_ = 1 - current_;
    current_keys_ = current_bytes_ = 0;
    if (int error = truncate_to(files_[current_], 0)) return error;
  }
  int error = append_all(files_[current_], encoded);
  if (!error) error = sync_data(files_[current_]);
  if (error) {
    // Half an outcome, or one whose page never reached the disk, would hide every later one from the next start.
    truncate_to(files_[current_], current_bytes_);
    return error;
  }
  // A checkpoint whose slot can't be written comes again: it must not append them once more.
  saved_lsn_ = up_to;
  if (current_keys_ == 0) current_since_us_ = now;
  current_bytes_ += encoded.size();
  for (size_t at = 0; at < encoded.size(); current_keys_++) {
    OutcomeHeader header;
    memcpy(&header, encoded.data() + at, sizeof header);
    at += sizeof header + header.answer_bytes;
  }
  return 0;
}

}  // namespace holdfast
