// page_versions.cc - what a disk may hold after a power cut, page by page, without a disk and without privileges.
//
// A victim process is single-stepped (ptrace) through commits, flushes, checkpoints, changes of regions and recoveries.
// The rig sees every store into a mapping and every system call, so it knows each version that a page has had since the
// file's last sync. A crash state has every page at any one of these versions, independently of all others, some of them
// torn between versions at 512 bytes; every file at any size since its last sync; and the names as of any moment since
// the last sync of a directory (file systems journal names in order). That is more than any disk does. The real recovery
// runs on each state, as after a restart of the machine, and the judge asks: are the synced regions the state after a
// whole number of changes, at least all durable and at most all begun ones? is the fast region reported? is the last
// key's outcome known? Lives end by SIGKILL (memory stays) or by a power cut whose state the next life recovers, stepped
// as well, so cuts fall into recoveries too. With --controls each mistake must be found, and so must a disk that lies.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__aarch64__)
#include <elf.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <unordered_set>

#include "../../native/failpoint.h"
#include "../../native/store.h"
#include "../native/consistency.h"
#include "batches.h"
#include "progress.h"
#include "rig_program.h"
#include "stepping.h"
#include "store_files.h"

namespace holdfast::rig {
namespace {

constexpr size_t kSectorBytes = 512;
// Of a page that is never synced (a fast region's, a volatile word's) only so many versions are tried.
constexpr size_t kVersionsMax = 2048;

enum Region : uint32_t { kDurable, kOrdered, kFast, kComing, kRegions };

World new_world() {
  World world(kRegions);
  world[kDurable] = {"durable", Durability::durable, std::vector<uint8_t>(12328, 0), 0, true};
  world[kOrdered] = {"ordered", Durability::ordered, std::vector<uint8_t>(8199, 0), 0, true};
  world[kFast] = {"fast", Durability::fast, std::vector<uint8_t>(5000, 0), 0, true};
  world[kComing] = {"coming", Durability::durable, std::vector<uint8_t>(4100, 0), 0, false};
  return world;
}

// ---- what the victim does: the same for victim and judge ----

enum class Act { batch, create, grow, remove };
struct Change {
  Act act = Act::batch;
  RigBatch batch;
  uint64_t size = 0;
  bool synced = true;    // what it does survives a power cut once it is durable
  bool durable = false;  // a batch whose answer is a promise about power cuts
};

// Change `number` of a life, which finds this world.
Change change_of(uint64_t seed, uint64_t life, uint64_t number, const World& world) {
  Random random(seed * 0x9e3779b97f4a7c15 + life * 0x2545f4914f6cdd1d + number);
  random.next();
  Change change;
  const Expected& coming = world[kComing];
  if (random.chance(6)) {
    change.act = !coming.exists                                        ? Act::create
                 : coming.bytes.size() > 16 << 10 || random.chance(50) ? Act::remove
                                                                       : Act::grow;
    change.size = coming.exists ? coming.bytes.size() + random.between(1, 6000) : 4100;
    return change;
  }
  change.batch.key = random.next() | 1;
  // In some lives a few batches fill the ring, so that what a checkpoint frees is written over at once.
  const bool fills = Random(seed ^ (life * 0x2545f4914f6cdd1d)).chance(25);
  std::vector<uint32_t> regions;
  switch (random.below(6)) {
    case 0:
      regions = {kDurable};
      break;
    case 1:
      regions = {kOrdered};
      break;
    case 2:
      regions = {kFast};
      break;
    case 3:
      regions = {kDurable, kOrdered, kFast};
      break;
    case 4:
      regions = {kDurable, kOrdered};
      break;
    default:
      regions = coming.exists ? std::vector<uint32_t>{kComing, kOrdered} : std::vector<uint32_t>{kOrdered, kFast};
      break;
  }
  change.synced = false;
  for (const uint32_t region : regions) {
    const uint64_t most = fills || random.chance(6) ? 800 : 60;
    for (uint64_t i = random.between(1, 3); i > 0; --i) {
      const uint64_t size = world[region].bytes.size();
      const uint64_t length = random.between(1, std::min(most, size));
      change.batch.write(region, random.below(size - length + 1), random_bytes(random, length));
    }
    change.batch.cell(OpKind::add, region, 8 * random.below(16), ValueType::u64, random.next());
    change.synced |= region != kFast;
    change.durable |= world[region].durability == Durability::durable;
  }
  return change;
}

void carry_out(const Change& change, World* world) {
  Expected& coming = (*world)[kComing];
  switch (change.act) {
    case Act::batch:
      change.batch.apply(world);
      break;
    case Act::create:
      coming.exists = true;
      coming.generation = 0;
      coming.bytes.assign(change.size, 0);
      break;
    case Act::grow:
      coming.bytes.resize(change.size, 0);
      ++coming.generation;
      break;
    case Act::remove:
      coming.exists = false;
      coming.generation = 0;
      coming.bytes.assign(4100, 0);
      break;
  }
}

// ---- the victim ----

// Shared between rig and victim, written by the victim alone.
struct Shared {
  std::atomic<bool> opened;                // its recovery is over
  std::atomic<uint64_t> issued, promised;  // changes begun, and those that a power cut must leave
  char message[256];
};

class Victim {
 public:
  Victim(std::string directory, Shared* shared, uint64_t seed, uint64_t life, uint64_t number, World world)
      : directory_(std::move(directory)),
        shared_(shared),
        seed_(seed),
        life_(life),
        number_(number),
        world_(std::move(world)),
        random_(seed ^ (life * 0x51ed27)) {}

  // The first life makes the store before anything is watched.
  [[noreturn]] void run(bool first) {
    if (first) {
      open();
      for (const Expected& region : world_) {
        if (!region.exists) continue;
        MetaResult result;
        std::string detail;
        must(store_->create(meta_of(region), Conditions{}, &result, &detail), detail);
      }
    }
    raise(SIGSTOP);  // from here on every instruction is stepped
    if (!first) open();
    shared_->issued = number_;
    shared_->promised = number_;
    shared_->opened = true;
    // Frees the records of what a killed life applied, before anything touches those regions again.
    if (!first && random_.chance(30)) checkpoint();
    for (;;) {
      step();
      if (random_.chance(40)) {
        store_->flush_step();
        promise(number_);
      }
      if (random_.chance(10)) checkpoint();
      if (random_.chance(10)) reopen();
    }
  }

 private:
  void must(Code code, const std::string& detail) {
    if (code == Code::ok) return;
    std::snprintf(shared_->message, sizeof shared_->message, "%s: %s", code_name(code), detail.c_str());
    _exit(3);
  }

  void open() {
    StoreOptions options = store_options(directory_);
    options.on_settled = [this](std::vector<Settled>&& settled) {
      for (const Settled& one : settled) answered(one.ticket, one.answer);
    };
    std::string detail;
    must(Store::open(std::move(options), &store_, &detail), detail);
  }

  void checkpoint() {
    if (store_->checkpoint_step() != 0) must(Code::io_error, "a checkpoint");
  }

  // A client has the answer to the batch that is change `number`.
  void answered(uint64_t number, const std::vector<uint8_t>& answer) {
    must(static_cast<Code>(reinterpret_cast<const AnswerHeader*>(answer.data())->code), "a batch");
    if (durable_.contains(number)) promise(number);
  }

  void promise(uint64_t number) {
    if (shared_->promised < number) shared_->promised = number;
  }

  // Ends in order and starts again. What a fast region took until then must be on the disk; what it takes from then on
  // need not, and no later start may call that verified.
  void reopen() {
    const RegionMeta fast = store_->info(world_[kFast].name)->meta;
    if (fast.flags & kMetaUnverified) {
      MetaChange looked_at;
      looked_at.verified = true;
      MetaResult result;
      std::string detail;
      must(store_->update(fast.name, looked_at, Conditions{}, &result, &detail), detail);
    }
    store_->close();
    promise(number_);
    store_.reset();
    open();
  }

  void step() {
    const Change change = change_of(seed_, life_, number_ + 1, world_);
    const Expected& coming = world_[kComing];
    MetaResult result;
    std::string detail;
    const std::vector<uint8_t> frame = change.act == Act::batch ? change.batch.frame(world_) : std::vector<uint8_t>{};
    carry_out(change, &world_);
    shared_->issued = ++number_;
    if (change.act == Act::batch) {
      std::vector<uint8_t> answer;
      if (change.durable) durable_.insert(number_);
      if (store_->commit(frame, Store::Patience::may_block, number_, &answer) == Store::Progress::done)
        answered(number_, answer);
      return;
    }
    if (change.act == Act::create) {
      must(store_->create(meta_of(coming), Conditions{}, &result, &detail), detail);
    } else if (change.act == Act::remove) {
      must(store_->remove(coming.name, Conditions{}, &result, &detail), detail);
    } else {
      MetaChange wanted;
      wanted.size = change.size;
      must(store_->update(coming.name, wanted, Conditions{}, &result, &detail), detail);
    }
    promise(number_);
  }

  std::string directory_;
  Shared* shared_;
  uint64_t seed_, life_, number_;
  World world_;
  Random random_;
  std::set<uint64_t> durable_;  // the batches whose answers are promises
  std::unique_ptr<Store> store_;
};

// ---- the disk ----

using Bytes = std::vector<uint8_t>;

// One page of a file: as of the last sync, and what was stored since.
struct Page {
  struct Version {
    uint64_t id;  // no two versions of any pages share one
    uint16_t at;
    Bytes bytes;  // the page differs from the version before in these
  };
  uint64_t base_id = 0;
  Bytes base = Bytes(kPageBytes, 0);
  std::deque<Version> versions;

  // Version 0 is the base.
  void read(size_t version, uint8_t* into) const {
    std::memcpy(into, base.data(), kPageBytes);
    for (size_t i = 0; i < version; ++i)
      std::memcpy(into + versions[i].at, versions[i].bytes.data(), versions[i].bytes.size());
  }
  uint64_t id_of(size_t version) const { return version == 0 ? base_id : versions[version - 1].id; }
  void take(const Version& version) {
    std::memcpy(base.data() + version.at, version.bytes.data(), version.bytes.size());
    base_id = version.id;
  }
  void sync() {
    for (const Version& version : versions) take(version);
    versions.clear();
  }
};

struct DiskFile {
  std::map<uint64_t, Page> pages;     // by number; those that were never written are zeros
  std::vector<uint64_t> sizes = {0};  // as of the last sync, and since
  void sync() {
    for (auto& [number, page] : pages) page.sync();
    sizes = {sizes.back()};
  }
};

struct Names {
  std::vector<std::string> directories;
  std::map<std::string, ino_t> files;
  bool operator==(const Names&) const = default;
};

struct Disk {
  std::map<ino_t, DiskFile> files;
  std::vector<Names> names = {{}};  // as of the last sync, and since
};

// One state that a power cut may leave.
struct CrashState {
  struct File {
    std::string path;
    uint64_t size;
    std::vector<std::pair<uint64_t, Bytes>> pages;
  };
  std::vector<std::string> directories;
  std::vector<File> files;
  uint64_t hash = 0;  // equal states have the same
};

uint64_t mixed(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0xff51afd7ed558ccd;
  return hash ^ (hash >> 32);
}

enum class Pick { oldest, newest, any, newest_but_one, oldest_but_one };

CrashState crash(const Disk& disk, Random& random, Pick pick, uint64_t* torn) {
  CrashState state;
  const auto choose = [&](size_t count) -> size_t {
    switch (pick) {
      case Pick::oldest:
      case Pick::oldest_but_one:
        return 0;
      case Pick::newest:
      case Pick::newest_but_one:
        return count - 1;
      default:
        // The ends more often than their share: most mistakes are of one page that is far ahead or far behind.
        return random.chance(40) ? (random.chance(50) ? 0 : count - 1) : random.below(count);
    }
  };
  // Which of all changed pages is the exception.
  size_t changed = 0;
  for (const auto& [inode, file] : disk.files)
    for (const auto& [number, page] : file.pages) changed += !page.versions.empty();
  const bool one = pick == Pick::newest_but_one || pick == Pick::oldest_but_one;
  size_t exception = one && changed > 0 ? random.below(changed) : SIZE_MAX;

  const Names& names =
      disk.names[pick == Pick::any || one ? random.below(disk.names.size()) : choose(disk.names.size())];
  state.directories = names.directories;
  for (const std::string& directory : names.directories)
    for (const char c : directory) state.hash = mixed(state.hash, static_cast<uint8_t>(c));
  std::set<ino_t> done;
  for (const auto& [path, inode] : names.files) {
    const DiskFile& file = disk.files.at(inode);
    const uint64_t size = file.sizes[choose(file.sizes.size())];
    CrashState::File& made = state.files.emplace_back();
    made.path = path;
    made.size = size;
    for (const char c : path) state.hash = mixed(state.hash, static_cast<uint8_t>(c));
    state.hash = mixed(state.hash, size);
    for (const auto& [number, page] : file.pages) {
      size_t version = choose(page.versions.size() + 1);
      bool may_tear = pick == Pick::any && random.chance(12);
      if (!page.versions.empty() && exception-- == 0) {
        version = random.below(page.versions.size() + 1);
        may_tear = random.chance(25);
      }
      if (number * kPageBytes >= size) continue;
      Bytes bytes(kPageBytes);
      page.read(version, bytes.data());
      state.hash = mixed(state.hash, page.id_of(version));
      if (may_tear && !page.versions.empty()) {
        ++*torn;
        Bytes other(kPageBytes);
        for (size_t at = 0; at < kPageBytes; at += kSectorBytes) {
          const size_t instead = random.chance(50) ? version : random.below(page.versions.size() + 1);
          state.hash = mixed(state.hash, page.id_of(instead));
          if (instead == version) continue;
          page.read(instead, other.data());
          std::memcpy(&bytes[at], &other[at], kSectorBytes);
        }
      }
      made.pages.emplace_back(number, std::move(bytes));
    }
  }
  return state;
}

void materialize(const CrashState& state, StoreFiles* files) {
  std::vector<std::string_view> paths;
  for (const CrashState::File& file : state.files) paths.push_back(file.path);
  files->shape(state.directories, paths);
  for (const CrashState::File& file : state.files) {
    files->resize(file.path, file.size);
    auto next = file.pages.begin();
    for (uint64_t page = 0; page * kPageBytes < file.size; ++page) {
      const bool written = next != file.pages.end() && next->first == page;
      files->set(page, written ? next++->second.data() : nullptr);
    }
  }
}

// Follows the live files of a store, and keeps the disk that they would leave.
class Recorder {
 public:
  explicit Recorder(std::string directory) : root_(std::move(directory)) {}
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;
  ~Recorder() {
    for (auto& [inode, live] : live_) drop(&live);
  }

  const Disk& disk() const { return disk_; }
  void watch(pid_t victim) { victim_ = victim; }

  // Everything is on the disk, as it is now.
  void sync_everything() {
    look_at_everything();
    for (auto& [inode, file] : disk_.files) file.sync();
    disk_.names = {disk_.names.back()};
  }

  // After an instruction that is no system call: true when a byte of a mapping has changed.
  bool look_at_mapped() {
    bool any = false;
    for (auto& [inode, live] : live_)
      for (const auto& [from, to] : live.mapped) any |= compare(inode, &live, from, to);
    return any;
  }

  // After a system call, which may do anything.
  bool look_at_everything() {
    bool any = walk_names();
    for (auto& [inode, live] : live_) any |= compare(inode, &live, 0, live.size);
    find_mapped();
    return any;
  }

  void sync_file(ino_t inode) {
    if (const auto found = disk_.files.find(inode); found != disk_.files.end()) found->second.sync();
  }
  void sync_range(ino_t inode, uint64_t from, uint64_t to) {
    const auto found = disk_.files.find(inode);
    if (found == disk_.files.end()) return;
    for (auto& [number, page] : found->second.pages)
      if (number * kPageBytes < to && (number + 1) * kPageBytes > from) page.sync();
    found->second.sizes = {found->second.sizes.back()};
  }
  void sync_names() {
    disk_.names = {disk_.names.back()};
    // What no name leads to any more is gone.
    for (auto it = live_.begin(); it != live_.end();) {
      const bool named = std::any_of(disk_.names[0].files.begin(), disk_.names[0].files.end(),
                                     [&](const auto& entry) { return entry.second == it->first; });
      if (named) {
        ++it;
        continue;
      }
      drop(&it->second);
      disk_.files.erase(it->first);
      it = live_.erase(it);
    }
  }

  // The state that SIGKILL would leave: all of memory.
  CrashState killed() const {
    Random none(0);
    uint64_t torn = 0;
    return crash(disk_, none, Pick::newest, &torn);
  }

 private:
  struct Live {
    int fd = -1;
    const uint8_t* bytes = nullptr;
    size_t size = 0;
    Bytes seen;
    std::vector<std::pair<size_t, size_t>> mapped;  // by the victim: from, to
  };

  static void drop(Live* live) {
    if (live->bytes != nullptr) munmap(const_cast<uint8_t*>(live->bytes), live->size);
    if (live->fd >= 0) ::close(live->fd);
    live->bytes = nullptr;
    live->fd = -1;
  }

  bool compare(ino_t inode, Live* live, size_t from, size_t to) {
    to = std::min(to, live->size);
    bool any = false;
    for (size_t page = from / kPageBytes * kPageBytes; page < to; page += kPageBytes) {
      const size_t length = std::min<size_t>(kPageBytes, live->size - page);
      const uint8_t* now = live->bytes + page;
      uint8_t* seen = &live->seen[page];
      if (std::memcmp(now, seen, length) == 0) continue;
      size_t first = 0, last = length;
      while (now[first] == seen[first]) ++first;
      while (now[last - 1] == seen[last - 1]) --last;
      add_version(inode, page / kPageBytes, first, now + first, last - first);
      std::memcpy(seen + first, now + first, last - first);
      any = true;
    }
    return any;
  }

  void add_version(ino_t inode, uint64_t number, size_t at, const uint8_t* bytes, size_t length) {
    Page& page = disk_.files[inode].pages[number];
    page.versions.push_back({++ids_, static_cast<uint16_t>(at), Bytes(bytes, bytes + length)});
    if (page.versions.size() > kVersionsMax) {
      page.take(page.versions.front());
      page.versions.pop_front();
    }
  }

  bool walk_names() {
    Names found;
    bool any = walk("", &found);
    if (found == disk_.names.back()) return any;
    disk_.names.push_back(std::move(found));
    return true;
  }

  bool walk(const std::string& below, Names* found) {
    bool any = false;
    const std::string directory = below.empty() ? root_ : root_ + "/" + below;
    DIR* opened = opendir(directory.c_str());
    if (opened == nullptr) return any;
    while (const dirent* entry = readdir(opened)) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      const std::string path = below.empty() ? name : below + "/" + name;
      struct stat facts {};
      if (lstat((root_ + "/" + path).c_str(), &facts) != 0) continue;
      if (S_ISDIR(facts.st_mode)) {
        found->directories.push_back(path);
        any |= walk(path, found);
      } else if (S_ISREG(facts.st_mode)) {
        found->files[path] = facts.st_ino;
        any |= resize(facts.st_ino, path, static_cast<size_t>(facts.st_size));
      }
    }
    closedir(opened);
    if (below.empty()) std::sort(found->directories.begin(), found->directories.end());
    return any;
  }

  bool resize(ino_t inode, const std::string& path, size_t size) {
    Live& live = live_[inode];
    const bool fresh = live.fd < 0;
    // An inode that stays open here is never another file's.
    if (fresh) live.fd = ::open((root_ + "/" + path).c_str(), O_RDONLY | O_CLOEXEC);
    if (live.fd < 0) die("can't open a file of the store");
    if (!fresh && size == live.size) return false;
    if (live.bytes != nullptr) munmap(const_cast<uint8_t*>(live.bytes), live.size);
    live.bytes = nullptr;
    if (size > 0) {
      void* mapped = mmap(nullptr, size, PROT_READ, MAP_SHARED, live.fd, 0);
      if (mapped == MAP_FAILED) die("can't map a file of the store");
      live.bytes = static_cast<const uint8_t*>(mapped);
    }
    // What is cut off reads as zeros if the file grows again.
    static const Bytes kZeros(kPageBytes, 0);
    for (size_t page = (size + kPageBytes - 1) / kPageBytes * kPageBytes; page < live.size; page += kPageBytes)
      add_version(inode, page / kPageBytes, 0, kZeros.data(), kPageBytes);
    live.seen.resize(size, 0);
    live.size = size;
    disk_.files[inode].sizes.push_back(size);
    return true;
  }

  void find_mapped() {
    for (auto& [inode, live] : live_) live.mapped.clear();
    if (victim_ < 0) return;
    std::FILE* maps = std::fopen(("/proc/" + std::to_string(victim_) + "/maps").c_str(), "re");
    if (maps == nullptr) return;
    char line[4400];
    while (std::fgets(line, sizeof line, maps) != nullptr) {
      unsigned long long from = 0, to = 0, offset = 0, inode = 0;
      if (std::strstr(line, root_.c_str()) == nullptr ||
          std::sscanf(line, "%llx-%llx %*s %llx %*s %llu", &from, &to, &offset, &inode) != 4) {
        continue;
      }
      const auto live = live_.find(inode);
      const std::pair<size_t, size_t> range(offset, offset + (to - from));
      if (live == live_.end()) continue;
      auto& ranges = live->second.mapped;
      if (std::find(ranges.begin(), ranges.end(), range) == ranges.end()) ranges.push_back(range);
    }
    std::fclose(maps);
  }

  std::string root_;
  pid_t victim_ = -1;
  std::map<ino_t, Live> live_;
  Disk disk_;
  uint64_t ids_ = 0;
};

// ---- judging ----

struct Totals {
  uint64_t states = 0, same_again = 0, torn = 0, in_recovery = 0, lives = 0, kills = 0, cuts = 0, points = 0;
  uint64_t retried = 0, checked = 0, verified_after_cut = 0;
  std::map<char, uint64_t> rows;
};

// What is known of the changes: the worlds after each, from the first one that may be seen on.
struct History {
  uint64_t first = 0;  // the number of worlds.front()
  std::deque<World> worlds;
  std::deque<Change> changes;  // changes[i] led to worlds[i]
  uint64_t last() const { return first + worlds.size() - 1; }
  const World& world(uint64_t number) const { return worlds[number - first]; }
  const Change& change(uint64_t number) const { return changes[number - first]; }
  void forget_before(uint64_t number) {
    for (; first < number; ++first) {
      worlds.pop_front();
      changes.pop_front();
    }
  }
  void forget_after(uint64_t number) {
    worlds.resize(number - first + 1);
    changes.resize(number - first + 1);
  }
};

struct Bounds {
  uint64_t promised, issued;
};

class Judge {
 public:
  Judge(std::string directory, uint64_t seed) : files_(std::move(directory)), random_(seed ^ 0x7dcb) {}

  // Recovers a state. Empty: all is well. `landed` and `seen`: what it came to. `same_files`: the copy stands for the
  // files that its words name, as after a kill.
  std::string recover(const CrashState& state, const History& history, Bounds bounds, bool after_cut, bool same_files,
                      Totals* totals, uint64_t* landed, World* seen) {
    materialize(state, &files_);
    StoreOptions options = store_options(files_.directory());
    options.assume_same_files = same_files;
    std::vector<Settled> settled;
    options.on_settled = [&settled](std::vector<Settled>&& some) {
      for (Settled& one : some) settled.push_back(std::move(one));
    };
    std::unique_ptr<Store> store;
    std::string detail;
    if (const Code code = Store::open(options, &store, &detail); code != Code::ok)
      return std::string("recovery refuses: ") + code_name(code) + " " + detail;
    const RecoveryReport report = store->status().recovery;
    ++totals->rows[static_cast<char>(report.row)];
    if (std::string wrong = observe(*store, new_world(), seen); !wrong.empty()) return wrong;
    // After a cut a fast region may be anything, but for one that is said to be verified, whatever recovery went by.
    const bool told = std::find(report.unverified.begin(), report.unverified.end(), "fast") != report.unverified.end();
    const bool fast_open = after_cut && told;
    totals->verified_after_cut += after_cut && !told;
    // The newest that fits: where the fast region may be anything, its changes alone make no difference.
    bool found = false;
    for (uint64_t number = bounds.issued + 1; number-- > history.first && !found;) {
      found = same(*seen, history.world(number), fast_open);
      if (found) *landed = number;
    }
    if (!found) return "torn: " + difference(*seen, history, bounds, fast_open);
    if (*landed < bounds.promised)
      return "lost: the state after change " + std::to_string(*landed) + ", but " + std::to_string(bounds.promised) +
             " was promised";
    for (const std::string& name : report.unverified)
      if (name != "fast") return name + " is reported as unverified";
    if (*landed > history.first && random_.chance(30))
      if (std::string wrong = retry(*store, settled, history, *landed, totals); !wrong.empty()) return wrong;
    if (random_.chance(3)) {
      ++totals->checked;
      store->close();
      store.reset();
      // A copy that was taken for the original keeps words that name the original: it can't look closed.
      const auto ended = same_files ? consistency::Ended::killed : consistency::Ended::closed;
      const std::vector<std::string> problems = consistency::Checker(files_.directory(), ended).run();
      if (!problems.empty()) return "inconsistent: " + problems.front();
    }
    return "";
  }

 private:
  static bool same(const World& seen, const World& then, bool fast_open) {
    for (uint32_t r = 0; r < kRegions; ++r) {
      if (seen[r].exists != then[r].exists) return false;
      if (!then[r].exists || (fast_open && r == kFast)) continue;
      if (seen[r].generation != then[r].generation || seen[r].bytes != then[r].bytes) return false;
    }
    return true;
  }

  static std::string difference(const World& seen, const History& history, Bounds bounds, bool fast_open) {
    std::string text;
    for (const uint64_t number : {bounds.promised, bounds.issued}) {
      const World& then = history.world(number);
      text += number == bounds.promised ? "" : "; ";
      text += "from the state after change " + std::to_string(number) + ":";
      for (uint32_t r = 0; r < kRegions; ++r) {
        if (fast_open && r == kFast) continue;
        if (seen[r].exists != then[r].exists) {
          text += " " + then[r].name + (seen[r].exists ? " exists" : " is missing");
          continue;
        }
        if (!then[r].exists) continue;
        if (seen[r].generation != then[r].generation)
          text += " " + then[r].name + " has generation " + std::to_string(seen[r].generation) + " instead of " +
                  std::to_string(then[r].generation);
        if (seen[r].bytes.size() != then[r].bytes.size()) {
          text += " " + then[r].name + " has another size";
          continue;
        }
        for (size_t at = 0; at < then[r].bytes.size(); ++at) {
          if (seen[r].bytes[at] == then[r].bytes[at]) continue;
          text += " " + then[r].name + " differs at byte " + std::to_string(at);
          break;
        }
      }
    }
    return text;
  }

  // The client of the last change that is there asks again: the answer must come from its outcome.
  std::string retry(Store& store, std::vector<Settled>& settled, const History& history, uint64_t landed,
                    Totals* totals) {
    const Change& change = history.change(landed);
    if (change.act != Act::batch || !change.synced) return "";
    ++totals->retried;
    std::vector<uint8_t> answer;
    const std::vector<uint8_t> frame = change.batch.frame(history.world(landed));
    if (store.commit(frame, Store::Patience::may_block, 1, &answer) == Store::Progress::waiting) {
      while (settled.empty() && store.flush_step()) {
      }
      if (settled.empty()) return "a retry is never answered";
      answer = settled.front().answer;
    }
    const auto* header = reinterpret_cast<const AnswerHeader*>(answer.data());
    if (static_cast<Code>(header->code) != Code::ok || (header->flags & kAnswerReplayed) == 0)
      return "the retry of change " + std::to_string(landed) +
             ", which is there, is not answered from its outcome: " + code_name(static_cast<Code>(header->code));
    return "";
  }

  StoreFiles files_;
  Random random_;
};

// ---- stepping ----

struct SystemCall {
  long number = -1;
  uint64_t arguments[6] = {};
  long result = 0;
};

void read_call(pid_t pid, SystemCall* call, bool before) {
  user_regs_struct registers{};
#if defined(__x86_64__)
  ptrace(PTRACE_GETREGS, pid, nullptr, &registers);
  if (!before) {
    call->result = static_cast<long>(registers.rax);
    return;
  }
  call->number = static_cast<long>(registers.rax);
  const uint64_t arguments[6] = {registers.rdi, registers.rsi, registers.rdx,
                                 registers.r10, registers.r8,  registers.r9};
#else
  iovec vector{&registers, sizeof registers};
  ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &vector);
  if (!before) {
    call->result = static_cast<long>(registers.regs[0]);
    return;
  }
  call->number = static_cast<long>(registers.regs[8]);
  const uint64_t arguments[6] = {registers.regs[0], registers.regs[1], registers.regs[2],
                                 registers.regs[3], registers.regs[4], registers.regs[5]};
#endif
  std::memcpy(call->arguments, arguments, sizeof arguments);
}

struct RunSettings : Settings {
  uint64_t states = 20000;
  int each = 12;  // states after a store
  bool controls = false;
};

struct Control {
  const char* name;
  bool in_recovery;  // the judge's recoveries make the mistake too
};
// The first is no mistake of the core: no sync of this disk does anything.
constexpr char kLyingDisk[] = "a disk that lies";
const Control kControls[] = {
    {kLyingDisk, false},
    {"apply_before_fdatasync", false},
    {"no_fdatasync", false},
    {"durable_answered_at_once", false},
    {"checkpoint_without_data_sync", false},
    {"redo_leaves_clean", false},
    {"redo_before_journal_sync", false},
    {"unverified_not_marked", true},
};

class Run {
 public:
  Run(const RunSettings& settings, const Control* control)
      : settings_(settings),
        control_(control),
        random_(settings.seed ^ 0xc07),
        judge_(settings.scratch + "/judged", settings.seed),
        progress_("crash states", settings.states) {
    shared_ =
        static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    if (shared_ == MAP_FAILED) die("no shared memory");
  }
  ~Run() { munmap(shared_, sizeof(Shared)); }

  Totals totals;
  std::string failure;
  bool judged = true;  // false: the victim ended by itself, which says nothing about cuts

  // Lives until `states` different states have been judged, or one judgement fails.
  void go() {
    history_.worlds = {new_world()};
    history_.changes = {Change{}};
    fresh_directory();
    bool first = true;
    while (failure.empty() && wanted()) {
      ++totals.lives;
      live(first);
      first = false;
    }
  }

 private:
  // However few states are asked for, some are in a recovery.
  bool wanted() const { return (totals.states < settings_.states && enough == 0) || totals.in_recovery == 0; }

  void fresh_directory() {
    std::filesystem::remove_all(live_);
    live_ = settings_.directory + "/live" + std::to_string(totals.lives);
    std::filesystem::remove_all(live_);  // an earlier control's
    recorder_ = std::make_unique<Recorder>(live_);
  }

  void live(bool first) {
    new (shared_) Shared{};
    std::fflush(stdout);
    const pid_t pid = fork();
    if (pid < 0) die("can't fork");
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
      if (control_ != nullptr && control_->name != kLyingDisk) failpoint::arm(nullptr, control_->name);
#endif
      // Changes go on from the world that the last life's end left.
      Victim(live_, shared_, settings_.seed, totals.lives, landed_, history_.world(landed_)).run(first);
    }
    int status = 0;
    if (waitpid(pid, &status, 0) != pid) die("lost the victim");
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP) {
      failed_by_itself(status);
      return;
    }
    recorder_->watch(pid);
    if (first) {
      recorder_->sync_everything();
      bounds_ = {0, 0};
    } else {
      recorder_->look_at_everything();
    }
    opened_ = false;
    // A life ends after some changes; a few end while they are still recovering.
    const uint64_t until = landed_ + random_.between(2, 14);
    const bool in_recovery = !first && random_.chance(15);
    uint64_t left = in_recovery ? random_.between(1, 60) : UINT64_MAX;
    while (failure.empty() && wanted() && (opened_ ? history_.last() : landed_) < until && left > 0) {
      if (!step(pid)) break;
      if (in_recovery && changed_) --left;
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) == pid && !WIFEXITED(status) && !WIFSIGNALED(status)) {
    }
    recorder_->watch(-1);
    if (failure.empty()) end_life();
  }

  // One instruction, and all that may be on the disk after it. False: the victim is gone.
  bool step(pid_t pid) {
    SystemCall call;
    const bool calls = next_instruction(pid).system_call;
    if (calls) read_call(pid, &call, true);
    if (ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr) != 0) die("can't step");
    int status = 0;
    if (waitpid(pid, &status, 0) != pid) die("lost the victim");
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
      failed_by_itself(status);
      return false;
    }
    ++totals.points;
    if (calls) read_call(pid, &call, false);
    follow_counts();
    changed_ = calls ? recorder_->look_at_everything() : recorder_->look_at_mapped();
    if (changed_) judge_some(settings_.each * (calls ? 3 : 1));
    if (calls && synced(pid, call)) {
      // Now less is possible: the states right after a sync are those that it is there for.
      judge_some(settings_.each * 5);
    }
    return failure.empty();
  }

  void follow_counts() {
    if (!shared_->opened) return;
    if (!opened_) {
      // What the recovery came to is what all later states follow from.
      opened_ = true;
      history_.forget_after(landed_);
    }
    while (history_.last() < shared_->issued) {
      World next = history_.worlds.back();
      Change change = change_of(settings_.seed, totals.lives, history_.last() + 1, next);
      carry_out(change, &next);
      history_.worlds.push_back(std::move(next));
      history_.changes.push_back(std::move(change));
    }
    bounds_ = {shared_->promised, shared_->issued};
    history_.forget_before(bounds_.promised);
  }

  // Takes a successful sync over; true when there was one.
  bool synced(pid_t pid, const SystemCall& call) {
    if (call.result < 0 || (control_ != nullptr && control_->name == kLyingDisk)) return false;
    const bool whole = call.number == SYS_fdatasync || call.number == SYS_fsync;
    const bool range = call.number == SYS_pwritev2 && (call.arguments[5] & (RWF_DSYNC | RWF_SYNC)) != 0;
    if (!whole && !range) return false;
    struct stat facts {};
    const std::string file = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(call.arguments[0]);
    if (stat(file.c_str(), &facts) != 0) return false;
    if (S_ISDIR(facts.st_mode))
      recorder_->sync_names();
    else if (whole)
      recorder_->sync_file(facts.st_ino);
    else
      recorder_->sync_range(facts.st_ino, call.arguments[3], call.arguments[3] + static_cast<uint64_t>(call.result));
    return true;
  }

  void judge_some(int count) {
    progress_.at(totals.states);
    for (int i = 0; i < count && failure.empty(); ++i) {
      constexpr Pick kPicks[] = {Pick::any, Pick::any, Pick::newest_but_one, Pick::oldest_but_one};
      const Pick pick = random_.chance(6) ? (random_.chance(50) ? Pick::oldest : Pick::newest)
                                          : kPicks[random_.below(std::size(kPicks))];
      uint64_t torn = 0;
      const CrashState state = crash(recorder_->disk(), random_, pick, &torn);
      // The bounds are part of what is asked: the same bytes under other promises are another question.
      if (!judged_states_.insert(mixed(mixed(state.hash, bounds_.promised), bounds_.issued)).second) {
        ++totals.same_again;
        continue;
      }
      ++totals.states;
      totals.torn += torn;
      totals.in_recovery += !opened_;
      uint64_t landed = 0;
      World seen;
      failure = judge_.recover(state, history_, bounds_, true, false, &totals, &landed, &seen);
      if (!failure.empty()) {
        failure += " (life " + std::to_string(totals.lives) + (opened_ ? "" : ", in its recovery") + ", promised " +
                   std::to_string(bounds_.promised) + ", issued " + std::to_string(bounds_.issued) + ")";
      }
    }
  }

  // By a kill, after which memory is still there, or by a power cut, after which the next life has a state of the disk.
  void end_life() {
    const bool cut = random_.chance(35);
    recorder_->look_at_everything();
    uint64_t torn = 0;
    const CrashState left = cut ? crash(recorder_->disk(), random_, Pick::any, &torn) : recorder_->killed();
    (cut ? totals.cuts : totals.kills)++;
    World seen;
    failure = judge_.recover(left, history_, bounds_, cut, !cut && words_name_journal(), &totals, &landed_, &seen);
    if (!failure.empty()) {
      failure += cut ? " (a life's end)" : " (killed)";
      return;
    }
    // A fast region is what it is now.
    history_.worlds[landed_ - history_.first] = seen;
    if (!cut) return;
    fresh_directory();
    StoreFiles files(live_);
    materialize(left, &files);
    recorder_->sync_everything();
    bounds_ = {landed_, landed_};
    history_.forget_after(landed_);
    history_.forget_before(landed_);
  }

  // False while a life that recovers from a power cut has not written them yet.
  bool words_name_journal() const {
    File directory, file;
    FileFacts facts;
    StoreWords words{};
    size_t got = 0;
    if (open_directory(live_, false, &directory) != 0 || open_at(directory, "journal", O_RDONLY, &file) != 0 ||
        file_facts(file, &facts) != 0 || open_at(directory, "store.lock", O_RDONLY, &file) != 0 ||
        read_some(file, {reinterpret_cast<uint8_t*>(&words), sizeof words}, 0, false, &got) != 0)
      die("can't look at the words of the live store");
    return got == sizeof words && words.journal_inode == facts.inode && words.journal_birth_ns == facts.birth_ns;
  }

  void failed_by_itself(int status) {
    judged = false;
    failure = "the victim ended by itself: " +
              (WIFEXITED(status)     ? "status " + std::to_string(WEXITSTATUS(status))
               : WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                     : "stopped by signal " + std::to_string(WSTOPSIG(status))) +
              ", " + shared_->message;
  }

  const RunSettings& settings_;
  const Control* control_;
  Random random_;
  Judge judge_;
  Progress progress_;
  Shared* shared_;
  std::string live_;
  std::unique_ptr<Recorder> recorder_;
  History history_;
  Bounds bounds_{0, 0};
  uint64_t landed_ = 0;
  bool opened_ = false, changed_ = false;
  std::unordered_set<uint64_t> judged_states_;
};

// ---- the program ----

unsigned long long number(uint64_t value) { return value; }

int run_controls([[maybe_unused]] const RunSettings& settings) {
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
  int missed = 0, ran = 0;
  for (const Control& control : kControls) {
    if (!settings.only.empty() && settings.only != control.name) continue;
    ++ran;
    if (control.in_recovery) failpoint::arm(nullptr, control.name);
    Run run(settings, &control);
    run.go();
    failpoint::arm(nullptr, "");
    const bool caught = !run.failure.empty() && run.judged;
    std::printf("%s %s after %llu states: %s\n", caught ? "caught" : "MISSED", control.name, number(run.totals.states),
                run.failure.c_str());
    std::fflush(stdout);
    missed += !caught;
  }
  return missed == 0 && ran > 0 ? 0 : 1;
#else
  std::fprintf(stderr, "the controls need a debug build\n");
  return 2;
#endif
}

int run_states(const RunSettings& settings) {
  const auto start = std::chrono::steady_clock::now();
  Run run(settings, nullptr);
  run.go();
  const Totals& totals = run.totals;
  if (!run.failure.empty()) std::printf("FAILED at state %llu: %s\n", number(totals.states), run.failure.c_str());
  std::printf("recoveries by row:");
  for (const auto& [row, count] : totals.rows) std::printf(" %c %llu", row, number(count));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf(
      "\npage_versions: %llu different crash states, %llu of them in recoveries, %llu torn pages, %llu lives (%llu "
      "killed, %llu cut), %llu instructions, %llu retries, %llu consistency checks, %llu fast regions "
      "verified after a cut, %s; seed %llu; %.1f s\n",
      number(totals.states), number(totals.in_recovery), number(totals.torn), number(totals.lives),
      number(totals.kills), number(totals.cuts), number(totals.points), number(totals.retried), number(totals.checked),
      number(totals.verified_after_cut), run.failure.empty() ? "0 torn, 0 lost" : "1 failure", number(settings.seed),
      seconds);
  std::printf(
      "figures: {\"states\":%llu,\"inRecovery\":%llu,\"tornPages\":%llu,\"lives\":%llu,\"failures\":%d,"
      "\"seed\":%llu,\"seconds\":%.0f}\n",
      number(totals.states), number(totals.in_recovery), number(totals.torn), number(totals.lives),
      run.failure.empty() ? 0 : 1, number(settings.seed), seconds);
  if (run.failure.empty() && (totals.in_recovery == 0 || totals.torn == 0 || totals.retried == 0)) {
    std::printf("FAILED: no state was in a recovery, no page was torn, or no retry was tried\n");
    return 1;
  }
  return run.failure.empty() ? 0 : 1;
}

int main_of(int argc, char** argv) {
  RunSettings settings;
  const std::vector<Option> own = {
      {"states", required_argument, [&](const char* text) { settings.states = std::strtoull(text, nullptr, 10); }},
      {"each", required_argument, [&](const char* text) { settings.each = std::atoi(text); }},
      {"controls", no_argument, [&](const char*) { settings.controls = true; }}};
  constexpr char kHelp[] =
      "page_versions: simulated power cuts, each page at any version since its last sync\n"
      "  --states=N      different crash states to judge (20000); with --controls for each mistake at most\n"
      "  --each=N        of them after each store (12); fewer mean more lives in as many states\n"
      "  --controls      instead: each mistake, and a disk that lies, must be found (debug build)\n"
      "  --only=NAME     only this control\n";
  return run_program(argc, argv, "page-versions", kHelp, &settings, own,
                     [&] { return settings.controls ? run_controls(settings) : run_states(settings); });
}

}  // namespace
}  // namespace holdfast::rig

int main(int argc, char** argv) {
  // A string instruction is stepped once for each byte: the C library's own thresholds keep it from using any.
  if (getenv("GLIBC_TUNABLES") == nullptr) {
    setenv("GLIBC_TUNABLES",
           "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824", 1);
    execv("/proc/self/exe", argv);
  }
  return holdfast::rig::main_of(argc, argv);
}
