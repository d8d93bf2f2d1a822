// store_snapshots_test.cc - snapshots of regions: of one moment while batches go on, restored whole or not at all, gone
// with their region, and nothing left of one that could not be made.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>

#include "../../native/failpoint.h"
#include "../../native/holdfast.h"
#include "../../native/store.h"
#include "stores.h"

using namespace holdfast;
using namespace holdfast::frames;
using namespace holdfast::stores;

namespace {

constexpr uint64_t kSize = 3 * kCopyBytes + 5000;  // several turns of a copy, and an end within a page

const Durability kModes[] = {Durability::fast, Durability::ordered, Durability::durable};

// What the regions here are filled with: no byte is zero, and no two pages are alike. In a region of zeros a copy that
// misses bytes looks like one that has them.
std::string background(uint64_t size) {
  std::string bytes(size, '\0');
  for (uint64_t at = 0; at < size; at++) bytes[at] = static_cast<char>(1 + ((at + 1) * 0x9e3779b97f4a7c15 >> 32) % 255);
  return bytes;
}

// Makes a region with these bytes, at generation 0.
Code fill(Client& c, const std::string& name, const std::string& bytes, Durability mode) {
  RegionMeta meta;
  meta.name = name;
  meta.durability = mode;
  std::unique_ptr<NewRegion> made;
  MetaResult result;
  const Code code = c.store->begin_upload(meta, Conditions{}, &made, &result, &c.detail);
  if (code != Code::ok) return code;
  CHECK_EQ(made->append({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}), 0);
  return c.store->publish(std::move(made), Conditions{}, &result, &c.detail);
}

void put(std::string& bytes, uint64_t at, std::string_view text) { bytes.replace(at, text.size(), text); }

// Where the first byte is that differs, and of how many: megabytes are not printed.
std::string differs(const std::string& found, const std::string& wanted) {
  if (found.size() != wanted.size())
    return found.size() < 100 ? found
                              : std::to_string(found.size()) + " bytes instead of " + std::to_string(wanted.size());
  uint64_t first = 0, count = 0;
  for (uint64_t at = 0; at < found.size(); at++)
    if (found[at] != wanted[at] && count++ == 0) first = at;
  return count == 0 ? "" : std::to_string(count) + " bytes differ, the first at " + std::to_string(first);
}

// The outcome of a change of snapshots.
struct Made {
  Code code = Code::ok;
  MetaResult result;
  std::string detail;
  uint64_t id() const { return result.snapshot.id; }
};

Made make(Client& c, const std::string& region, const Conditions& conditions = {}) {
  Made made;
  made.code = c.store->make_snapshot(region, conditions, &made.result, &made.detail);
  return made;
}

Conditions any() {
  Conditions conditions;
  conditions.if_match = conditions.if_match_any = true;
  return conditions;
}

Made restore(Client& c, const std::string& region, uint64_t id, const Conditions& conditions = any()) {
  Made made;
  made.code = c.store->restore(region, id, conditions, &made.result, &made.detail);
  return made;
}

Made forget(Client& c, const std::string& region, uint64_t id, const Conditions& conditions = {}) {
  Made made;
  made.code = c.store->remove_snapshot(region, id, conditions, &made.result, &made.detail);
  return made;
}

std::string bytes_of(Client& c, const std::string& region, uint64_t id, uint64_t offset, uint64_t length) {
  std::string bytes(length, '\0');
  const Code code = c.store->read_snapshot(region, id, offset, length, reinterpret_cast<uint8_t*>(bytes.data()));
  return code == Code::ok ? bytes : std::string("!") + code_name(code);
}

size_t count(Client& c, const std::string& region) {
  std::vector<Snapshot> list;
  return c.store->snapshots(region, &list) == Code::ok ? list.size() : SIZE_MAX;
}

// Names in the store's directory that begin with a dot: of what is unfinished.
size_t unfinished(const Lives& lives) {
  size_t found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(lives.options.directory))
    found += entry.path().filename().string().starts_with(".");
  return found;
}

Conditions keyed(uint8_t number, Conditions conditions = {}) {
  conditions.has_key = true;
  conditions.key[0] = number;
  conditions.fingerprint[0] = number;
  return conditions;
}

void basics() {
  check::test("a snapshot keeps the bytes of its moment, through batches, resizes and a restart", [] {
    for (const Durability mode : kModes) {
      Lives lives;
      Client* c = &lives.open();
      std::string wanted = background(kSize);
      CHECK_EQ(fill(*c, "demo", wanted, mode), Code::ok);
      CHECK_EQ(c->write("demo", 10, "before"), Code::ok);
      CHECK_EQ(c->write("demo", kSize - 6, "end..."), Code::ok);
      put(wanted, 10, "before");
      put(wanted, kSize - 6, "end...");
      const Made made = make(*c, "demo");
      CHECK_EQ(made.code, Code::ok);
      CHECK(made.result.created);
      CHECK_EQ(made.result.snapshot.generation, 2u);
      CHECK_EQ(made.result.snapshot.region.size, kSize);
      CHECK_EQ(c->info("demo").generation, 2u);
      CHECK_EQ(c->write("demo", 10, "after!"), Code::ok);
      CHECK_EQ(c->resize("demo", kSize - 100), Code::ok);
      const Made second = make(*c, "demo");
      CHECK_EQ(second.code, Code::ok);
      CHECK(second.id() > made.id());
      for (int life = 0; life < 2; life++) {
        CHECK_EQ(differs(bytes_of(*c, "demo", made.id(), 0, kSize), wanted), "");
        CHECK_EQ(bytes_of(*c, "demo", made.id(), kSize - 5, 6), "!out_of_bounds");
        std::string then = wanted.substr(0, kSize - 100);
        put(then, 10, "after!");
        CHECK_EQ(differs(bytes_of(*c, "demo", second.id(), 0, kSize - 100), then), "");
        CHECK_EQ(c->read("demo", 10, 6), "after!");
        CHECK_EQ(count(*c, "demo"), 2u);
        if (life == 0) c = &lives.open();
      }
      CHECK_EQ(forget(*c, "demo", made.id()).code, Code::ok);
      CHECK_EQ(forget(*c, "demo", made.id()).code, Code::snapshot_not_found);
      CHECK_EQ(bytes_of(*c, "demo", made.id(), 0, 1), "!snapshot_not_found");
      CHECK_EQ(bytes_of(*c, "none", made.id(), 0, 1), "!region_not_found");
      CHECK_EQ(unfinished(lives), 0u);
      c = &lives.open();
      CHECK_EQ(count(*c, "demo"), 1u);
    }
  });

  check::test("holes stay holes, and a snapshot takes no more space than its bytes", [] {
    Lives lives;
    Client& c = lives.open();
    constexpr uint64_t kHuge = uint64_t{1} << 34;
    CHECK_EQ(c.create("demo", kHuge, Durability::durable, kMetaSparse), Code::ok);
    std::string middle = background(3 * kPageBytes);
    put(middle, 4090, "middle");
    CHECK_EQ(c.write("demo", kHuge / 2, middle), Code::ok);
    const Made made = make(c, "demo");
    CHECK_EQ(made.code, Code::ok);
    CHECK_EQ(differs(bytes_of(c, "demo", made.id(), kHuge / 2, middle.size()), middle), "");
    struct stat facts;
    CHECK_EQ(stat(lives.path("snapshots/demo/" + snapshot_name(made.id()) + "/data").c_str(), &facts), 0);
    CHECK(facts.st_blocks < 2048);
    std::vector<Span64> ranges;
    uint64_t next = 0;
    Store::ReadFacts seen;
    CHECK_EQ(c.store->compare("demo", made.id(), 0, 10, &ranges, &next, &seen), Code::ok);
    CHECK_EQ(ranges.size(), 0u);
    CHECK_EQ(next, kHuge);
  });

  check::test("a region has no more snapshots than the limit, and conditions hold for them", [] {
    Lives lives;
    lives.options.snapshots_max = 2;
    Client& c = lives.open();
    CHECK_EQ(fill(c, "demo", background(100), Durability::durable), Code::ok);
    Conditions at;
    at.if_generation = 1;
    CHECK_EQ(make(c, "demo", at).code, Code::generation_mismatch);
    CHECK_EQ(c.write("demo", 0, "x"), Code::ok);
    const Made made = make(c, "demo", at);
    CHECK_EQ(made.code, Code::ok);
    CHECK_EQ(make(c, "demo").code, Code::ok);
    CHECK_EQ(make(c, "demo").code, Code::too_many_snapshots);
    CHECK_EQ(make(c, "none").code, Code::region_not_found);
    CHECK_EQ(forget(c, "demo", made.id()).code, Code::ok);
    CHECK_EQ(make(c, "demo").code, Code::ok);
  });

  check::test("outcomes of snapshots are replayed by their key, also after a kill", [] {
    Lives lives;
    uint64_t id = 0;
    {
      Client& c = lives.open();
      CHECK_EQ(fill(c, "demo", background(100), Durability::durable), Code::ok);
      CHECK_EQ(c.write("demo", 0, "kept"), Code::ok);
      id = make(c, "demo", keyed(1)).id();
      CHECK_EQ(c.write("demo", 0, "lost"), Code::ok);
    }
    lives.close();
    lives.killed_after([&](Client& c) { CHECK_EQ(restore(c, "demo", id, keyed(2, any())).code, Code::ok); });
    Client& c = lives.open();
    const Made again = make(c, "demo", keyed(1));
    CHECK(again.result.replayed);
    CHECK_EQ(again.id(), id);
    CHECK_EQ(count(c, "demo"), 1u);
    const Made restored = restore(c, "demo", id, keyed(2, any()));
    CHECK(restored.result.replayed);
    CHECK_EQ(restored.result.info.generation, 3u);
    CHECK_EQ(c.info("demo").generation, 3u);
    CHECK_EQ(forget(c, "demo", id, keyed(3)).code, Code::ok);
    CHECK(forget(c, "demo", id, keyed(3)).result.replayed);
    Conditions reused = keyed(3);
    reused.fingerprint[0] = 9;
    CHECK_EQ(forget(c, "demo", id, reused).code, Code::idempotency_key_reused);
  });

  check::test("what differs from a snapshot is told page by page", [] {
    Lives lives;
    Client& c = lives.open();
    const std::string bytes = background(kSize);
    CHECK_EQ(fill(c, "demo", bytes, Durability::durable), Code::ok);
    const uint64_t id = make(c, "demo").id();
    const auto changed = [&](uint64_t at) { return std::string(1, static_cast<char>(bytes[at] ^ 1)); };
    CHECK_EQ(c.write("demo", 5000, changed(5000)), Code::ok);
    CHECK_EQ(c.write("demo", 8191, changed(8191) + changed(8192)), Code::ok);
    CHECK_EQ(c.write("demo", 2 * kCopyBytes, changed(2 * kCopyBytes)), Code::ok);
    CHECK_EQ(c.write("demo", kSize - 1, changed(kSize - 1)), Code::ok);
    CHECK_EQ(c.resize("demo", kSize + 10000), Code::ok);
    std::vector<Span64> ranges;
    uint64_t next = 0;
    Store::ReadFacts facts;
    CHECK_EQ(c.store->compare("demo", id, 0, 10, &ranges, &next, &facts), Code::ok);
    CHECK_EQ(next, kSize + 10000);
    CHECK_EQ(facts.region.generation, 5u);
    const uint64_t last = (kSize - 1) / kPageBytes * kPageBytes;
    const std::vector<Span64> wanted = {{4096, 8192}, {2 * kCopyBytes, kPageBytes}, {last, kSize + 10000 - last}};
    if (CHECK_EQ(ranges.size(), wanted.size()))
      for (size_t i = 0; i < wanted.size(); i++) {
        CHECK_EQ(ranges[i].offset, wanted[i].offset);
        CHECK_EQ(ranges[i].length, wanted[i].length);
      }
    ranges.clear();
    CHECK_EQ(c.store->compare("demo", id, 0, 1, &ranges, &next, &facts), Code::ok);
    CHECK_EQ(ranges.size(), 1u);
    CHECK_EQ(next, 2 * kCopyBytes);
  });
}

void restoring() {
  check::test("a restore puts bytes and size back, at the next generation of a new incarnation", [] {
    for (const Durability mode : kModes) {
      Lives lives;
      Client* c = &lives.open();
      std::string wanted = background(kSize);
      CHECK_EQ(fill(*c, "demo", wanted, mode), Code::ok);
      CHECK_EQ(c->write("demo", 10, "before"), Code::ok);
      put(wanted, 10, "before");
      const uint64_t id = make(*c, "demo").id();
      CHECK_EQ(c->write("demo", 10, "after!"), Code::ok);
      CHECK_EQ(c->resize("demo", 8192), Code::ok);
      MetaChange change;
      change.labels = "{\"kept\":\"yes\"}";
      CHECK_EQ(c->update("demo", change), Code::ok);
      const RegionInfo then = c->info("demo");
      const Made restored = restore(*c, "demo", id);
      CHECK_EQ(restored.code, Code::ok);
      CHECK_EQ(unfinished(lives), 0u);
      for (int life = 0; life < 2; life++) {
        const RegionInfo now = c->info("demo");
        CHECK_EQ(now.generation, then.generation + 1);
        if (life == 0) CHECK_EQ(now.durable_generation, now.generation);
        CHECK(now.meta.incarnation > then.meta.incarnation);
        CHECK_EQ(now.meta.size, kSize);
        CHECK_EQ(now.meta.labels, then.meta.labels);
        CHECK_EQ(now.meta.created_us, then.meta.created_us);
        CHECK_EQ(differs(c->read("demo", 0, kSize), wanted), "");
        CHECK_EQ(differs(bytes_of(*c, "demo", id, 0, kSize), wanted), "");
        if (life == 0) c = &lives.open();
      }
      CHECK_EQ(c->write("demo", 10, "again!"), Code::ok);
      CHECK_EQ(c->info("demo").generation, then.generation + 2);
      CHECK_EQ(differs(bytes_of(*c, "demo", id, 0, kSize), wanted), "");
    }
  });

  check::test("a restore needs a condition, and is refused where the file has to stay", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(fill(c, "demo", background(100), Durability::durable), Code::ok);
    const uint64_t id = make(c, "demo").id();
    CHECK_EQ(restore(c, "demo", id, {}).code, Code::precondition_required);
    Conditions at;
    at.if_generation = 7;
    CHECK_EQ(restore(c, "demo", id, at).code, Code::generation_mismatch);
    CHECK_EQ(restore(c, "demo", id + 1).code, Code::snapshot_not_found);
    CHECK_EQ(restore(c, "none", id).code, Code::etag_mismatch);
    MetaChange change;
    change.read_only = true;
    CHECK_EQ(c.update("demo", change), Code::ok);
    CHECK_EQ(restore(c, "demo", id).code, Code::region_read_only);
    make_file(lives.directory / "own", Bytes(5000, 'o'));
    CHECK_EQ(c.create("own", 5000, Durability::durable, kMetaAdopted, lives.directory / "own"), Code::ok);
    const Made own = make(c, "own");
    CHECK_EQ(own.code, Code::ok);
    CHECK_EQ(bytes_of(c, "own", own.id(), 4990, 10), "oooooooooo");
    CHECK_EQ(restore(c, "own", own.id()).code, Code::region_adopted);
    CHECK_EQ(unfinished(lives), 0u);
  });

  check::test("whoever maps a region is told when its files are the region's no more", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(fill(c, "demo", background(4096), Durability::durable), Code::ok);
    CHECK_EQ(c.write("demo", 0, "kept"), Code::ok);
    const uint64_t id = make(c, "demo").id();
    const auto map = [&](const char* file) {
      const int fd = ::open(lives.path(std::string("regions/demo/") + file).c_str(), O_RDONLY | O_CLOEXEC);
      void* at = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
      close(fd);
      return at;
    };
    const auto* control = static_cast<const holdfast_control*>(map("control"));
    const auto* data = static_cast<const char*>(map("data"));
    CHECK_EQ(c.write("demo", 0, "lost"), Code::ok);
    CHECK(!holdfast_removed(control));
    CHECK_EQ(restore(c, "demo", id).code, Code::ok);
    CHECK(holdfast_removed(control));
    CHECK_EQ(std::string(data, 4), "lost");
    const auto* successor = static_cast<const holdfast_control*>(map("control"));
    CHECK(holdfast_control_valid(successor) && !holdfast_removed(successor));
    CHECK_EQ(holdfast_generation(successor), 3u);
    CHECK_EQ(c.remove("demo"), Code::ok);
    CHECK(holdfast_removed(successor));
  });

  check::test("a faulted region is whole again after a restore", [] {
    Lives lives;
    lives.options.threads = false;
    Client* c = &lives.open();
    std::string wanted = background(kSize);
    CHECK_EQ(fill(*c, "demo", wanted, Durability::fast), Code::ok);
    CHECK_EQ(c->create("other", 100, Durability::durable), Code::ok);
    for (const uint64_t at : {0, 40000}) {
      CHECK_EQ(c->write("demo", at, "kept"), Code::ok);
      put(wanted, at, "kept");
    }
    const uint64_t id = make(*c, "demo").id();
    CHECK_EQ(truncate(lives.path("regions/demo/data").c_str(), 4096), 0);
    CHECK_EQ(c->write("demo", 40000, "lost"), Code::region_faulted);
    CHECK_EQ(make(*c, "demo").code, Code::region_faulted);
    CHECK_EQ(restore(*c, "demo", id).code, Code::ok);
    CHECK_EQ(c->info("demo").fault, "");
    CHECK_EQ(differs(c->read("demo", 0, kSize), wanted), "");
    CHECK_EQ(c->write("other", 0, "x"), Code::ok);
    const StoreStatus status = c->store->status();
    CHECK_EQ(status.applied, status.committed);
    c = &lives.open();
    CHECK_EQ(differs(c->read("demo", 0, kSize), wanted), "");
  });
}

#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG

void disarm() { failpoint::arm("", nullptr); }

// Copies page by page, also where blocks can be shared, and waits at a place of it while `beside` runs. The store has no
// threads of its own, which could be at a fail point while it is armed.
Made slowly(Client& c, const std::string& points, const std::function<void()>& beside) {
  failpoint::arm(("clone=errno:95," + points).c_str(), nullptr);
  Made made;
  std::thread copier([&] { made = make(c, "demo"); });
  usleep(150000);
  beside();
  copier.join();
  disarm();
  return made;
}

// Snapshots while two threads store to whatever they meet, mostly to a few pages and to several places of each.
void racing(Durability mode, uint32_t seed) {
  check::context = "mode " + std::to_string(static_cast<int>(mode)) + ", seed " + std::to_string(seed);
  // Bits for more than one word of the map of pages, two turns of a copy, and an end within a page.
  constexpr uint64_t kBytes = kCopyBytes + 70 * kPageBytes + 1234;
  constexpr int kWriters = 2, kSnapshots = 8;
  std::mt19937 random(seed);
  Lives lives;
  lives.options.full_wait_ms_max = 20000;
  failpoint::arm("clone=errno:95,snapshot_begun=sleep:4,snapshot_read=sleep:4", nullptr);
  Client& c = lives.open();
  const std::string start = background(kBytes);
  CHECK_EQ(fill(c, "demo", start, mode), Code::ok);

  using Writes = std::vector<std::pair<uint64_t, std::string>>;
  std::map<uint64_t, Writes> batches;  // by the generation that each made
  std::mutex lock;
  std::atomic<bool> over{false};
  std::atomic<int> failures{0};
  std::vector<std::thread> writers;
  for (int w = 1; w <= kWriters; w++)
    writers.emplace_back([&, w, random = std::mt19937(seed + 1000 * static_cast<uint32_t>(w))]() mutable {
      for (uint64_t ticket = static_cast<uint64_t>(w) << 40; !over; ticket++) {
        Writes writes;
        std::vector<Op> ops;
        const uint64_t near = random() % kBytes;
        for (uint32_t i = 1 + random() % 5; i > 0; i--) {
          const uint64_t at = random() % 4 ? (near + random() % (2 * kPageBytes)) % kBytes : random() % kBytes;
          const uint64_t most = random() % 8 ? 16 : 2 * kPageBytes;
          std::string text(std::min<uint64_t>(1 + random() % most, kBytes - at), '\0');
          for (char& byte : text) byte = static_cast<char>(1 + random() % 255);
          ops.push_back(write_op(at, text));
          writes.emplace_back(at, std::move(text));
        }
        Answer answer;
        if (!c.start(make_frame(parts_of({"demo"}, ops)), ticket, &answer)) answer = c.wait(ticket);
        // Larger than a batch may be: nothing is written.
        if (answer.code() == Code::batch_too_large) continue;
        if (answer.code() != Code::ok) failures++;
        std::lock_guard<std::mutex> guard(lock);
        batches[answer.region().generation] = std::move(writes);
      }
    });
  std::vector<Snapshot> made;
  for (int i = 0; i < kSnapshots; i++) {
    const Made one = make(c, "demo");
    CHECK_EQ(one.code, Code::ok);
    made.push_back(one.result.snapshot);
  }
  over = true;
  for (std::thread& writer : writers) writer.join();
  CHECK_EQ(failures.load(), 0);
  CHECK_EQ(c.store->flush(""), Code::ok);

  std::map<uint64_t, std::string> wanted;  // by the snapshot's id
  std::string bytes = start;
  uint64_t generation = 0;
  for (const Snapshot& one : made) {
    for (; generation < one.generation; generation++)
      for (const auto& [at, text] : batches[generation + 1]) put(bytes, at, text);
    wanted[one.id] = bytes;
    CHECK_EQ(differs(bytes_of(c, "demo", one.id, 0, kBytes), bytes), "");
  }
  CHECK(generation > kSnapshots);  // it was a race
  const uint64_t last = c.info("demo").generation;
  CHECK_EQ(last, batches.size());
  for (; generation < last; generation++)
    for (const auto& [at, text] : batches[generation + 1]) put(bytes, at, text);
  CHECK_EQ(differs(c.read("demo", 0, kBytes), bytes), "");
  for (int i = 0; i < 3; i++) {
    const uint64_t id = made[random() % made.size()].id;
    CHECK_EQ(restore(c, "demo", id).code, Code::ok);
    CHECK_EQ(differs(c.read("demo", 0, kBytes), wanted[id]), "");
    bytes = wanted[id];
    put(bytes, 5000, "since");
    CHECK_EQ(c.write("demo", 5000, "since"), Code::ok);
    CHECK_EQ(differs(bytes_of(c, "demo", id, 0, kBytes), wanted[id]), "");
  }
  lives.close();
  disarm();
  Client& again = lives.open();
  CHECK_EQ(differs(again.read("demo", 0, kBytes), bytes), "");
  for (const auto& [id, then] : wanted) CHECK_EQ(differs(bytes_of(again, "demo", id, 0, kBytes), then), "");
}

void beside_writers() {
  check::test("a batch that lands while pages are copied is not in the snapshot", [] {
    for (const Durability mode : kModes)
      for (const char* place : {"snapshot_begun", "snapshot_read"}) {
        check::context = place;
        Lives lives;
        lives.options.threads = false;
        Client& c = lives.open();
        std::string wanted = background(kSize);
        CHECK_EQ(fill(c, "demo", wanted, mode), Code::ok);
        for (const uint64_t at : {uint64_t{0}, uint64_t{4000}, kCopyBytes - 3, kSize - 6}) {
          CHECK_EQ(c.write("demo", at, "before"), Code::ok);
          put(wanted, at, "before");
        }
        const Made made = slowly(c, std::string(place) + "=sleep:400@1", [&] {
          CHECK_EQ(c.write("demo", 4000, std::string(9000, 'n')), Code::ok);
          CHECK_EQ(c.write("demo", kCopyBytes - 3, "after!"), Code::ok);
          CHECK_EQ(c.write("demo", kSize - 6, "after!"), Code::ok);
          CHECK_EQ(c.store->flush(""), Code::ok);
        });
        CHECK_EQ(made.code, Code::ok);
        CHECK_EQ(made.result.snapshot.generation, 4u);
        CHECK_EQ(differs(bytes_of(c, "demo", made.id(), 0, kSize), wanted), "");
        CHECK_EQ(c.read("demo", kSize - 6, 6), "after!");
      }
  });

  check::test("a page of which a batch changes a part while it is copied is in the snapshot as a whole", [] {
    // What was saved of a page ended where the batch's bytes did, and the copier took the page for saved: the rest of it
    // was a hole in the snapshot, and zeros in the region after a restore. So was a second place of the same page.
    for (const Durability mode : kModes) {
      Lives lives;
      lives.options.threads = false;
      Client& c = lives.open();
      const std::string wanted = background(kSize);
      CHECK_EQ(fill(c, "demo", wanted, mode), Code::ok);
      const Made made = slowly(c, "snapshot_begun=sleep:400", [&] {
        CHECK_EQ(c.write("demo", 5000, "eight..."), Code::ok);
        CHECK_EQ(c.run(parts_of({"demo"}, {write_op(20000, "first"), write_op(17000, "second")})).code(), Code::ok);
        CHECK_EQ(c.write("demo", kSize - 900, "in the last, short page"), Code::ok);
        CHECK_EQ(c.store->flush(""), Code::ok);
      });
      CHECK_EQ(made.code, Code::ok);
      CHECK_EQ(differs(bytes_of(c, "demo", made.id(), 0, kSize), wanted), "");
      CHECK_EQ(c.read("demo", 5000, 8), "eight...");
      CHECK_EQ(restore(c, "demo", made.id()).code, Code::ok);
      CHECK_EQ(differs(c.read("demo", 0, kSize), wanted), "");
    }
  });

  check::test(
      "whatever is stored while it is made, a snapshot has the bytes of its generation, and a restore brings them", [] {
        const uint32_t seed = check::seed();
        for (const Durability mode : kModes) racing(mode, seed + static_cast<uint32_t>(mode));
      });

  check::test("snapshots under writers are each of one generation, the one that they tell", [] {
    Lives lives;
    lives.options.journal_bytes = 64 << 10;
    lives.options.full_wait_ms_max = 20000;
    failpoint::arm("clone=errno:95", nullptr);
    Client& c = lives.open();
    constexpr uint64_t kCells = 61, kStep = kSize / kCells / 8 * 8;
    std::string wanted = background(kSize);
    for (uint64_t i = 0; i < kCells; i++) put(wanted, i * kStep, std::string(8, '\0'));
    CHECK_EQ(fill(c, "demo", wanted, Durability::fast), Code::ok);
    std::vector<Op> ops;
    for (uint64_t i = 0; i < kCells; i++) ops.push_back(add_op(i * kStep, ValueType::u64, 1));
    const Bytes frame = make_frame(parts_of({"demo"}, ops));
    std::atomic<bool> over{false};
    std::atomic<int> failures{0};
    std::vector<std::thread> writers;
    for (uint64_t w = 1; w <= 2; w++)
      writers.emplace_back([&, w] {
        for (uint64_t ticket = w << 40; !over; ticket++) {
          Answer answer;
          if (!c.start(frame, ticket, &answer)) answer = c.wait(ticket);
          if (answer.code() != Code::ok) failures++;
        }
      });
    uint64_t moved = 0, last = 0;
    for (int i = 0; i < 12; i++) {
      const Made made = make(c, "demo");
      CHECK_EQ(made.code, Code::ok);
      const std::string bytes = bytes_of(c, "demo", made.id(), 0, kSize);
      for (uint64_t at = 0; at < kCells; at++)
        memcpy(wanted.data() + at * kStep, &made.result.snapshot.generation, sizeof made.result.snapshot.generation);
      CHECK_EQ(differs(bytes, wanted), "");
      moved += made.result.snapshot.generation > last;
      last = made.result.snapshot.generation;
    }
    over = true;
    for (std::thread& writer : writers) writer.join();
    CHECK_EQ(failures.load(), 0);
    CHECK(moved > 6);
    lives.close();
    disarm();
  });

  check::test("a snapshot that finds no space fails alone, and nothing is left of it", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    CHECK_EQ(fill(c, "demo", background(kSize), Durability::durable), Code::ok);
    // Of the copier, in each of its turns, and of its meta.
    for (const char* point : {"copy_write=enospc@1", "copy_write=enospc@2", "copy_write=enospc@3",
                              "copy_write=enospc@4", "copy_write=enospc@5"}) {
      check::context = point;
      failpoint::arm((std::string("clone=errno:95,") + point).c_str(), nullptr);
      const Made made = make(c, "demo");
      CHECK_EQ(made.code, Code::insufficient_storage);
      disarm();
      CHECK_EQ(unfinished(lives), 0u);
    }
    // And of a batch that has to save a page.
    check::context = "of a batch";
    const Made made = slowly(c, "snapshot_begun=sleep:400,copy_write=enospc@1",
                             [&] { CHECK_EQ(c.write("demo", kSize - 9, "after!"), Code::ok); });
    CHECK_EQ(made.code, Code::insufficient_storage);
    CHECK_EQ(unfinished(lives), 0u);
    CHECK_EQ(count(c, "demo"), 0u);
    CHECK_EQ(c.read("demo", kSize - 9, 6), "after!");
    const uint64_t id = make(c, "demo").id();
    failpoint::arm("clone=errno:95,copy_write=enospc@1", nullptr);
    const RegionInfo then = c.info("demo");
    CHECK_EQ(restore(c, "demo", id).code, Code::insufficient_storage);
    disarm();
    CHECK_EQ(c.info("demo").meta.incarnation, then.meta.incarnation);
    CHECK_EQ(c.write("demo", 0, "x"), Code::ok);
    CHECK_EQ(unfinished(lives), 0u);
  });

  check::test("while pages are copied size and files stay; a removal ends the copy", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    CHECK_EQ(fill(c, "demo", background(kSize), Durability::durable), Code::ok);
    const uint64_t id = make(c, "demo").id();
    Made made = slowly(c, "snapshot_begun=sleep:400", [&] {
      CHECK_EQ(c.resize("demo", 100), Code::snapshot_in_progress);
      CHECK_EQ(restore(c, "demo", id).code, Code::snapshot_in_progress);
      CHECK_EQ(make(c, "demo").code, Code::snapshot_in_progress);
      MetaChange change;
      change.labels = "{\"a\":\"b\"}";
      CHECK_EQ(c.update("demo", change), Code::ok);
    });
    CHECK_EQ(made.code, Code::ok);
    CHECK_EQ(made.result.snapshot.region.labels, "{}");
    CHECK_EQ(c.resize("demo", 100), Code::ok);
    made = slowly(c, "snapshot_begun=sleep:400", [&] { CHECK_EQ(c.remove("demo"), Code::ok); });
    CHECK_EQ(made.code, Code::region_not_found);
    CHECK_EQ(unfinished(lives), 0u);
    CHECK_EQ(c.create("demo", 100, Durability::durable), Code::ok);
    CHECK_EQ(count(c, "demo"), 0u);
  });

  check::test("a store that closes ends a copy", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    CHECK_EQ(fill(c, "demo", background(kSize), Durability::durable), Code::ok);
    const Made made = slowly(c, "snapshot_begun=sleep:400", [&] { c.store->close(); });
    CHECK_EQ(made.code, Code::cancelled);
    CHECK_EQ(unfinished(lives), 0u);
  });

  check::test("a file that is cut while it is copied is no snapshot", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    CHECK_EQ(fill(c, "demo", background(kSize), Durability::durable), Code::ok);
    const std::string data = lives.path("regions/demo/data");
    Made made = slowly(c, "snapshot_begun=sleep:400", [&] { CHECK_EQ(truncate(data.c_str(), 4096), 0); });
    CHECK_EQ(made.code, Code::region_faulted);
    CHECK_EQ(unfinished(lives), 0u);
    CHECK_EQ(truncate(data.c_str(), static_cast<off_t>(kSize)), 0);
  });
}

// Runs `body` with a kill at each of the places, and looks at what the next life makes of it.
void killed_at(std::initializer_list<const char*> places, const std::function<void(Client&, uint64_t id)>& body,
               const std::function<void(Client&, uint64_t id, const std::string& place)>& judge) {
  for (const char* place : places)
    for (const bool other_boot : {false, true}) {
      check::context = std::string(place) + (other_boot ? " and a restart of the machine" : "");
      Lives lives;
      uint64_t id = 0;
      {
        Client& c = lives.open();
        CHECK_EQ(fill(c, "demo", background(kSize), Durability::durable), Code::ok);
        CHECK_EQ(c.write("demo", 10, "before"), Code::ok);
        id = make(c, "demo").id();
        CHECK_EQ(c.write("demo", 10, "after!"), Code::ok);
      }
      lives.close();
      lives.killed_after([&](Client& c) {
        CHECK_EQ(c.write("demo", 20, "newest"), Code::ok);
        failpoint::arm((std::string("clone=errno:95,") + place + "=kill@1").c_str(), nullptr);
        body(c, id);
      });
      if (other_boot) lives.other_boot();
      Client& c = lives.open();
      CHECK_EQ(unfinished(lives), 0u);
      judge(c, id, place);
      if (c.store->info("demo")) CHECK_EQ(c.write("demo", 0, "x"), Code::ok);
    }
}

void kills() {
  check::test("a kill in the making of a snapshot leaves a whole one or none", [] {
    killed_at(
        {"snapshot_begun", "snapshot_read", "snapshot_synced", "change_published", "change_synced", "snapshot_renamed"},
        [](Client& c, uint64_t) { make(c, "demo"); },
        [](Client& c, uint64_t id, const std::string& place) {
          std::vector<Snapshot> list;
          CHECK_EQ(c.store->snapshots("demo", &list), Code::ok);
          CHECK_EQ(list.size(), place.starts_with("snapshot_") && place != "snapshot_renamed" ? 1u : 2u);
          std::string wanted = background(kSize);
          put(wanted, 10, "before");
          CHECK_EQ(differs(bytes_of(c, "demo", id, 0, kSize), wanted), "");
          put(wanted, 10, "after!");
          put(wanted, 20, "newest");
          if (list.size() == 2) {
            CHECK_EQ(differs(bytes_of(c, "demo", list[1].id, 0, kSize), wanted), "");
            CHECK_EQ(list[1].generation, 3u);
          }
          CHECK_EQ(c.read("demo", 20, 6), "newest");
        });
  });

  check::test("a kill in a restore leaves the region as it was or as it is in the snapshot", [] {
    killed_at(
        {"restore_prepared", "change_published", "change_synced", "replace_old_renamed", "create_renamed"},
        [](Client& c, uint64_t id) { restore(c, "demo", id); },
        [](Client& c, uint64_t id, const std::string& place) {
          const bool restored = place != "restore_prepared";
          std::string then = background(kSize), now = then;
          put(then, 10, "before");
          put(now, 10, "after!");
          put(now, 20, "newest");
          CHECK_EQ(differs(c.read("demo", 0, kSize), restored ? then : now), "");
          CHECK_EQ(c.info("demo").generation, restored ? 4u : 3u);
          CHECK_EQ(differs(bytes_of(c, "demo", id, 0, kSize), then), "");
        });
  });

  check::test("a kill in a removal takes the snapshots with the region, or neither", [] {
    killed_at(
        {"change_published", "change_synced", "remove_snapshots_renamed", "remove_renamed"},
        [](Client& c, uint64_t) { c.remove("demo"); },
        [](Client& c, uint64_t, const std::string&) {
          CHECK(!c.store->info("demo"));
          CHECK_EQ(c.create("demo", 100, Durability::durable), Code::ok);
          CHECK_EQ(count(c, "demo"), 0u);
        });
    killed_at(
        {"change_published", "forget_renamed"}, [](Client& c, uint64_t id) { forget(c, "demo", id); },
        [](Client& c, uint64_t, const std::string&) {
          CHECK_EQ(count(c, "demo"), 0u);
          CHECK_EQ(c.read("demo", 20, 6), "newest");
        });
  });
}

#endif

}  // namespace

int main() {
  basics();
  restoring();
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
  beside_writers();
  kills();
#endif
  return check::done();
}
