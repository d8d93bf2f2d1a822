// stepping.h - what the rigs share that single-step a victim (ptrace): the small store that they step, the victim's next
// instruction, and what a recovered store says of itself.
#pragma once

#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#if defined(__aarch64__)
#include <elf.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "../../native/store.h"
#include "batches.h"

namespace holdfast::rig {

// Small, because all of it is looked at after every instruction.
constexpr uint64_t kRingBytes = 32 << 10;
constexpr uint64_t kBatchBytesMax = 8 << 10;

inline StoreOptions store_options(const std::string& directory) {
  StoreOptions options;
  options.directory = directory;
  options.journal_bytes = kRingBytes;
  options.regions_max = 8;
  options.batch.batch_bytes_max = kBatchBytesMax;
  options.allow_any_file_system = true;
  options.standby = false;
  options.threads = false;
  return options;
}

// What makes the region as it is expected, but for its bytes.
inline RegionMeta meta_of(const Expected& region) {
  RegionMeta meta;
  meta.name = region.name;
  meta.size = region.bytes.size();
  meta.durability = region.durability;
  if (region.sparse) meta.flags |= kMetaSparse;
  return meta;
}

// What the store says of the regions in `like`, which are all that may be there. Empty on success, else what is wrong.
inline std::string observe(Store& store, const World& like, World* seen) {
  *seen = like;
  size_t present = 0;
  for (Expected& region : *seen) {
    const std::optional<RegionInfo> info = store.info(region.name);
    region.exists = info.has_value();
    region.bytes.clear();
    region.snapshots.clear();
    region.generation = 0;
    if (!info) continue;
    ++present;
    if (!info->fault.empty()) return region.name + " is faulted: " + info->fault;
    region.generation = info->generation;
    region.labels = info->meta.labels;
    region.durability = info->meta.durability;
    region.bytes.resize(info->meta.size);
    Code code = Code::ok;
    Store::ReadFacts facts{};
    if (store.read(region.name, 0, region.bytes.size(), Store::Patience::may_block, region.bytes.data(), &code,
                   &facts) != Store::Progress::done ||
        code != Code::ok) {
      return region.name + " can't be read: " + code_name(code);
    }
    if (facts.region.generation != info->generation) return region.name + " is read at another generation";
    std::vector<Snapshot> snapshots;
    store.snapshots(region.name, &snapshots);
    for (const Snapshot& snapshot : snapshots) {
      region.snapshots.emplace_back(snapshot.region.size);
      std::vector<uint8_t>& bytes = region.snapshots.back();
      code = store.read_snapshot(region.name, snapshot.id, 0, bytes.size(), bytes.data());
      if (code != Code::ok) return "a snapshot of " + region.name + " can't be read: " + code_name(code);
    }
  }
  if (store.names().size() != present) return "there are regions that nobody made";
  return "";
}

struct Next {
  uint64_t address;
  bool system_call;
};

// The instruction that a stopped victim is about to execute. The victim is a fork, so its code is at our own addresses.
inline Next next_instruction(pid_t pid) {
  Next next{};
#if defined(__x86_64__)
  next.address = static_cast<uint64_t>(ptrace(PTRACE_PEEKUSER, pid, offsetof(user_regs_struct, rip), nullptr));
  uint16_t code;
  std::memcpy(&code, reinterpret_cast<const void*>(next.address), sizeof code);
  next.system_call = code == 0x050f;
#elif defined(__aarch64__)
  user_regs_struct registers{};
  iovec vector{&registers, sizeof registers};
  ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &vector);
  next.address = registers.pc;
  uint32_t code;
  std::memcpy(&code, reinterpret_cast<const void*>(next.address), sizeof code);
  next.system_call = code == 0xd4000001;
#else
#error "the stepping rigs know x86-64 and arm64"
#endif
  return next;
}

}  // namespace holdfast::rig
