// single_step.cc - kills a store at every machine instruction of what it does, and judges what is left.
//
// A victim process is single-stepped (ptrace) through commits, flushes, checkpoints, changes of regions and recovery
// itself. After each instruction the store's files are exactly what SIGKILL would leave there, so the rig compares
// them with what it saw last, and where a byte, a file or what was acknowledged has changed it copies the files, runs
// the real recovery on the copy and asks: is the result the state after a whole number of batches, at least all
// acknowledged and at most all begun? does a retry with the same idempotency key land exactly once? could a program
// that maps the live files have seen half a batch? Instructions that changed nothing are covered by the judgement
// before them. Nothing here knows how a commit works; with --mutants each deliberate mistake must be found.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <span>
#include <string>

#include "../../native/failpoint.h"
#include "../../native/holdfast.h"
#include "../../native/store.h"
#include "../native/consistency.h"
#include "batches.h"
#include "live_files.h"
#include "progress.h"
#include "rig_program.h"
#include "stepping.h"

namespace holdfast::rig {
namespace {

// ---- what the victim does ----

enum class Act : uint32_t {
  to_ring_end,
  batch,
  flush,
  checkpoint,
  create,
  resize,
  label,
  mode,
  remove,
  close,
  open,
  snapshot,
  restore,  // the oldest snapshot
  forget    // the oldest snapshot
};
constexpr const char* kActNames[] = {
    "(unstepped)",       "commit", "flush", "checkpoint", "create",   "resize",  "label",
    "durability change", "remove", "close", "open",       "snapshot", "restore", "removal of a snapshot"};
constexpr size_t kActs = std::size(kActNames);

struct Action {
  Act act = Act::batch;
  RigBatch batch;                               // batch
  uint32_t region = 0;                          // all that change a region or its snapshots
  uint64_t size = 0;                            // resize
  uint64_t key = 0;                             // of a change of a region, 0: none; a batch has its own
  Durability durability = Durability::durable;  // mode
  bool stepped = true;                          // false: only to get the store into some state
};

// A run of one victim: which actions, and the world after each of those that change it.
struct Episode {
  std::string shape;
  std::string mode;
  uint64_t seed = 0;
  std::vector<Action> actions;
  World start;                // regions as created before the first action; those that don't exist yet are marked so
  std::vector<World> worlds;  // worlds[k]: after k changing actions
  std::vector<const Action*> changes;
};

bool changes_world(Act act) {
  return act == Act::batch || act == Act::create || act == Act::resize || act == Act::remove || act == Act::label ||
         act == Act::mode || act == Act::snapshot || act == Act::restore || act == Act::forget;
}

// The change of a region or its snapshots that is change `number` of the episode, as its client asks for it. A client
// that asks again with the key of the first time says the same.
Code change_region(Store& store, const Episode& episode, uint32_t number, MetaResult* result, std::string* detail) {
  const Action& action = *episode.changes[number - 1];
  const std::string& name = episode.start[action.region].name;
  Conditions conditions;
  if (action.key != 0) {
    conditions.has_key = true;
    Random bytes(action.key);
    for (uint8_t& byte : conditions.key) byte = static_cast<uint8_t>(bytes.next());
    for (uint8_t& byte : conditions.fingerprint) byte = static_cast<uint8_t>(bytes.next());
  }
  MetaChange change;
  switch (action.act) {
    case Act::create:
      return store.create(meta_of(episode.worlds[number][action.region]), conditions, result, detail);
    case Act::resize:
      change.size = action.size;
      // Shrinking asks for a condition.
      conditions.if_match = conditions.if_match_any = true;
      return store.update(name, change, conditions, result, detail);
    case Act::label:
      change.labels = episode.worlds[number][action.region].labels;
      return store.update(name, change, conditions, result, detail);
    case Act::mode:
      change.durability = action.durability;
      return store.update(name, change, conditions, result, detail);
    case Act::remove:
      return store.remove(name, conditions, result, detail);
    case Act::snapshot:
      return store.make_snapshot(name, conditions, result, detail);
    default: {
      std::vector<Snapshot> snapshots;
      if (const Code code = store.snapshots(name, &snapshots); code != Code::ok) return code;
      // Asked again, it may be gone: its key is looked at first.
      const uint64_t oldest = snapshots.empty() ? 0 : snapshots.front().id;
      if (action.act == Act::forget) return store.remove_snapshot(name, oldest, conditions, result, detail);
      conditions.if_match = conditions.if_match_any = true;
      return store.restore(name, oldest, conditions, result, detail);
    }
  }
}

// Shared between rig and victim, written by the victim alone.
struct Shared {
  std::atomic<uint32_t> issued, acknowledged;  // changing actions
  std::atomic<Act> act;
  // The answer to the acknowledged change, if that is a batch.
  uint32_t answered, answer_bytes;
  uint8_t answer[4096];
  char message[256];
};

class Victim {
 public:
  Victim(const Episode& episode, const std::string& directory, Shared* shared)
      : episode_(episode), directory_(directory), shared_(shared) {}

  [[noreturn]] void run() {
    open();
    for (const Expected& region : episode_.start) {
      if (!region.exists) continue;
      MetaResult result;
      std::string detail;
      must(store_->create(meta_of(region), Conditions{}, &result, &detail), detail);
    }
    for (const Action& action : episode_.actions) {
      shared_->act = action.act;
      if (action.stepped) mark();
      perform(action);
      if (action.stepped) mark();
    }
    _exit(0);
  }

  // Steps through the opening of a store that was killed.
  [[noreturn]] void run_recovery() {
    shared_->act = Act::open;
    mark();
    open();
    mark();
    _exit(0);
  }

 private:
  void must(Code code, const std::string& detail) {
    if (code == Code::ok) return;
    std::snprintf(shared_->message, sizeof shared_->message, "%s: %s", code_name(code), detail.c_str());
    _exit(3);
  }
  // The rig sees the signal stop; the signal itself is never delivered.
  static void mark() { raise(SIGSTOP); }

  void open() {
    StoreOptions options = store_options(directory_);
    options.assume_same_files = true;
    options.on_settled = [this](std::vector<Settled>&& settled) {
      for (const Settled& one : settled) answered(static_cast<uint32_t>(one.ticket), one.answer);
    };
    std::string detail;
    must(Store::open(std::move(options), &store_, &detail), detail);
  }

  void answered(uint32_t number, const std::vector<uint8_t>& answer) {
    const auto* header = reinterpret_cast<const AnswerHeader*>(answer.data());
    must(static_cast<Code>(header->code), "a batch");
    if (shared_->acknowledged >= number) return;
    if (answer.size() > sizeof shared_->answer) must(Code::batch_too_large, "an answer that the rig has no room for");
    std::memcpy(shared_->answer, answer.data(), answer.size());
    shared_->answer_bytes = static_cast<uint32_t>(answer.size());
    shared_->answered = number;
    shared_->acknowledged = number;
  }

  void perform(const Action& action) {
    const uint32_t number = shared_->issued + (changes_world(action.act) ? 1 : 0);
    switch (action.act) {
      case Act::batch: {
        frame_ = action.batch.frame(episode_.worlds[number - 1]);
        shared_->issued = number;
        answer_.clear();
        if (store_->commit(frame_, Store::Patience::may_block, number, &answer_) == Store::Progress::done) {
          answered(number, answer_);
        }
        return;
      }
      case Act::flush:
        store_->flush_step();
        return;
      case Act::checkpoint:
        if (store_->checkpoint_step() != 0) must(Code::io_error, "a checkpoint");
        return;
      case Act::close:
        store_->close();
        return;
      case Act::open:
        store_.reset();
        open();
        return;
      case Act::to_ring_end:
        to_ring_end();
        return;
      default:
        break;
    }
    MetaResult result;
    std::string detail;
    shared_->issued = number;
    must(change_region(*store_, episode_, number, &result, &detail), detail);
    shared_->acknowledged = number;
  }

  // Fills the ring with small records until the next one, however small, has to run over its end.
  void to_ring_end() {
    const int journal = ::open((directory_ + "/journal").c_str(), O_RDONLY | O_CLOEXEC);
    std::vector<uint8_t> before(kRingBytes), after(kRingBytes);
    struct stat facts {};
    if (journal < 0 || fstat(journal, &facts) != 0) must(Code::io_error, "looking at the journal");
    const off_t ring = facts.st_size - static_cast<off_t>(kRingBytes);
    for (int i = 0; i < 4096; ++i) {
      if (pread(journal, before.data(), kRingBytes, ring) != static_cast<ssize_t>(kRingBytes)) break;
      // The spare region takes no part in the episode; its generation is not looked at.
      RigBatch batch;
      batch.write(3, 0, std::vector<uint8_t>(64, static_cast<uint8_t>(i | 1)));
      std::vector<uint8_t> answer;
      const std::vector<uint8_t> frame = batch.frame(episode_.start);
      store_->commit(frame, Store::Patience::may_block, 0, &answer);
      store_->flush_step();
      if (i % 32 == 31) store_->checkpoint_step();
      if (pread(journal, after.data(), kRingBytes, ring) != static_cast<ssize_t>(kRingBytes)) break;
      if (std::memcmp(before.data(), after.data(), kRecordAlign) != 0) continue;  // this one itself went over the end
      size_t end = kRingBytes;
      while (end > 0 && before[end - 1] == after[end - 1]) --end;
      end = (end + kRecordAlign - 1) / kRecordAlign * kRecordAlign;
      // The smallest record of a batch is 128 bytes long.
      if (end < kRingBytes && kRingBytes - end < 128) {
        close(journal);
        return;
      }
    }
    must(Code::io_error, "the end of the ring was never reached");
  }

  const Episode& episode_;
  std::string directory_;
  Shared* shared_;
  std::unique_ptr<Store> store_;
  std::vector<uint8_t> frame_, answer_;
};

// ---- judging ----

struct Bounds {
  uint32_t acknowledged, issued;
  // After a restart of the machine, the most: a record that was whole but not published counts then, until a recovery has
  // ended, which erases it.
  uint32_t written;
  // What its client was answered, if the last change is a batch and was acknowledged.
  std::span<const uint8_t> answer;
};

// How a recovery went.
struct Recovered {
  char row = 0;
  uint64_t redone = 0;
};

// Which regions of the rig's own use are left out of comparisons.
bool compared(const Expected& region) { return region.name != "spare"; }

class Judge {
 public:
  explicit Judge(std::string directory, uint64_t seed) : files_(std::move(directory)), random_(seed) {}

  uint64_t recoveries = 0;
  uint64_t other_boot = 0;
  uint64_t reopened = 0;
  uint64_t retried = 0;
  uint64_t checked = 0;
  std::map<char, uint64_t> rows;

  // Recovers a copy of `state`. Empty: all is well; else what is wrong. `landed` gets the number of changes found.
  std::string recover(const State& state, const Episode& episode, Bounds bounds, uint32_t* landed, Recovered* how) {
    std::string wrong = recover_once(state, episode, bounds, true, landed, how);
    if (wrong.empty() && random_.chance(25)) {
      // The same bytes after a restart of the machine that wrote everything back: nothing may depend on the words.
      ++other_boot;
      uint32_t also = 0;
      Recovered otherwise;
      bounds.issued = bounds.written;
      wrong = recover_once(state, episode, bounds, false, &also, &otherwise);
      if (!wrong.empty()) wrong = "as after a restart of the machine: " + wrong;
    }
    return wrong;
  }

  // What a program that maps the live files may see: a settled sequence means one whole generation, and each aligned
  // word inside a written range is old or new.
  static std::string live(const State& state, const Episode& episode, Bounds bounds) {
    for (size_t r = 0; r < episode.start.size(); ++r) {
      const Expected& region = episode.start[r];
      const std::vector<uint8_t>* data = Watch::find(state, "regions/" + region.name + "/data");
      const std::vector<uint8_t>* page = Watch::find(state, "regions/" + region.name + "/control");
      if (!compared(region) || data == nullptr || page == nullptr || page->size() < sizeof(holdfast_control)) continue;
      holdfast_control control;
      std::memcpy(&control, page->data(), sizeof control);
      if (!holdfast_control_valid(&control) || (control.sequence & 1) != 0) continue;
      bool whole = false, known = false;
      for (uint32_t k = 0; k <= bounds.issued && !whole; ++k) {
        const Expected& then = episode.worlds[k][r];
        if (!then.exists || then.generation != control.sequence / 2) continue;
        known = true;
        const size_t length = std::min({then.bytes.size(), data->size(), size_t{control.length}});
        whole = std::memcmp(then.bytes.data(), data->data(), length) == 0;
      }
      if (!known) return "the live sequence of " + region.name + " speaks of a generation that never was";
      if (!whole) return "the live sequence of " + region.name + " is settled over half a batch";
    }
    if (bounds.issued == 0 || episode.changes[bounds.issued - 1]->act != Act::batch) return "";
    return live_words(state, episode, bounds);
  }

 private:
  // Looks at the words that the last batch alone, of those that may be unapplied, stores to in one piece: any other
  // goes through values in between.
  static std::string live_words(const State& state, const Episode& episode, Bounds bounds) {
    constexpr uint32_t kGroupMax = 3;
    const World& after = episode.worlds[bounds.issued];
    std::vector<Touched> touched, last;
    for (uint32_t k = bounds.issued > kGroupMax ? bounds.issued - kGroupMax : 0; k < bounds.issued; ++k) {
      if (episode.changes[k]->act != Act::batch) continue;
      World scratch = episode.worlds[k];
      last.clear();
      episode.changes[k]->batch.apply(&scratch, &last);
      touched.insert(touched.end(), last.begin(), last.end());
    }
    for (const Touched& range : last) {
      const std::vector<uint8_t>* data = Watch::find(state, "regions/" + after[range.region].name + "/data");
      if (data == nullptr) continue;
      for (uint64_t at = (range.offset + 7) / 8 * 8; at + 8 <= range.offset + range.length; at += 8) {
        const uint8_t* word = &(*data)[at];
        if (std::memcmp(word, &after[range.region].bytes[at], 8) == 0) continue;
        bool older = false;
        for (uint32_t k = 0; k < bounds.issued && !older; ++k) {
          const Expected& then = episode.worlds[k][range.region];
          older = then.exists && at + 8 <= then.bytes.size() && std::memcmp(word, &then.bytes[at], 8) == 0;
        }
        if (older) continue;
        const auto stores = std::count_if(touched.begin(), touched.end(), [&](const Touched& other) {
          return other.region == range.region && other.offset < at + 8 && at < other.offset + other.length;
        });
        if (stores == 1) return "an aligned word of " + after[range.region].name + " is neither old nor new";
      }
    }
    return "";
  }

  static bool same(const World& seen, const World& then) {
    for (size_t i = 0; i < then.size(); ++i) {
      if (!compared(then[i])) continue;
      if (seen[i].exists != then[i].exists) return false;
      if (then[i].exists && (seen[i].generation != then[i].generation || seen[i].labels != then[i].labels ||
                             seen[i].durability != then[i].durability || seen[i].bytes != then[i].bytes ||
                             seen[i].snapshots != then[i].snapshots)) {
        return false;
      }
    }
    return true;
  }

  static std::string difference(const World& seen, const World& then) {
    for (size_t i = 0; i < then.size(); ++i) {
      if (!compared(then[i])) continue;
      if (seen[i].exists != then[i].exists) return then[i].name + (seen[i].exists ? " exists" : " is missing");
      if (!then[i].exists) continue;
      if (seen[i].generation != then[i].generation) {
        return then[i].name + " at generation " + std::to_string(seen[i].generation) + " instead of " +
               std::to_string(then[i].generation);
      }
      if (seen[i].labels != then[i].labels) return then[i].name + " has the labels " + seen[i].labels;
      if (seen[i].durability != then[i].durability) return then[i].name + " has another durability";
      if (seen[i].bytes.size() != then[i].bytes.size()) {
        return then[i].name + " has " + std::to_string(seen[i].bytes.size()) + " bytes instead of " +
               std::to_string(then[i].bytes.size());
      }
      for (size_t at = 0; at < then[i].bytes.size(); ++at) {
        if (seen[i].bytes[at] != then[i].bytes[at]) return then[i].name + " differs at byte " + std::to_string(at);
      }
      if (seen[i].snapshots.size() != then[i].snapshots.size()) {
        return then[i].name + " has " + std::to_string(seen[i].snapshots.size()) + " snapshots instead of " +
               std::to_string(then[i].snapshots.size());
      }
      if (seen[i].snapshots != then[i].snapshots) return "a snapshot of " + then[i].name + " has other bytes";
    }
    return "no difference";
  }

  std::string recover_once(const State& state, const Episode& episode, Bounds bounds, bool same_boot, uint32_t* landed,
                           Recovered* how) {
    ++recoveries;
    materialize(state, &files_);
    if (same_boot && random_.chance(12)) {
      if (std::string wrong = check(consistency::Ended::killed); !wrong.empty()) return wrong;
    }
    std::vector<Settled> settled;
    StoreOptions options = store_options(files_.directory());
    options.assume_same_files = same_boot;
    options.on_settled = [&settled](std::vector<Settled>&& some) {
      for (Settled& one : some) settled.push_back(std::move(one));
    };
    std::unique_ptr<Store> store;
    std::string detail;
    if (const Code code = Store::open(options, &store, &detail); code != Code::ok) {
      return std::string("recovery refuses: ") + code_name(code) + " " + detail;
    }
    const RecoveryReport report = store->status().recovery;
    *how = {static_cast<char>(report.row), report.redone};
    ++rows[how->row];
    World seen;
    if (std::string wrong = observe(*store, episode.start, &seen); !wrong.empty()) return wrong;
    bool found = false;
    for (uint32_t k = bounds.acknowledged; k <= bounds.issued && !found; ++k) {
      found = same(seen, episode.worlds[k]);
      if (found) *landed = k;
    }
    if (!found) {
      for (uint32_t k = 0; k < episode.worlds.size(); ++k) {
        if (same(seen, episode.worlds[k])) {
          return std::string(k < bounds.acknowledged ? "lost: " : "from nowhere: ") + std::to_string(k) +
                 " changes instead of " + std::to_string(bounds.acknowledged) + " to " + std::to_string(bounds.issued);
        }
      }
      return "torn: " + difference(seen, episode.worlds[bounds.issued]) + " from the state after all changes, " +
             difference(seen, episode.worlds[bounds.acknowledged]) + " from that after the acknowledged ones";
    }
    if (std::string wrong = settled_controls(episode.worlds[*landed]); !wrong.empty()) return wrong;
    if (std::string wrong = retry(*store, settled, episode, bounds, *landed); !wrong.empty()) return wrong;
    if (random_.chance(6)) {
      ++reopened;
      World first;
      if (std::string wrong = observe(*store, episode.start, &first); !wrong.empty()) return wrong;
      store->close();
      store.reset();
      const auto ended = same_boot ? consistency::Ended::closed_a_copy : consistency::Ended::closed;
      if (std::string wrong = check(ended); !wrong.empty()) return wrong;
      if (const Code code = Store::open(options, &store, &detail); code != Code::ok) {
        return std::string("a second opening refuses: ") + code_name(code) + " " + detail;
      }
      World second;
      if (std::string wrong = observe(*store, episode.start, &second); !wrong.empty()) return wrong;
      if (!same(second, first)) return "a second opening changes the state: " + difference(second, first);
    }
    return "";
  }

  // Everything that the formats alone say about the copy, whatever the core thinks of it.
  std::string check(consistency::Ended ended) {
    ++checked;
    const std::vector<std::string> problems = consistency::Checker(files_.directory(), ended).run();
    return problems.empty() ? "" : "inconsistent: " + problems.front();
  }

  // After recovery programs that map the files must find every region settled at its generation.
  std::string settled_controls(const World& then) {
    for (const Expected& region : then) {
      if (!region.exists || !compared(region)) continue;
      const int fd =
          ::open((files_.directory() + "/regions/" + region.name + "/control").c_str(), O_RDONLY | O_CLOEXEC);
      holdfast_control control{};
      const bool whole = fd >= 0 && pread(fd, &control, sizeof control, 0) == static_cast<ssize_t>(sizeof control);
      if (fd >= 0) ::close(fd);
      if (!whole) return region.name + " has no control page";
      if (!holdfast_control_valid(&control) || control.sequence != region.generation * 2) {
        return "after recovery the sequence of " + region.name + " is " + std::to_string(control.sequence) +
               " at generation " + std::to_string(region.generation);
      }
    }
    return "";
  }

  // The client of the last change asks again with its key: exactly once, whatever the kill did.
  std::string retry(Store& store, std::vector<Settled>& settled, const Episode& episode, Bounds bounds,
                    uint32_t landed) {
    if (bounds.issued == 0) return "";
    const Action& last = *episode.changes[bounds.issued - 1];
    if ((last.act == Act::batch ? last.batch.key : last.key) == 0) return "";
    // An earlier one of a group that did not land either would have been asked for first.
    if (landed + 1 < bounds.issued) return "";
    // The copies that are judged lie on a tmpfs, where nothing becomes durable.
    const bool becomes_durable =
        (last.act == Act::mode && last.durability == Durability::durable) ||
        (last.act == Act::create && episode.start[last.region].durability == Durability::durable);
    if (landed < bounds.issued && becomes_durable) return "";
    ++retried;
    bool replayed = false;
    if (std::string wrong = last.act == Act::batch
                                ? retry_batch(store, settled, episode, last, bounds.answer, &replayed)
                                : retry_change(store, episode, bounds.issued, &replayed);
        !wrong.empty()) {
      return wrong;
    }
    if (replayed != (landed == bounds.issued)) {
      return replayed ? "a retry is answered from a change that did not land" : "a retry lands a second time";
    }
    while (store.flush_step()) {
    }
    World seen;
    if (std::string wrong = observe(store, episode.start, &seen); !wrong.empty()) return wrong;
    if (!same(seen, episode.worlds[bounds.issued])) {
      return "after a retry: " + difference(seen, episode.worlds[bounds.issued]);
    }
    return "";
  }

  static std::string retry_change(Store& store, const Episode& episode, uint32_t number, bool* replayed) {
    MetaResult result;
    std::string detail;
    const Code code = change_region(store, episode, number, &result, &detail);
    *replayed = result.replayed;
    return code == Code::ok ? "" : std::string("a retry is refused: ") + code_name(code) + " " + detail;
  }

  static std::string retry_batch(Store& store, std::vector<Settled>& settled, const Episode& episode,
                                 const Action& last, std::span<const uint8_t> first, bool* replayed) {
    const std::vector<uint8_t> frame = last.batch.frame(episode.start);
    std::vector<uint8_t> answer;
    if (store.commit(frame, Store::Patience::may_block, 77, &answer) == Store::Progress::waiting) {
      for (int i = 0; i < 8 && settled.empty(); ++i) store.flush_step();
      if (settled.empty()) return "a retry is never answered";
      answer = settled.front().answer;
    }
    const auto* header = reinterpret_cast<const AnswerHeader*>(answer.data());
    if (static_cast<Code>(header->code) != Code::ok) {
      return std::string("a retry is refused: ") + code_name(static_cast<Code>(header->code));
    }
    *replayed = (header->flags & kAnswerReplayed) != 0;
    if (!first.empty() && said(answer) != said({first.begin(), first.end()})) return "a retry is answered otherwise";
    return "";
  }

  // An answer without what may change from one to the next: that it is a replay, and what has become durable.
  static std::vector<uint8_t> said(std::vector<uint8_t> answer) {
    auto* header = reinterpret_cast<AnswerHeader*>(answer.data());
    header->flags &= static_cast<uint8_t>(~kAnswerReplayed);
    auto* regions = reinterpret_cast<AnswerRegion*>(answer.data() + sizeof *header);
    for (uint16_t r = 0; r < header->region_count; ++r) regions[r].durable_generation = 0;
    return answer;
  }

  StoreFiles files_;
  Random random_;
};

// ---- stepping ----

struct Saved {
  State state;
  std::shared_ptr<const Episode> episode;
  uint32_t landed = 0;
  uint32_t written = 0;  // Bounds::written
  int depth = 0;
  uint64_t redone = 0;  // records that its recovery applies again
};

struct Totals {
  uint64_t points = 0;
  uint64_t states = 0;
  uint64_t episodes = 0;
  uint64_t wraps = 0;
  uint64_t in_recovery = 0;
  uint64_t redo_states = 0;
  uint64_t by_act[kActs] = {};
  std::set<OpKind> kinds;  // of operations and guards
};

class Stepper {
 public:
  // The victim's store is made in `directory`, copies are judged in `scratch`.
  Stepper(const std::string& directory, const std::string& scratch, uint64_t seed, const char* victim_mutant)
      : directory_(directory), judge_(scratch + "/judged", seed), random_(seed ^ 0x5eed), mutant_(victim_mutant) {
    shared_ =
        static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    if (shared_ == MAP_FAILED) die("no shared memory");
  }

  Totals totals;
  const Judge& judge() const { return judge_; }
  std::vector<Saved> saved;  // states to kill recovery in
  bool keep = false;

  // Runs the episode; false when a judgement failed (told on stdout unless quiet).
  bool run(std::shared_ptr<const Episode> episode) {
    ++totals.episodes;
    for (const Action& action : episode->actions)
      for (const auto* entries : {&action.batch.guards, &action.batch.ops, &action.batch.else_ops})
        for (const Op& op : *entries) totals.kinds.insert(op.op.kind);
    const std::string live = directory_ + "/live";
    std::filesystem::remove_all(live);
    new (shared_) Shared{};
    return follow(episode, live, nullptr, 0);
  }

  // Kills the recovery of a saved state. Whatever it was, no kill may change what the recovery comes to.
  bool run_recovery(const Saved& from) {
    ++totals.episodes;
    const std::string live = directory_ + "/live";
    std::filesystem::remove_all(live);
    {
      StoreFiles files(live);
      materialize(from.state, &files);
    }
    new (shared_) Shared{};
    shared_->issued = from.landed;
    shared_->acknowledged = from.landed;
    return follow(from.episode, live, &from, from.depth + 1);
  }

  const std::string& failure() const { return failure_; }
  // False: the victim ended by itself, which says nothing about kills.
  bool failure_was_judged() const { return judged_; }

 private:
  Shared* shared_;

  bool follow(std::shared_ptr<const Episode> episode, const std::string& live, const Saved* recovery, int depth) {
    std::fflush(stdout);
    const pid_t pid = fork();
    if (pid < 0) die("can't fork");
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
      if (mutant_ != nullptr) failpoint::arm(nullptr, mutant_);
#endif
      Victim victim(*episode, live, shared_);
      if (recovery != nullptr) victim.run_recovery();
      victim.run();
    }
    bool good = true;
    for (;;) {
      int status = 0;
      if (waitpid(pid, &status, 0) != pid) die("lost the victim");
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
      if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP) {
        good = fail(*episode, recovery, 0, "the victim ended by itself: " + ended(status));
        judged_ = false;
        if (WIFSTOPPED(status)) stop(pid);
        break;
      }
      good = section(pid, episode, live, recovery, depth);
      if (!good) {
        stop(pid);
        break;
      }
      ptrace(PTRACE_CONT, pid, nullptr, nullptr);
    }
    return good;
  }

  std::string ended(int status) const {
    std::string text = WIFEXITED(status)     ? "status " + std::to_string(WEXITSTATUS(status))
                       : WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                             : "stopped by signal " + std::to_string(WSTOPSIG(status));
    if (shared_->message[0] != 0) text += std::string(", ") + shared_->message;
    return text;
  }

  static void stop(pid_t pid) {
    kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) == pid && !WIFEXITED(status) && !WIFSIGNALED(status)) {
    }
  }

  bool section(pid_t pid, const std::shared_ptr<const Episode>& episode, const std::string& live, const Saved* recovery,
               int depth) {
    Watch watch(live, pid);
    watch.changed();
    const std::vector<uint8_t>* journal = watch.file("journal");
    const std::vector<uint8_t> journal_before = journal != nullptr ? *journal : std::vector<uint8_t>{};
    const auto bounds_now = [&]() -> Bounds {
      const uint32_t issued = shared_->issued;
      const bool answered = issued > 0 && shared_->acknowledged == issued && shared_->answered == issued;
      return {shared_->acknowledged, issued, std::max(issued, recovery != nullptr ? recovery->written : 0),
              std::span(shared_->answer, answered ? shared_->answer_bytes : 0)};
    };
    Bounds bounds = bounds_now();
    uint32_t landed = 0;
    Recovered how;
    const auto act = shared_->act.load();
    // The state before the first instruction is judged too, so that every later one has a judgement to lean on.
    std::string wrong = judge_.recover(watch.state(), *episode, bounds, &landed, &how);
    uint64_t address = 0;
    while (wrong.empty()) {
      const Next next = next_instruction(pid);
      address = next.address;
      if (ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr) != 0) die("can't step");
      int status = 0;
      if (waitpid(pid, &status, 0) != pid) die("lost the victim");
      if (!WIFSTOPPED(status)) {
        wrong = "the victim ended by itself: " + ended(status);
        judged_ = false;
        break;
      }
      if (WSTOPSIG(status) == SIGSTOP) break;
      if (WSTOPSIG(status) != SIGTRAP) {
        wrong = "the victim was " + ended(status);
        judged_ = false;
        break;
      }
      ++totals.points;
      ++totals.by_act[static_cast<size_t>(act)];
      if (depth > 0) ++totals.in_recovery;
      if (next.system_call) watch.after_system_call();
      const Bounds now = bounds_now();
      const bool counted = now.acknowledged != bounds.acknowledged || now.issued != bounds.issued;
      if (!watch.changed() && !counted) continue;
      bounds = now;
      ++totals.states;
      wrong = Judge::live(watch.state(), *episode, bounds);
      if (!wrong.empty()) break;
      wrong = judge_.recover(watch.state(), *episode, bounds, &landed, &how);
      if (how.row == 'B') ++totals.redo_states;
      // A reservoir of states that recovery has work to do on; nested kills go three deep.
      if (wrong.empty() && depth < 3 && (how.row != 'A' || depth > 0)) {
        ++offered_;
        if (saved.size() < 48) {
          saved.push_back({watch.state(), episode, landed, bounds.written, depth, how.redone});
        } else if (random_.below(offered_) < saved.size()) {
          saved[random_.below(saved.size())] = {watch.state(), episode, landed, bounds.written, depth, how.redone};
        }
      }
    }
    if (!wrong.empty()) {
      if (keep) {
        StoreFiles failed(directory_ + "/failed");
        materialize(watch.state(), &failed);
      }
      return fail(*episode, recovery, address, wrong);
    }
    journal = watch.file("journal");
    if (act == Act::batch && journal != nullptr && journal->size() == journal_before.size()) {
      const size_t ring = journal->size() - kRingBytes;
      bool first = false, last = false;
      for (size_t i = 0; i < 64; ++i) {
        first |= (*journal)[ring + i] != journal_before[ring + i];
        last |= (*journal)[journal->size() - 64 + i] != journal_before[journal->size() - 64 + i];
      }
      if (first && last) ++totals.wraps;
    }
    return true;
  }

  bool fail(const Episode& episode, const Saved* recovery, uint64_t address, const std::string& wrong) {
    char at[64];
    std::snprintf(at, sizeof at, "%#llx", static_cast<unsigned long long>(address));
    failure_ = wrong + " (" + (recovery != nullptr ? "killed in recovery of " : "") + episode.shape + ", " +
               episode.mode + ", in " + kActNames[static_cast<size_t>(shared_->act.load())] +
               " after the instruction at " + at + ", change " + std::to_string(shared_->issued) + ", acknowledged " +
               std::to_string(shared_->acknowledged) + ", episode seed " + std::to_string(episode.seed) + ")";
    return false;
  }

  std::string directory_;
  Judge judge_;
  Random random_;
  const char* mutant_;
  uint64_t offered_ = 0;
  std::string failure_;
  bool judged_ = true;
};

// ---- shapes ----

constexpr uint32_t kA = 0, kB = 1, kC = 2;
constexpr char kRegionChanges[] = "changes of regions";
constexpr char kSnapshots[] = "snapshots";

using Make = void (*)(Random&, const World&, RigBatch*);

void random_write(Random& random, const World& world, RigBatch* batch, uint32_t region, uint64_t most) {
  const uint64_t size = world[region].bytes.size();
  const uint64_t length = random.between(1, std::min(most, size));
  batch->write(region, random.below(size - length + 1), random_bytes(random, length));
}

uint32_t load32(const std::vector<uint8_t>& bytes, uint64_t at) {
  uint32_t value = 0;
  std::memcpy(&value, &bytes[at], sizeof value);
  return value;
}

struct Shape {
  const char* name;
  Make make;
  uint64_t group_max = 3;  // batches before a flush; long ones come alone
};

const Shape kShapes[] = {
    {"one aligned write of 64 bytes",
     [](Random& random, const World&, RigBatch* batch) {
       batch->write(kA, random.below(190) * 64, random_bytes(random, 64));
     }},
    {"one byte",
     [](Random& random, const World& world, RigBatch* batch) { random_write(random, world, batch, kA, 1); }},
    {"unaligned edges",
     [](Random& random, const World&, RigBatch* batch) {
       batch->write(kA, random.below(1500) * 8 + random.between(1, 7), random_bytes(random, random.between(2, 61)));
     }},
    {"over a page boundary",
     [](Random& random, const World&, RigBatch* batch) {
       const uint64_t before = random.between(1, 40);
       batch->write(kA, 4096 * random.between(1, 2) - before, random_bytes(random, before + random.between(1, 40)));
     }},
    {"one page",
     [](Random& random, const World&, RigBatch* batch) { batch->write(kA, 4096, random_bytes(random, 4096)); }, 1},
    {"an unaligned page and a half",
     [](Random& random, const World&, RigBatch* batch) {
       batch->write(kA, random.between(1, 4000), random_bytes(random, 6001));
     },
     1},
    {"many writes",
     [](Random& random, const World& world, RigBatch* batch) {
       for (uint64_t i = random.between(4, 16); i > 0; --i) random_write(random, world, batch, kA, 90);
     }},
    {"writes that overlap",
     [](Random& random, const World&, RigBatch* batch) {
       const uint64_t at = random.below(4000);
       for (int i = 0; i < 4; ++i) {
         batch->write(kA, at + random.below(40), random_bytes(random, random.between(1, 60)));
       }
     }},
    {"fill and copy",
     [](Random& random, const World&, RigBatch* batch) {
       batch->fill(kA, random.below(3000), random.between(1, 300), random_bytes(random, random.between(1, 9)));
       batch->copy(kA, 100, kA, 100 + random.between(1, 50), random.between(60, 200));
       batch->copy(kA, random.below(9000), kB, random.below(4000), random.between(1, 300));
     }},
    {"cells",
     [](Random& random, const World& world, RigBatch* batch) {
       const ValueType types[] = {ValueType::u8, ValueType::u16, ValueType::u32, ValueType::u64};
       const OpKind kinds[] = {OpKind::exchange, OpKind::add, OpKind::bit_and, OpKind::bit_or,
                               OpKind::bit_xor,  OpKind::min, OpKind::max};
       for (const OpKind kind : kinds) {
         const ValueType type = types[random.below(4)];
         const uint64_t value = cell_bytes(type) == 8 ? random.next() : random.next() >> (64 - 8 * cell_bytes(type));
         batch->cell(kind, kA, random.below(1000) * 8, type, value);
       }
       uint64_t now = 0;
       const uint64_t at = 8008 + random.below(50) * 8;
       std::memcpy(&now, &world[kA].bytes[at], 8);
       batch->cas(kA, at, ValueType::u64, random.chance(50) ? now : now + 1, random.next());
     }},
    {"typed stores, and reads beside them",
     [](Random& random, const World&, RigBatch* batch) {
       batch->read(kA, random.below(9000), random.between(1, 200));
       batch->store(kA, 8 * random.below(1000), ValueType::u64, random_bytes(random, 8 * random.between(1, 6)));
       batch->store(kB, 2 * random.below(3000), ValueType::u16, random_bytes(random, 2 * random.between(1, 9)));
       batch->store(kA, 4 * random.below(2000), ValueType::i32, random_bytes(random, 4));
       batch->read(kB, random.below(5000), 8);
     }},
    {"big-endian cells and floats",
     [](Random& random, const World&, RigBatch* batch) {
       batch->cell(OpKind::exchange, kA, 2 * random.below(3000), ValueType::u16, random.next() >> 48, true);
       batch->cell(OpKind::add, kA, 4 * random.below(2000), ValueType::u32, random.next() >> 32, true);
       batch->cell(OpKind::max, kB, 8 * random.below(800), ValueType::u64, random.next(), true);
       // From zero, so that no earlier bytes make it an infinity, which an add refuses.
       for (const bool big_endian : {false, true}) {
         const uint64_t at = 8 * random.below(1000);
         batch->cell(OpKind::exchange, kA, at, ValueType::u64, 0);
         batch->add_float(kA, at, ValueType::f64, 0.1, big_endian);
         batch->add_float(kA, at, ValueType::f64, static_cast<double>(random.next()), big_endian);
         const uint64_t small = 4 * random.below(2000);
         batch->cell(OpKind::exchange, kB, small, ValueType::u32, 0);
         batch->add_float(kB, small, ValueType::f32, static_cast<double>(random.below(1 << 20)) / 2, big_endian);
       }
     }},
    {"signed cells, and what overflows",
     [](Random& random, const World&, RigBatch* batch) {
       for (const OpKind kind : {OpKind::exchange, OpKind::min, OpKind::max, OpKind::add}) {
         const uint64_t at = 8 * random.below(1000);
         batch->cell(kind, kA, at, ValueType::i64, random.next());
         batch->cell(kind, kA, 4 * random.below(2000), ValueType::i32, random.below(1 << 30));
         batch->cell(kind, kB, 2 * random.below(3000), ValueType::i16, random.below(1 << 14));
       }
       batch->cell(OpKind::min, kB, 8 * random.below(900), ValueType::i8, static_cast<uint64_t>(-5));
       batch->add(kA, random.below(9000), ValueType::u8, random.between(1, 255), Overflow::saturate);
       batch->add(kA, 4 * random.below(2000), ValueType::u32, random.next() >> 32, Overflow::saturate);
       const uint64_t at = 8 * random.below(900);
       batch->cell(OpKind::exchange, kB, at, ValueType::u64, 7);
       batch->add(kB, at, ValueType::u64, random.below(1000), Overflow::fail);
       batch->cell(OpKind::exchange, kB, at, ValueType::u64, 9);
       batch->cas(kB, at, ValueType::u64, 9, random.next(), OnMismatch::abort);
       batch->cell(OpKind::exchange, kA, at, ValueType::f64, std::bit_cast<uint64_t>(1.5));
       batch->cell(OpKind::min, kA, at, ValueType::f64, std::bit_cast<uint64_t>(-2.5));
       batch->cell(OpKind::max, kA, at, ValueType::f64, std::bit_cast<uint64_t>(0.25));
     }},
    {"guards of every kind, and loads",
     [](Random& random, const World& world, RigBatch* batch) {
       random_write(random, world, batch, kB, 60);
       batch->otherwise();
       batch->load(kA, 8 * random.below(1000), ValueType::u64, random.between(1, 9));
       random_write(random, world, batch, kA, 90);
       batch->load(kB, 2 * random.below(1000), ValueType::i16, random.between(1, 9));
       // One of them in some batches says what is not so.
       const uint64_t wrong = random.below(12);
       const auto part = [&](uint32_t region, bool is_wrong) {
         const auto from = world[region].bytes.begin() + 4000;
         std::vector<uint8_t> bytes(from, from + 200);
         if (is_wrong) ++bytes[random.below(200)];
         return bytes;
       };
       batch->guard_generation(kA, world[kA].generation + (wrong == 0 ? 1 : 0));
       batch->guard_bytes(kA, 4000, part(kA, wrong == 1));
       batch->guard_digest(kB, 4000, part(kB, wrong == 2));
       batch->guard_exists(kC, wrong == 3);
     }},
    {"a guard, and what else to do",
     [](Random& random, const World& world, RigBatch* batch) {
       random_write(random, world, batch, kB, 90);
       batch->write(kC, 0, random_bytes(random, 13));
       batch->otherwise();
       random_write(random, world, batch, kA, 200);
       random_write(random, world, batch, kB, 30);
       const uint64_t at = 4 * random.below(1000);
       batch->guard(kA, at, ValueType::u32, load32(world[kA].bytes, at) + (random.chance(50) ? 1 : 0), false);
       batch->guard(kB, at, ValueType::u32, __builtin_bswap32(load32(world[kB].bytes, at)), true);
     }},
    {"append",
     [](Random& random, const World&, RigBatch* batch) {
       batch->cell(OpKind::exchange, kB, 8, ValueType::u64, 64 + random.below(4000));
       batch->append(kB, 8, random_bytes(random, random.between(1, 80)));
       batch->append(kB, 8, random_bytes(random, random.between(1, 80)));
       for (const ValueType type : {ValueType::u8, ValueType::u16, ValueType::u32}) {
         const uint64_t cursor = 4096 + 8 * static_cast<uint64_t>(type);
         batch->cell(OpKind::exchange, kB, cursor, type, random.between(64, 200));
         batch->append(kB, cursor, random_bytes(random, random.between(1, 40)), type);
       }
     }},
    {"two regions",
     [](Random& random, const World& world, RigBatch* batch) {
       random_write(random, world, batch, kA, 200);
       random_write(random, world, batch, kB, 200);
       random_write(random, world, batch, kA, 30);
     }},
    {"three regions to their last bytes",
     [](Random& random, const World& world, RigBatch* batch) {
       for (const uint32_t region : {kC, kB, kA}) {
         const uint64_t size = world[region].bytes.size();
         const uint64_t length = random.between(1, 13);
         batch->write(region, size - length, random_bytes(random, length));
       }
     }},
};

struct Mode {
  const char* name;
  Durability a, b, c;
};
const Mode kModes[] = {
    {"fast", Durability::fast, Durability::fast, Durability::fast},
    {"ordered", Durability::ordered, Durability::ordered, Durability::ordered},
    {"durable", Durability::durable, Durability::durable, Durability::durable},
    {"mixed", Durability::durable, Durability::fast, Durability::ordered},
};

void finish(Episode* episode) {
  World world = episode->start;
  episode->worlds.push_back(world);
  for (const Action& action : episode->actions) {
    if (!changes_world(action.act)) continue;
    switch (action.act) {
      case Act::batch:
        action.batch.apply(&world);
        break;
      case Act::create:
        world[action.region].exists = true;
        break;
      case Act::remove:
        world[action.region].exists = false;
        world[action.region].labels = "{}";
        world[action.region].snapshots.clear();
        break;
      case Act::resize:
        world[action.region].bytes.resize(action.size, 0);
        ++world[action.region].generation;
        break;
      case Act::label:
        world[action.region].labels = "{\"step\":\"" + std::to_string(episode->worlds.size()) + "\"}";
        break;
      case Act::mode:
        world[action.region].durability = action.durability;
        break;
      case Act::snapshot:
        world[action.region].snapshots.push_back(world[action.region].bytes);
        break;
      case Act::restore:
        world[action.region].bytes = world[action.region].snapshots.front();
        ++world[action.region].generation;
        break;
      case Act::forget:
        world[action.region].snapshots.erase(world[action.region].snapshots.begin());
        break;
      default:
        break;
    }
    episode->worlds.push_back(world);
    episode->changes.push_back(&action);
  }
}

World start_world(const Mode& mode, Random& random) {
  World world(4);
  world[0] = {"a", mode.a, std::vector<uint8_t>(12328, 0), 0, true};
  world[1] = {"b", mode.b, std::vector<uint8_t>(8199, 0), 0, true};
  world[2] = {"c", mode.c, std::vector<uint8_t>(13, 0), 0, true};
  world[3] = {"spare", mode.a, std::vector<uint8_t>(64, 0), 0, false};
  for (Expected& region : world) region.sparse = random.chance(30);
  return world;
}

std::shared_ptr<const Episode> batch_episode(const Shape& shape, const Mode& mode, uint64_t seed, bool keyed,
                                             bool at_ring_end, uint64_t group) {
  Random random(seed);
  auto episode = std::make_shared<Episode>();
  episode->shape = shape.name;
  episode->mode = std::string(mode.name) + (keyed ? " with a key" : "") + (at_ring_end ? " at the ring's end" : "");
  episode->seed = seed;
  episode->start = start_world(mode, random);
  episode->start[3].exists = at_ring_end;
  World world = episode->start;
  const auto add = [&](Act act, bool stepped) -> Action& {
    episode->actions.emplace_back();
    episode->actions.back().act = act;
    episode->actions.back().stepped = stepped;
    return episode->actions.back();
  };
  // Something to be torn: the regions are full of earlier stamps, some of it checkpointed.
  Action& earlier = add(Act::batch, false);
  earlier.batch.write(kA, 0, random_bytes(random, 5000));
  earlier.batch.write(kB, 1, random_bytes(random, 2000));
  earlier.batch.write(kC, 0, random_bytes(random, 13));
  earlier.batch.apply(&world);
  add(Act::flush, false);
  if (random.chance(50)) add(Act::checkpoint, false);
  if (at_ring_end) add(Act::to_ring_end, false);
  for (uint64_t i = 0; i < group; ++i) {
    Action& action = add(Act::batch, true);
    shape.make(random, world, &action.batch);
    if (keyed) action.batch.key = random.next() | 1;
    // A batch may ask to wait for more than its region's mode, if none of its regions is fast.
    if (mode.a == Durability::ordered && random.chance(30)) action.batch.wait = Wait::durable;
    action.batch.apply(&world);
  }
  add(Act::flush, true);
  if (random.chance(40)) add(Act::checkpoint, true);
  finish(episode.get());
  return episode;
}

// Changes of regions, an orderly end, and batches in between.
std::shared_ptr<const Episode> region_episode(const Mode& mode, uint64_t seed) {
  Random random(seed);
  auto episode = std::make_shared<Episode>();
  episode->shape = kRegionChanges;
  episode->mode = mode.name;
  episode->seed = seed;
  episode->start = start_world(mode, random);
  episode->start[kC].exists = false;
  const bool keyed = random.chance(50);
  const auto add = [&](Act act, uint32_t region, uint64_t size) -> Action& {
    episode->actions.emplace_back();
    Action& action = episode->actions.back();
    action.key = keyed ? random.next() | 1 : 0;
    action.act = act;
    action.region = region;
    action.size = size;
    return action;
  };
  Action& earlier = add(Act::batch, 0, 0);
  earlier.stepped = false;
  earlier.batch.write(kA, 0, random_bytes(random, 4000));
  earlier.batch.write(kB, 1, random_bytes(random, 3000));
  switch (random.below(6)) {
    case 4:
      // Between them the ring must give up the batch that the shrinking cuts.
      add(Act::resize, kB, random.between(1, 8190));
      add(Act::batch, 0, 0).batch.write(kB, 0, {7});
      break;
    case 5: {
      // To one that it has not: a change that changes nothing could not be told from one that did not land.
      std::vector<Durability> others = {Durability::fast, Durability::ordered, Durability::durable};
      std::erase(others, mode.a);
      add(Act::mode, kA, 0).durability = others[random.below(others.size())];
      add(Act::batch, 0, 0).batch.write(kA, 4090, random_bytes(random, 20));
      add(Act::flush, 0, 0);
      break;
    }
    case 0:
      add(Act::create, kC, 0);
      add(Act::batch, 0, 0).batch.write(kC, 3, random_bytes(random, 10));
      break;
    case 1:
      add(Act::resize, kB, 8199 + random.between(1, 9000));
      add(Act::batch, 0, 0).batch.write(kB, 8190, random_bytes(random, 10));
      break;
    case 2:
      add(Act::label, kA, 0);
      add(Act::remove, kB, 0);
      break;
    default:
      add(Act::batch, 0, 0).batch.write(kA, 11, random_bytes(random, 50));
      add(Act::close, 0, 0);
      add(Act::open, 0, 0);
      break;
  }
  finish(episode.get());
  return episode;
}

// Snapshots that are made, restored and removed, with their region as well, and batches before and after.
std::shared_ptr<const Episode> snapshot_episode(const Mode& mode, uint64_t seed) {
  Random random(seed);
  auto episode = std::make_shared<Episode>();
  episode->shape = kSnapshots;
  episode->mode = mode.name;
  episode->seed = seed;
  episode->start = start_world(mode, random);
  const bool keyed = random.chance(50);
  const auto add = [&](Act act, bool stepped = true) -> Action& {
    episode->actions.emplace_back();
    episode->actions.back().act = act;
    episode->actions.back().region = kA;
    episode->actions.back().key = keyed ? random.next() | 1 : 0;
    episode->actions.back().stepped = stepped;
    return episode->actions.back();
  };
  const auto batch = [&](bool stepped) {
    Action& action = add(Act::batch, stepped);
    action.batch.write(kA, random.below(9000), random_bytes(random, random.between(1, 3000)));
    action.batch.write(kB, 4000, random_bytes(random, 40));
  };
  const bool making = random.chance(20);
  batch(false);
  add(Act::snapshot, making);
  batch(making);
  if (!making) {
    if (random.chance(30)) add(Act::resize, false).size = random.between(1, 20000);
    if (random.chance(30)) add(Act::checkpoint, false);
    switch (random.below(5)) {
      case 0:
        add(Act::remove);
        break;
      case 1:
        add(Act::forget);
        break;
      default:
        add(Act::restore);
        batch(true);
        if (random.chance(30)) add(Act::checkpoint);
        break;
    }
  }
  add(Act::flush);
  finish(episode.get());
  return episode;
}

// ---- the program ----

struct Mutant {
  const char* name;
  bool in_recovery;         // the mistake is in recovery: the judge's recoveries make it too
  const char* shapes = "";  // only where it can show
};
const Mutant kMutants[] = {
    {"apply_before_publish", false},
    {"publish_before_checksum", false},
    {"even_before_last_byte", false},
    {"applied_before_apply", false},
    {"outcome_differs", false},
    {"redo_marks_first", true},
    {"meta_placed_before_publish", false, kRegionChanges},
    {"restore_keeps_incarnation", false, kSnapshots},
};

struct RunSettings : Settings {
  uint64_t points = 120000;
  bool mutants = false;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Runs episodes until `points` kill points have been judged and every shape had its turn in every mode. False: a
// judgement failed.
bool sweep(Stepper* stepper, const RunSettings& settings, uint64_t points, bool whole_tour) {
  struct Turn {
    const Shape* shape;  // null: not a shape of batches
    const Mode* mode;
    bool keyed, at_ring_end;
    const char* changes = kRegionChanges;  // without a shape
  };
  Random random(settings.seed);
  Progress progress("kill points", points);
  for (bool first_tour = true;; first_tour = false) {
    std::vector<Turn> turns;
    for (const Mode& mode : kModes) {
      for (const Shape& shape : kShapes) turns.push_back({&shape, &mode, random.chance(50), random.chance(15)});
      turns.push_back({&kShapes[0], &mode, true, true});
      for (int i = 0; i < 4; ++i) turns.push_back({nullptr, &mode, false, false});
      for (int i = 0; i < 2; ++i) turns.push_back({nullptr, &mode, false, false, kSnapshots});
    }
    for (size_t i = turns.size(); i > 1; --i) std::swap(turns[i - 1], turns[random.below(i)]);
    for (const Turn& turn : turns) {
      const uint64_t seed = random.next();
      if (!settings.only.empty() &&
          (turn.shape == nullptr ? std::string(turn.changes) : turn.shape->name).find(settings.only) ==
              std::string::npos) {
        continue;
      }
      const auto episode = turn.shape == nullptr && turn.changes == kSnapshots ? snapshot_episode(*turn.mode, seed)
                           : turn.shape == nullptr
                               ? region_episode(*turn.mode, seed)
                               : batch_episode(*turn.shape, *turn.mode, seed, turn.keyed, turn.at_ring_end,
                                               turn.at_ring_end ? 1 : random.between(1, turn.shape->group_max));
      if (!stepper->run(episode)) return false;
      progress.at(stepper->totals.points);
      // Recovery is stepped as well: of a random killed state, and of states killed in those recoveries.
      if (random.chance(25) && !stepper->saved.empty()) {
        const size_t which = random.below(stepper->saved.size());
        const Saved from = stepper->saved[which];
        stepper->saved.erase(stepper->saved.begin() + static_cast<std::ptrdiff_t>(which));
        if (!stepper->run_recovery(from)) return false;
      }
      if (enough != 0 || (stepper->totals.points >= points && !(whole_tour && first_tour))) return true;
    }
    if (stepper->totals.points >= points) return true;
    if (stepper->totals.points == 0) die("no shape has this name");
  }
}

// Kills recoveries only: of groups of three, in states in which at least two records are redone.
[[maybe_unused]] bool sweep_recovery(Stepper* stepper, const RunSettings& settings, uint64_t points) {
  Random random(settings.seed);
  while (stepper->totals.points < points) {
    const Shape& shape = kShapes[random.below(std::size(kShapes))];
    const Mode& mode = kModes[random.between(1, 2)];  // ordered and durable: fast batches leave nothing pending
    if (shape.group_max < 3) continue;
    stepper->saved.clear();
    if (!stepper->run(batch_episode(shape, mode, random.next(), false, false, 3))) return false;
    int tries = 3;
    for (const Saved& from : std::vector<Saved>(stepper->saved)) {
      if (from.redone < 2 || tries == 0) continue;
      --tries;
      if (!stepper->run_recovery(from)) return false;
    }
  }
  return true;
}

int run_mutants([[maybe_unused]] const RunSettings& settings) {
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
  int missed = 0;
  for (const Mutant& mutant : kMutants) {
    if (!settings.only.empty() && settings.only != mutant.name) continue;
    RunSettings all = settings;
    all.only = mutant.shapes;
    Stepper stepper(settings.directory, settings.scratch, settings.seed, mutant.name);
    if (mutant.in_recovery) failpoint::arm(nullptr, mutant.name);
    const bool passed = mutant.in_recovery ? sweep_recovery(&stepper, all, settings.points * 10)
                                           : sweep(&stepper, all, settings.points, false);
    failpoint::arm(nullptr, "");
    if (passed || !stepper.failure_was_judged()) {
      ++missed;
      std::printf("MISSED %s in %llu kill points%s%s\n", mutant.name,
                  static_cast<unsigned long long>(stepper.totals.points), passed ? "" : ": ",
                  stepper.failure().c_str());
    } else {
      std::printf("caught %s after %llu kill points: %s\n", mutant.name,
                  static_cast<unsigned long long>(stepper.totals.points), stepper.failure().c_str());
    }
    std::fflush(stdout);
  }
  return missed == 0 ? 0 : 1;
#else
  std::fprintf(stderr, "mutants are compiled into debug builds only\n");
  return 2;
#endif
}

int run_sweep(const RunSettings& settings) {
  const auto start = std::chrono::steady_clock::now();
  Stepper stepper(settings.directory, settings.scratch, settings.seed, nullptr);
  stepper.keep = settings.keep;
  const bool good = sweep(&stepper, settings, settings.points, settings.only.empty());
  const Totals& totals = stepper.totals;
  const Judge& judge = stepper.judge();
  const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  if (!good) std::printf("FAILED at kill point %llu: %s\n", number(totals.points), stepper.failure().c_str());
  std::printf("points by what was killed:");
  for (size_t i = 0; i < kActs; ++i) {
    if (totals.by_act[i] > 0) std::printf(" %s %llu", kActNames[i], number(totals.by_act[i]));
  }
  std::printf("\nrecoveries by row:");
  for (const auto& [row, count] : judge.rows) std::printf(" %c %llu", row, number(count));
  std::printf(
      "\nsingle_step: %llu kill points, %llu states judged, %llu recoveries (%llu as after a restart of the machine, "
      "%llu opened twice, %llu retries, %llu consistency checks), %llu points in recovery, %llu ring wraps, %llu "
      "episodes, %s; seed %llu; %.1f "
      "s\n",
      number(totals.points), number(totals.states), number(judge.recoveries), number(judge.other_boot),
      number(judge.reopened), number(judge.retried), number(judge.checked), number(totals.in_recovery),
      number(totals.wraps), number(totals.episodes), good ? "0 torn, 0 lost" : "1 failure", number(settings.seed),
      seconds_since(start));
  std::printf(
      "figures: {\"points\":%llu,\"states\":%llu,\"recoveries\":%llu,\"inRecovery\":%llu,\"failures\":%d,\"seed\":%llu,"
      "\"seconds\":%.0f}\n",
      number(totals.points), number(totals.states), number(judge.recoveries), number(totals.in_recovery), good ? 0 : 1,
      number(settings.seed), seconds_since(start));
  if (good && settings.only.empty() && (totals.wraps == 0 || totals.in_recovery == 0 || judge.retried == 0)) {
    std::printf("FAILED: no record ran over the ring's end, or recovery or a retry was never tried\n");
    return 1;
  }
#define X(name, number) +1
  constexpr size_t kOpKinds = HOLDFAST_OP_KINDS(X);
#undef X
  if (good && settings.only.empty() && totals.kinds.size() < kOpKinds) {
    std::printf("FAILED: only %zu of %zu kinds of operations and guards were in a batch\n", totals.kinds.size(),
                kOpKinds);
    return 1;
  }
  return good ? 0 : 1;
}

int main_of(int argc, char** argv) {
  RunSettings settings;
  const std::vector<Option> own = {
      {"points", required_argument, [&](const char* text) { settings.points = std::strtoull(text, nullptr, 10); }},
      {"mutants", no_argument, [&](const char*) { settings.mutants = true; }},
      {"keep", no_argument, [&](const char*) { settings.keep = true; }}};
  constexpr char kHelp[] =
      "single_step: kills a store at every machine instruction and judges what recovery makes of it\n"
      "  --points=N      kill points to judge at least (120000); each mutant gets as many, one in recovery ten times\n"
      "  --only=TEXT     only shapes (with --mutants: only the mutant) of this name\n"
      "  --mutants       each deliberate mistake must be found (debug build)\n"
      "  --keep          leaves a state that failed in the directory\n";
  return run_program(argc, argv, "single-step", kHelp, &settings, own,
                     [&] { return settings.mutants ? run_mutants(settings) : run_sweep(settings); });
}

}  // namespace
}  // namespace holdfast::rig

int main(int argc, char** argv) { return holdfast::rig::main_of(argc, argv); }
