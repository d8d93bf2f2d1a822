// bench_commit.cc - what one native commit costs beside a plain memcpy of the same bytes into the same kind of mapping.
//
// One write a batch, in a `fast` region, on the calling thread; places vary from commit to commit.
// Rounds of both alternate, so that a slow moment of the machine meets both.
//
//     bench_commit DIRECTORY [--quick]     DIRECTORY: an empty one; prints one JSON object a line, nanoseconds
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <fcntl.h>

#include <algorithm>
#include <vector>

#include "../../native/store.h"
#include "frames.h"

namespace {

using namespace holdfast;

constexpr uint64_t kRegionBytes = uint64_t{64} << 20;
constexpr uint64_t kHotBytes = uint64_t{1} << 20;
constexpr int kRounds = 9;

uint64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

void print_spread(const char* name, std::vector<double> values, const char* after) {
  std::sort(values.begin(), values.end());
  printf("\"%s\":\"%.2f [%.2f..%.2f]\"%s", name, values[values.size() / 2], values.front(), values.back(), after);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s DIRECTORY [--quick]\n", argv[0]);
    return 2;
  }
  const bool quick = argc > 2 && strcmp(argv[2], "--quick") == 0;
  const std::string directory = argv[1];
  StoreOptions options;
  options.directory = directory;
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
  if (open_directory(directory, false, &root) || open_at(root, "plain", O_RDWR | O_CREAT, &file) ||
      allocate_to(file, 0, kRegionBytes) || plain.map(file, 0, kRegionBytes) ||
      populate_write(plain.data(), kRegionBytes))
    return 1;

  const struct {
    uint32_t bytes, times;
    bool spread;  // over more memory than the caches hold; otherwise over a megabyte
  } cases[] = {{1 << 20, 60, true},  {65536, 800, true},  {4096, 8000, true},  {64, 20000, true},
               {1 << 20, 60, false}, {65536, 800, false}, {4096, 8000, false}, {64, 20000, false}};
  for (const auto& one : cases) {
    const uint32_t times = quick ? one.times / 8 : one.times;
    std::vector<uint8_t> bytes(one.bytes);
    for (uint32_t i = 0; i < one.bytes; i++) bytes[i] = static_cast<uint8_t>(i * 31 + 7);
    const uint64_t places = (one.spread ? kRegionBytes : kHotBytes) / one.bytes;
    const frames::Op write = frames::with_data(frames::make_op(OpKind::write, 0), bytes);
    std::vector<uint8_t> frame = frames::make_frame({.regions = {"bench"}, .ops = {write}});
    auto* op = reinterpret_cast<FrameOp*>(frame.data() + sizeof(FrameHeader) + sizeof(FrameRegion));
    std::vector<uint8_t> answer;
    // Every page of the region once, and every page of the ring: both are populated, as they are in a service that has
    // run for a second.
    for (uint64_t done = 0; done < 2 * options.journal_bytes; done += frame.size()) {
      op->offset = done / frame.size() % places * one.bytes;
      store->commit(frame, Store::Patience::may_block, 0, &answer);
      if (done > 2 * kRegionBytes && one.bytes < 65536) break;
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
    printf("{\"bytes\":%u,\"places\":\"%s\",\"commits\":%u,\"blocked\":%llu,", one.bytes,
           one.spread ? "64 MiB" : "1 MiB", times * kRounds, static_cast<unsigned long long>(blocked));
    print_spread("commitNs", commit_ns, ",");
    print_spread("memcpyNs", memcpy_ns, ",");
    print_spread("ratio", ratios, "}\n");
  }
  store->close();
  return 0;
}
