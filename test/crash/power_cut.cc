// power_cut.cc - cuts the power under a store on a real file system, and judges what is left.
//
// A writer process commits to a store on ext4 or xfs, which lies on a loop device on a disk with a volatile write cache
// (volatile_disk.h). At random requests the rig takes what the disk may hold after a power cut, mounts that copy (the
// file system replays its own journal), runs the real recovery and asks: are the synced regions the state after a whole
// number of batches, at least every batch that was acknowledged as durable? are ordered batches lost only within the
// flush interval? is a fast region reported as unverified, or else what it was at an orderly end? is the last batch's
// idempotency key still known? Some recoveries are cut in turn. The writer is killed and resumed, ends in order and starts
// again, pushes single files to the disk behind the store's back, and commits in groups. With --controls the same must
// fail: a mount without barriers, and mistakes of the core.
#include <getopt.h>
#include <signal.h>
#include <spawn.h>
#include <sys/klog.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "../../native/failpoint.h"
#include "../../native/store.h"
#include "../native/consistency.h"
#include "progress.h"
#include "volatile_disk.h"

namespace holdfast::rig {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kFlushIntervalMs = 20;
// An ordered batch may be this much older than the interval says before its loss is called one: the flusher waits for a
// disk that is a process on a busy machine.
constexpr uint64_t kOrderedSlackUs = 1'500'000;
constexpr uint64_t kBatchesMax = 1 << 20;
constexpr uint32_t kOutstandingMax = 6;

enum Region : uint32_t { kDurable1, kDurable2, kOrdered, kFast, kRegions };

// Shared memory between rig and writer.
struct Ledger {
  std::atomic<uint64_t> paused_us;  // how long the rig has kept the writer stopped; the rest is the writer's to store
  std::atomic<uint64_t> regions;    // created and acknowledged
  std::atomic<uint64_t> issued;     // batches; number n is the nth
  std::atomic<uint64_t> durable;    // everything up to this batch was said to survive a power cut
  std::atomic<uint64_t>
      ordered_us[kBatchesMax];  // when an ordered batch was acknowledged, 0: was not, or needs no look

  // The time as far as the writer has lived it.
  uint64_t now_us() const { return monotonic_us() - paused_us; }
};

World new_world() {
  World world(kRegions);
  world[kDurable1] = {"durable1", Durability::durable, std::vector<uint8_t>(70'000, 0), 0, true};
  world[kDurable2] = {"durable2", Durability::durable, std::vector<uint8_t>(40'007, 0), 0, true};
  world[kOrdered] = {"ordered", Durability::ordered, std::vector<uint8_t>(50'001, 0), 0, true};
  world[kFast] = {"fast", Durability::fast, std::vector<uint8_t>(30'000, 0), 0, true};
  return world;
}

struct Numbered {
  RigBatch batch;
  bool synced = false;   // touches a region that survives power cuts
  bool durable = false;  // its acknowledgement is a promise about power cuts
};

// Batch `number` of a run: the same for writer and judge.
Numbered numbered_batch(uint64_t seed, uint64_t number, const World& world) {
  Random random(seed * 0x9e3779b97f4a7c15 + number);
  Numbered made;
  made.batch.key = random.next() | 1;
  std::vector<uint32_t> regions;
  const uint64_t kind = random.below(100);
  if (kind < 45) {
    regions = {kDurable1, kDurable2};
  } else if (kind < 60) {
    regions = {kDurable1};
  } else if (kind < 80) {
    regions = {kOrdered};
  } else if (kind < 90) {
    regions = {kFast};
  } else {
    regions = {kDurable2, kOrdered, kFast};
  }
  const uint64_t most = random.chance(10) ? 6000 : 100;
  for (const uint32_t region : regions) {
    for (uint64_t i = random.between(1, 4); i > 0; --i) {
      const uint64_t length = random.between(1, most);
      made.batch.write(region, random.below(world[region].bytes.size() - length), random_bytes(random, length));
    }
    made.synced |= region != kFast;
    made.durable |= region == kDurable1 || region == kDurable2;
  }
  if (!made.durable && made.synced && random.chance(20)) {
    made.batch.wait = Wait::durable;
    made.durable = true;
  }
  return made;
}

StoreOptions store_options(const std::string& directory) {
  StoreOptions options;
  options.directory = directory;
  options.journal_bytes = 512 << 10;
  options.regions_max = 16;
  options.flush_interval_ms = kFlushIntervalMs;
  options.checkpoint_interval_ms = 100;
  options.batch.batch_bytes_max = 80 << 10;
  options.idempotency_keys_min = 1000;  // the disk is small
  options.idempotency_seconds_min = 1;
  options.standby = false;
  return options;
}

// ---- the writer ----

class Writer {
 public:
  Writer(std::string directory, Ledger* ledger, uint64_t seed, uint64_t life)
      : directory_(std::move(directory)), ledger_(ledger), seed_(seed), random_(seed ^ (life * 0x51ed27)) {}

  // Runs until killed.
  [[noreturn]] void run() {
    const bool threads = random_.chance(50);
    StoreOptions options = store_options(directory_);
    options.threads = threads;
    options.on_settled = [this](std::vector<Settled>&& settled) {
      for (const Settled& one : settled) answered(one.ticket, one.answer);
    };
    open_store(options);
    make_regions();
    std::thread pusher;
    if (threads) {
      pusher = std::thread([this, seed = random_.next()] {
        Random random(seed);
        for (;;) {
          push(random);
          usleep(static_cast<useconds_t>(random.between(100, 5000)));
        }
      });
    }
    // Frees the records of what the killed life applied, before anything touches those regions again.
    if (random_.chance(50) && store_->checkpoint_step() != 0) must(Code::io_error, "a checkpoint");
    // What was issued before a kill is asked for again; its key makes that exactly once, and keeps the order.
    const uint64_t issued = ledger_->issued;
    settled_ = issued > kOutstandingMax ? issued - kOutstandingMax : 0;
    for (uint64_t number = settled_ + 1;; ++number) {
      if (number >= kBatchesMax) must(Code::overloaded, "the ledger is full");
      if (number > ledger_->issued) ledger_->issued = number;
      commit(number, threads);
      if (!random_.chance(3)) continue;
      // An orderly end, after which even a fast region is on the disk, until the next start.
      store_->close();
      raise_durable(number);
      store_.reset();
      open_store(options);
    }
  }

 private:
  void must(Code code, const std::string& what) {
    if (code == Code::ok) return;
    std::fprintf(stderr, "writer: %s: %s\n", code_name(code), what.c_str());
    _exit(3);
  }

  void open_store(const StoreOptions& options) {
    std::string detail;
    must(Store::open(options, &store_, &detail), detail);
  }

  void make_regions() {
    for (uint32_t r = 0; r < kRegions; ++r) {
      if (!store_->info(world_[r].name)) {
        RegionMeta meta;
        meta.name = world_[r].name;
        meta.size = world_[r].bytes.size();
        meta.durability = world_[r].durability;
        MetaResult result;
        std::string detail;
        must(store_->create(meta, Conditions{}, &result, &detail), detail);
      }
      if (ledger_->regions <= r) ledger_->regions = r + 1;
    }
  }

  void answered(uint64_t number, const std::vector<uint8_t>& answer) {
    must(static_cast<Code>(reinterpret_cast<const AnswerHeader*>(answer.data())->code), "a batch");
    const Numbered made = numbered_batch(seed_, number, world_);
    if (made.durable) {
      raise_durable(number);
    } else if (made.synced && ledger_->ordered_us[number] == 0) {
      ledger_->ordered_us[number] = ledger_->now_us();
    }
    const std::lock_guard lock(mutex_);
    settled_ = std::max(settled_, number);
    changed_.notify_all();
  }

  void raise_durable(uint64_t number) {
    uint64_t now = ledger_->durable;
    while (now < number && !ledger_->durable.compare_exchange_weak(now, number)) {
    }
  }

  void commit(uint64_t number, bool threads) {
    const std::vector<uint8_t> frame = numbered_batch(seed_, number, world_).batch.frame(world_);
    std::vector<uint8_t> answer;
    const bool done = store_->commit(frame, Store::Patience::may_block, number, &answer) == Store::Progress::done;
    if (done) answered(number, answer);
    if (threads) {
      // A group of up to kOutstandingMax waits for one flush.
      std::unique_lock lock(mutex_);
      const uint64_t most = random_.chance(50) ? kOutstandingMax : 1;
      if (!done) changed_.wait(lock, [&] { return settled_ + most > number; });
      lock.unlock();
      if (random_.chance(5)) usleep(static_cast<useconds_t>(random_.below(3000)));
      return;
    }
    if (random_.chance(30)) push(random_);
    if (random_.chance(40) || number % (kOutstandingMax - 1) == 0) {
      store_->flush_step();
      raise_durable(number);
      if (random_.chance(30)) push(random_);
    }
    if (random_.chance(4) || number % 32 == 0) {
      if (store_->checkpoint_step() != 0) must(Code::io_error, "a checkpoint");
    }
  }

  // The kernel may write any dirty page at any time; this makes it happen often, one file at a time.
  void push(Random& random) {
    const char* files[] = {"regions/durable1/data",
                           "regions/durable2/data",
                           "regions/ordered/data",
                           "regions/fast/data",
                           "regions/ordered/control",
                           "store.lock",
                           "journal"};
    const int fd = open((directory_ + "/" + files[random.below(std::size(files))]).c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    close(fd);
  }

  std::string directory_;
  Ledger* ledger_;
  uint64_t seed_;
  Random random_;
  const World world_ = new_world();
  std::unique_ptr<Store> store_;
  std::mutex mutex_;  // guards settled_
  std::condition_variable changed_;
  uint64_t settled_ = 0;
};

// ---- the judge ----

struct Bounds {
  uint64_t regions, least, ordered_least, issued;
};

struct Verdict {
  std::string wrong;           // empty: all is well
  uint64_t ordered_lost = 0;   // acknowledged ordered batches that are gone, within the interval
  bool fast_verified = false;  // the fast region is said to be whole, and is what it was
  char row = 0;
};

class Judge {
 public:
  explicit Judge(uint64_t seed) : seed_(seed), random_(seed ^ 0x7dcb) {}

  // Recovers the store in `directory` and closes it. Bounds only grow from call to call.
  Verdict recover(const std::string& directory, const Bounds& bounds, bool after_cut) {
    Verdict verdict;
    advance(std::min(bounds.least, bounds.ordered_least));
    if (!std::filesystem::exists(directory)) {
      if (bounds.regions > 0) verdict.wrong = "lost: the store's directory";
      return verdict;
    }
    StoreOptions options = store_options(directory);
    options.threads = false;
    std::vector<Settled> settled;
    options.on_settled = [&settled](std::vector<Settled>&& some) {
      for (Settled& one : some) settled.push_back(std::move(one));
    };
    std::unique_ptr<Store> store;
    std::string detail;
    if (const Code code = Store::open(std::move(options), &store, &detail); code != Code::ok) {
      verdict.wrong = std::string("recovery refuses: ") + code_name(code) + " " + detail;
      return verdict;
    }
    const RecoveryReport report = store->status().recovery;
    verdict.row = static_cast<char>(report.row);
    const auto unverified = [&](const std::string& name) {
      return std::find(report.unverified.begin(), report.unverified.end(), name) != report.unverified.end();
    };
    World seen = new_world();
    // After a cut the fast region may be anything, but not if it is said to be verified.
    const bool fast_open = after_cut && unverified(seen[kFast].name);
    for (uint32_t r = 0; r < kRegions; ++r) {
      Expected& region = seen[r];
      const std::optional<RegionInfo> info = store->info(region.name);
      if (!info) {
        if (r < bounds.regions) verdict.wrong = "lost: region " + region.name;
        if (bounds.issued > 0 || !verdict.wrong.empty()) return verdict;
        continue;
      }
      if (!info->fault.empty()) verdict.wrong = region.name + " is faulted: " + info->fault;
      if (info->meta.size != region.bytes.size()) verdict.wrong = region.name + " has another size";
      if (!verdict.wrong.empty()) return verdict;
      region.generation = info->generation;
      Code code = Code::ok;
      Store::ReadFacts facts{};
      if (store->read(region.name, 0, region.bytes.size(), Store::Patience::may_block, region.bytes.data(), &code,
                      &facts) != Store::Progress::done ||
          code != Code::ok) {
        verdict.wrong = region.name + " can't be read: " + code_name(code);
        return verdict;
      }
      if (unverified(region.name) && !(r == kFast && after_cut)) {
        verdict.wrong = region.name + " is reported as unverified";
        return verdict;
      }
    }
    std::optional<uint64_t> landed = find(seen, bounds, fast_open, &verdict.wrong);
    if (!landed) return verdict;
    verdict.fast_verified = after_cut && !fast_open;
    for (uint64_t n = *landed + 1; n <= bounds.issued; ++n) {
      if (ordered_acknowledged_ != nullptr && (*ordered_acknowledged_)[n] != 0) ++verdict.ordered_lost;
    }
    verdict.wrong = retry(*store, settled, *landed);
    if (!verdict.wrong.empty()) return verdict;
    store->close();
    store.reset();
    const std::vector<std::string> problems = consistency::Checker(directory, consistency::Ended::closed).run();
    if (!problems.empty()) verdict.wrong = "inconsistent: " + problems.front();
    return verdict;
  }

  void watch_ordered(const std::atomic<uint64_t> (*acknowledged)[kBatchesMax]) { ordered_acknowledged_ = acknowledged; }

 private:
  void advance(uint64_t number) {
    while (number_ < number) numbered_batch(seed_, ++number_, world_).batch.apply(&world_);
  }

  static bool same(const World& seen, const World& then, bool fast_open, bool bytes_too) {
    for (uint32_t r = 0; r < kRegions; ++r) {
      if (fast_open && r == kFast) continue;
      if (seen[r].generation != then[r].generation) return false;
      if (bytes_too && seen[r].bytes != then[r].bytes) return false;
    }
    return true;
  }

  static std::string generations(const World& world) {
    std::string text;
    for (const Expected& region : world) text += " " + region.name + " " + std::to_string(region.generation);
    return text;
  }

  // Which bytes differ first, and which batches last wrote them.
  std::string difference(uint32_t region, const Expected& seen, const Expected& then, uint64_t number) const {
    size_t from = 0;
    while (seen.bytes[from] == then.bytes[from]) ++from;
    size_t to = from;
    while (to < seen.bytes.size() && seen.bytes[to] != then.bytes[to]) ++to;
    std::string writers;
    for (uint64_t n = number > 400 ? number - 400 : 1; n <= number + 20; ++n) {
      for (const Op& op : numbered_batch(seed_, n, world_).batch.ops) {
        if (op.op.region != region || op.op.offset > from || op.op.offset + op.data.size() <= from) continue;
        const bool its = seen.bytes[from] == op.data[from - op.op.offset];
        writers += " " + std::to_string(n) + (its ? " (seen)" : "");
      }
    }
    return then.name + " differs from the state after batch " + std::to_string(number) + " at bytes " +
           std::to_string(from) + " to " + std::to_string(to - 1) + ", which were written by batches" + writers;
  }

  std::optional<uint64_t> find(const World& seen, const Bounds& bounds, bool fast_open, std::string* wrong) {
    World then = world_;
    std::optional<uint64_t> at;
    for (uint64_t n = number_;; ++n) {
      if (n > number_) numbered_batch(seed_, n, then).batch.apply(&then);
      if (same(seen, then, fast_open, false)) {
        if (!same(seen, then, fast_open, true)) {
          for (uint32_t r = 0; r < kRegions; ++r) {
            if (!(fast_open && r == kFast) && seen[r].bytes != then[r].bytes)
              *wrong = "torn: " + difference(r, seen[r], then[r], n);
          }
          return std::nullopt;
        }
        at = n;  // the last match counts: where the fast region may be anything, batches of it alone change nothing
      }
      if (n >= bounds.issued) break;
    }
    if (!at) {
      *wrong = "lost or mixed: at" + generations(seen) + ", which is no state from batch " + std::to_string(number_) +
               " on (" + generations(world_) + " )" + (fast_open ? ", the fast region is reported as unverified" : "");
      return std::nullopt;
    }
    if (*at < bounds.least) {
      *wrong = "lost: the state after batch " + std::to_string(*at) + ", but " + std::to_string(bounds.least) +
               " was acknowledged as durable";
      return std::nullopt;
    }
    if (*at < bounds.ordered_least) {
      *wrong = "lost: the state after batch " + std::to_string(*at) + ", but the ordered batch " +
               std::to_string(bounds.ordered_least) + " is older than the flush interval";
      return std::nullopt;
    }
    return at;
  }

  // A client asks again for one of the last batches that are there: the answer must come from the outcome.
  std::string retry(Store& store, std::vector<Settled>& settled, uint64_t landed) {
    for (uint64_t n = landed; n > 0 && n + 8 > landed; --n) {
      const Numbered made = numbered_batch(seed_, n, world_);
      if (!made.synced || !random_.chance(40)) continue;
      const std::vector<uint8_t> frame = made.batch.frame(world_);
      std::vector<uint8_t> answer;
      if (store.commit(frame, Store::Patience::may_block, n, &answer) == Store::Progress::waiting) {
        while (settled.empty() && store.flush_step()) {
        }
        if (settled.empty()) return "a retry is never answered";
        answer = settled.front().answer;
      }
      const auto* header = reinterpret_cast<const AnswerHeader*>(answer.data());
      if (static_cast<Code>(header->code) != Code::ok || (header->flags & kAnswerReplayed) == 0) {
        return "the retry of batch " + std::to_string(n) +
               ", which is there, is not answered from its outcome: " + code_name(static_cast<Code>(header->code));
      }
      return "";
    }
    return "";
  }

  uint64_t seed_;
  Random random_;
  World world_ = new_world();  // after batch number_
  uint64_t number_ = 0;
  const std::atomic<uint64_t> (*ordered_acknowledged_)[kBatchesMax] = nullptr;
};

// ---- one run on one file system ----

struct Kind {
  const char* name;
  const char* type;
  uint64_t bytes;
  const char* make;
  const char* options;       // of the writer's mount
  const char* copy_options;  // of a copy, mounted beside the original
  const char* mutant;        // of the writer
  VolatileDisk::Whole whole;
};

constexpr const char* kMakeExt4 = "mkfs.ext4 -q -F -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0 ";
// Smaller than xfs likes it: the variables are those of its own tests.
constexpr const char* kMakeXfs = "TEST_DIR=/ TEST_DEV=/ QA_CHECK_FS=1 mkfs.xfs -q -f -d agcount=2 -l size=8m ";

// Its superblock, with the checksum at its end, is not in its journal's care when it is mounted.
constexpr VolatileDisk::Whole kWholeExt4 = {2, 2};
const Kind kExt4 = {"ext4", "ext4", 64 << 20, kMakeExt4, "", "", nullptr, kWholeExt4};
const Kind kXfs = {"xfs", "xfs", 64 << 20, kMakeXfs, "", "nouuid", nullptr, {}};
const Kind kControls[] = {
    {"ext4 without barriers", "ext4", 64 << 20, kMakeExt4, "barrier=0", "", nullptr, kWholeExt4},
    {"ext4 with apply_before_fdatasync", "ext4", 64 << 20, kMakeExt4, "", "", "apply_before_fdatasync", kWholeExt4},
    {"ext4 with no_fdatasync", "ext4", 64 << 20, kMakeExt4, "", "", "no_fdatasync", kWholeExt4},
};

struct Result {
  uint64_t cuts = 0, nested = 0, lives = 0, sectors = 0, ordered_lost = 0, fast_verified = 0, batches = 0, flushes = 0;
  uint64_t unmountable = 0;
  uint64_t by_percent[3] = {};
  std::string failure;
  bool judged = false;  // the failure is what a store was after a cut, and not a trouble of the rig's own
};

class Run {
 public:
  Run(const Kind& kind, std::string directory, uint64_t seed)
      : kind_(kind), directory_(std::move(directory)), seed_(seed), random_(seed ^ 0xc07), judge_(seed) {}
  ~Run() { end_writer(); }

  // Makes `cuts` cuts, or fewer when one fails. False: the rig itself can't work, with a reason.
  bool go(uint64_t cuts, Result* result, std::string* why) {
    std::filesystem::create_directories(directory_ + "/live");
    std::filesystem::create_directories(directory_ + "/copy");
    std::filesystem::create_directories(directory_ + "/inner");
    const int image = file("image");
    cut_ = file("cut");
    inner_cut_ = file("inner-cut");
    if (ftruncate(image, static_cast<off_t>(kind_.bytes)) != 0) die("can't size the image");
    if (std::system((kind_.make + directory_ + "/image").c_str()) != 0) {
      *why = std::string("can't make a file system with: ") + kind_.make;
      return false;
    }
    const int memory = memfd_create("ledger", 0);
    if (memory < 0 || ftruncate(memory, sizeof(Ledger)) != 0) die("no memory for the ledger");
    ledger_ = static_cast<Ledger*>(mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0));
    if (ledger_ == MAP_FAILED) die("no memory for the ledger");
    ledger_file_ = memory;
    judge_.watch_ordered(&ledger_->ordered_us);
    VolatileDisk disk;
    close(file("disk"));
    if (!disk.start(image, directory_ + "/disk", kind_.whole, why)) return false;
    if (!mount_file(directory_ + "/disk", directory_ + "/live", kind_.options, why)) return false;
    bool works = true;
    uint64_t life = 0;
    Progress progress(std::string("cuts on ") + kind_.name, cuts);
    while (result->failure.empty() && result->cuts < cuts) {
      progress.at(result->cuts);
      if (writer_ < 0) {
        life_began_ = ledger_->issued;
        start_writer(++life);
      }
      // Mostly soon after the last cut; now and then the cache gets to grow.
      const uint64_t gap = random_.chance(80) ? random_.between(1, 25) : random_.between(25, 200);
      disk.wait_requests(disk.requests() + gap, std::chrono::milliseconds(300));
      int status = 0;
      if (waitpid(writer_, &status, WNOHANG) == writer_) {
        writer_ = -1;
        result->failure = "the writer ended by itself";
        break;
      }
      works = cut(disk, result, why);
      if (!works) break;
      if (random_.chance(8)) end_writer();
    }
    end_writer();
    if (!result->failure.empty()) {
      // Was it the cut, or is the store that was never cut wrong as well?
      Bounds bounds{ledger_->regions, ledger_->durable, 0, ledger_->issued};
      const Verdict live = judge_.recover(directory_ + "/live/store", bounds, false);
      result->failure += live.wrong.empty() ? "; the live store is well" : "; the live store: " + live.wrong;
    }
    result->lives = life;
    result->batches = ledger_->issued;
    result->flushes = disk.flushes();
    umount2((directory_ + "/live").c_str(), 0);
    disk.stop();
    close(image);
    close(cut_);
    close(inner_cut_);
    close(memory);
    munmap(ledger_, sizeof(Ledger));
    return works;
  }

 private:
  int file(const char* name) {
    const int fd = open((directory_ + "/" + name).c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) die("can't make a file");
    return fd;
  }

  bool mount_file(const std::string& from, const std::string& to, const char* options, std::string* why) {
    const int fd = open(from.c_str(), O_RDWR | O_CLOEXEC);
    LoopDevice device;
    if (fd < 0 || !device.attach(fd, why)) {
      if (fd < 0)
        *why = failed(from);
      else
        close(fd);
      return false;
    }
    close(fd);
    if (mount(device.path().c_str(), to.c_str(), kind_.type, 0, options) != 0) {
      *why = failed(std::string("mounting ") + kind_.type) + "; the kernel's last words: " + kernel_said();
      return false;
    }
    return true;
  }

  // The end of the kernel's log: mount() says that it failed, and only there is why.
  static std::string kernel_said() {
    constexpr int kReadAll = 3;
    std::string text(1000, '\0');
    const int got = klogctl(kReadAll, text.data(), static_cast<int>(text.size()));
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    std::replace(text.begin(), text.end(), '\n', '|');
    return text;
  }

  // This program again, in another role.
  pid_t spawn(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "power_cut");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_t pid = -1;
    if (posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, argv.data(), environ) != 0) die("can't start a process");
    return pid;
  }

  void start_writer(uint64_t life) {
    std::vector<std::string> arguments = {"--role=writer", "--store=" + directory_ + "/live/store",
                                          "--ledger=" + std::to_string(ledger_file_), "--seed=" + std::to_string(seed_),
                                          "--life=" + std::to_string(life)};
    if (kind_.mutant != nullptr) arguments.push_back(std::string("--mutant=") + kind_.mutant);
    writer_ = spawn(std::move(arguments));
  }

  void end_writer() {
    if (writer_ < 0) return;
    kill(writer_, SIGKILL);
    waitpid(writer_, nullptr, 0);
    writer_ = -1;
  }

  // The newest ordered batch that was acknowledged long enough ago.
  uint64_t ordered_least(uint64_t issued) {
    const uint64_t limit = ledger_->now_us() - kFlushIntervalMs * 1000 - kOrderedSlackUs;
    for (uint64_t n = issued; n > ordered_least_; --n) {
      const uint64_t at = ledger_->ordered_us[n];
      if (at != 0 && at < limit) {
        ordered_least_ = n;
        break;
      }
    }
    return ordered_least_;
  }

  bool cut(VolatileDisk& disk, Result* result, std::string* why) {
    Bounds bounds{};
    // What was promised before the cut, what may have been begun until after it.
    bounds.regions = ledger_->regions;
    bounds.least = ledger_->durable;
    bounds.ordered_least = ordered_least(ledger_->issued);
    const unsigned which = static_cast<unsigned>(random_.below(3));
    result->sectors += disk.cut(random_, which * 50, cut_);
    bounds.issued = ledger_->issued;
    ++result->cuts;
    ++result->by_percent[which];
    // Judging takes many times longer than the next few batches.
    const uint64_t stopped = monotonic_us();
    kill(writer_, SIGSTOP);
    const bool works = judge_cut(bounds, which, result, why);
    ledger_->paused_us += monotonic_us() - stopped;
    kill(writer_, SIGCONT);
    return works;
  }

  bool judge_cut(const Bounds& bounds, unsigned which, Result* result, std::string* why) {
    if (random_.chance(20) && !cut_recovery(bounds, result, why)) return false;
    if (!result->failure.empty()) return true;
    judge(directory_ + "/cut", bounds, result, &result->ordered_lost);
    if (!result->failure.empty()) {
      result->failure += " (" + std::to_string(which * 50) +
                         " % of the cached sectors kept, the writer was resumed at batch " +
                         std::to_string(life_began_) + ")";
    }
    return true;
  }

  // Mounts a copy, recovers, judges, unmounts.
  void judge(const std::string& image, const Bounds& bounds, Result* result, uint64_t* ordered_lost) {
    std::string reason;
    const std::string copy = directory_ + "/copy";
    if (!mount_file(image, copy, kind_.copy_options, &reason)) {
      cant_mount(reason, result);
      return;
    }
    const Verdict verdict = judge_.recover(copy + "/store", bounds, true);
    result->failure = verdict.wrong;
    result->judged = !verdict.wrong.empty();
    result->fast_verified += verdict.fast_verified;
    if (result->judged && verdict.row != 0) result->failure += std::string(", recovery row ") + verdict.row;
    if (ordered_lost != nullptr) *ordered_lost += verdict.ordered_lost;
    if (umount2(copy.c_str(), 0) != 0 && result->failure.empty())
      result->failure = failed("the copy can't be unmounted");
  }

  // A file system that does not survive a cut says nothing of the store on it: the next cut may. Often, it is the rig's fault.
  static void cant_mount(const std::string& reason, Result* result) {
    std::printf("a copy can't be mounted: %s\n", reason.c_str());
    if (++result->unmountable > 1 + result->cuts / 500) result->failure = "too many copies can't be mounted: " + reason;
  }

  // Cuts the power while recovery runs on what the first cut left, twice, and judges those as well.
  bool cut_recovery(const Bounds& bounds, Result* result, std::string* why) {
    VolatileDisk disk;
    close(file("inner-disk"));
    if (!disk.start(cut_, directory_ + "/inner-disk", kind_.whole, why)) return false;
    const std::string inner = directory_ + "/inner";
    std::string reason;
    if (!mount_file(directory_ + "/inner-disk", inner, kind_.copy_options, &reason)) {
      cant_mount(reason, result);
      return true;
    }
    const uint64_t before = disk.requests();
    const pid_t recovery = spawn({"--role=recover", "--store=" + inner + "/store"});
    for (int i = 0; i < 2 && result->failure.empty(); ++i) {
      disk.wait_requests(before + random_.between(1, 30), std::chrono::milliseconds(30));
      disk.cut(random_, static_cast<unsigned>(random_.below(3)) * 50, inner_cut_);
      ++result->nested;
      judge(directory_ + "/inner-cut", bounds, result, nullptr);
      if (!result->failure.empty()) result->failure += " (cut in recovery)";
    }
    waitpid(recovery, nullptr, 0);
    umount2(inner.c_str(), 0);
    disk.stop();
    return true;
  }

  const Kind& kind_;
  std::string directory_;
  uint64_t seed_;
  Random random_;
  Judge judge_;
  int cut_ = -1, inner_cut_ = -1, ledger_file_ = -1;
  Ledger* ledger_ = nullptr;
  pid_t writer_ = -1;
  uint64_t ordered_least_ = 0;
  uint64_t life_began_ = 0;  // batches issued before the writer was last started
};

// ---- the program ----

constexpr int kSkipped = 77;

struct Settings {
  uint64_t seed = 0;
  uint64_t cuts = 120;
  bool controls = false;
  std::string file_system = "ext4,xfs";
  std::string role, store, mutant;
  int ledger = -1;
  uint64_t life = 0;
};

int run_role(const Settings& settings) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
  failpoint::arm(nullptr, settings.mutant.c_str());
#endif
  if (settings.role == "writer") {
    void* memory = mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED, settings.ledger, 0);
    if (memory == MAP_FAILED) die("no ledger");
    Writer(settings.store, static_cast<Ledger*>(memory), settings.seed, settings.life).run();
  }
  StoreOptions options = store_options(settings.store);
  options.threads = false;
  std::unique_ptr<Store> store;
  std::string detail;
  Store::open(std::move(options), &store, &detail);
  return 0;
}

int main_of(int argc, char** argv) {
  Settings settings;
  settings.seed = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) % 1000000007;
  enum { kHelp = 'h', kSeed = 256, kCuts, kControl, kFileSystem, kRole, kStore, kLedger, kLife, kMutant };
  const option options[] = {{"help", no_argument, nullptr, kHelp},
                            {"seed", required_argument, nullptr, kSeed},
                            {"cuts", required_argument, nullptr, kCuts},
                            {"controls", no_argument, nullptr, kControl},
                            {"file-systems", required_argument, nullptr, kFileSystem},
                            {"role", required_argument, nullptr, kRole},
                            {"store", required_argument, nullptr, kStore},
                            {"ledger", required_argument, nullptr, kLedger},
                            {"life", required_argument, nullptr, kLife},
                            {"mutant", required_argument, nullptr, kMutant},
                            {nullptr, 0, nullptr, 0}};
  for (int c; (c = getopt_long(argc, argv, "h", options, nullptr)) != -1;) {
    switch (c) {
      case kSeed:
        settings.seed = std::strtoull(optarg, nullptr, 10);
        break;
      case kCuts:
        settings.cuts = std::strtoull(optarg, nullptr, 10);
        break;
      case kControl:
        settings.controls = true;
        break;
      case kFileSystem:
        settings.file_system = optarg;
        break;
      case kRole:
        settings.role = optarg;
        break;
      case kStore:
        settings.store = optarg;
        break;
      case kLedger:
        settings.ledger = std::atoi(optarg);
        break;
      case kLife:
        settings.life = std::strtoull(optarg, nullptr, 10);
        break;
      case kMutant:
        settings.mutant = optarg;
        break;
      default:
        std::printf(
            "power_cut: cuts the power under a store on a real file system and judges what recovery makes of it\n"
            "  --cuts=N                cuts on each file system (120)\n"
            "  --seed=N                chooses batches, moments and sectors; moments depend on the machine as well\n"
            "  --file-systems=ext4,xfs which\n"
            "  --controls              instead: what breaks the promise must be found (debug build)\n"
            "Needs root, /dev/fuse, loop devices and the file systems' mkfs; ends with status 77 and the reason "
            "where they are missing.\n");
        return c == kHelp ? 0 : 2;
    }
  }
  if (!settings.role.empty()) return run_role(settings);
  const auto start = Clock::now();
  std::printf("seed %llu\n", static_cast<unsigned long long>(settings.seed));
  std::string why;
  if (geteuid() != 0 || !enter_own_mounts(&why)) {
    std::printf("SKIP %s\n", geteuid() != 0 ? "needs root" : why.c_str());
    return kSkipped;
  }
  const std::string directory = "/tmp/holdfast-power-cut-" + std::to_string(getpid());
  std::filesystem::create_directories(directory);
  // Everything is in memory, and goes with the mount namespace.
  if (mount("holdfast-power-cut", directory.c_str(), "tmpfs", 0, "size=2g") != 0) {
    std::printf("SKIP %s\n", failed("a tmpfs").c_str());
    return kSkipped;
  }
  std::vector<Kind> kinds;
  if (settings.controls) {
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
    kinds.assign(std::begin(kControls), std::end(kControls));
#else
    std::fprintf(stderr, "the controls need a debug build\n");
    return 2;
#endif
  } else {
    for (const Kind& kind : {kExt4, kXfs}) {
      if (("," + settings.file_system + ",").find("," + std::string(kind.name) + ",") != std::string::npos) {
        kinds.push_back(kind);
      }
    }
  }
  int status = 0;
  for (size_t i = 0; i < kinds.size(); ++i) {
    Result result;
    const std::string own = directory + "/" + std::to_string(i);
    std::filesystem::create_directories(own);
    if (!Run(kinds[i], own, settings.seed).go(settings.cuts, &result, &why)) {
      std::printf("SKIP %s: %s\n", kinds[i].name, why.c_str());
      if (status == 0) status = kSkipped;
      continue;
    }
    const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
    if (settings.controls) {
      const bool caught = result.judged;
      std::printf("%s %s after %llu cuts: %s\n", caught ? "caught" : "MISSED", kinds[i].name, number(result.cuts),
                  result.failure.c_str());
      if (!caught) status = 1;
    } else {
      if (!result.failure.empty()) {
        std::printf("FAILED on %s at cut %llu: %s\n", kinds[i].name, number(result.cuts), result.failure.c_str());
        status = 1;
      }
      std::printf(
          "power_cut: %s: %llu cuts (0 %%: %llu, 50 %%: %llu, 100 %%: %llu of the cached sectors kept, %.0f cached in "
          "the mean), %llu cuts in recovery, %llu batches, %llu disk flushes, %llu writer lives, %llu ordered batches "
          "lost within the interval, %llu fast regions verified, %llu copies not mountable, %s; seed "
          "%llu\n",
          kinds[i].name, number(result.cuts), number(result.by_percent[0]), number(result.by_percent[1]),
          number(result.by_percent[2]), static_cast<double>(result.sectors) / static_cast<double>(result.cuts),
          number(result.nested), number(result.batches), number(result.flushes), number(result.lives),
          number(result.ordered_lost), number(result.fast_verified), number(result.unmountable),
          result.failure.empty() ? "0 torn, 0 durable lost" : "1 failure", number(settings.seed));
      std::printf(
          "figures: "
          "{\"cuts\":%llu,\"inRecovery\":%llu,\"batches\":%llu,\"lives\":%llu,\"failures\":%d,\"seed\":%llu}\n",
          number(result.cuts + result.nested - result.unmountable), number(result.nested), number(result.batches),
          number(result.lives), result.failure.empty() ? 0 : 1, number(settings.seed));
    }
    std::fflush(stdout);
  }
  std::printf("%.1f s\n", std::chrono::duration<double>(Clock::now() - start).count());
  umount2(directory.c_str(), MNT_DETACH);
  std::filesystem::remove_all(directory);
  return status;
}

}  // namespace
}  // namespace holdfast::rig

int main(int argc, char** argv) { return holdfast::rig::main_of(argc, argv); }
