// store_threads_test.cc - a store under many threads at once. What ThreadSanitizer is to look at is here.
#include <atomic>

#include "../../native/holdfast.h"
#include "../../native/store.h"
#include "stores.h"

using namespace holdfast;
using namespace holdfast::frames;
using namespace holdfast::stores;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Adds one to the first and the last cell of both regions.
Bytes add_everywhere(const std::string& first, const std::string& second) {
  return make_frame(
      parts_of({first, second}, {add_op(0, ValueType::u64, 1), add_op(4088, ValueType::u64, 1),
                                 add_op(0, ValueType::u64, 1).in(1), add_op(4088, ValueType::u64, 1).in(1)}));
}

uint64_t cell(const std::string& bytes) {
  uint64_t value = 0;
  if (bytes.size() == 8) memcpy(&value, bytes.data(), 8);
  return value;
}

void load() {
  check::test("batches from many threads, with checkpoints, resizes, flushes and readers beside them, all add up", [] {
    Lives lives;
    lives.options.journal_bytes = 64 << 10;
    lives.options.flush_interval_ms = 1;
    lives.options.full_wait_ms_max = 20000;
    Client& c = lives.open();
    CHECK_EQ(c.create("fast", 8192, Durability::fast), Code::ok);
    CHECK_EQ(c.create("ordered", 8192, Durability::ordered), Code::ok);
    CHECK_EQ(c.create("durable", 8192, Durability::durable), Code::ok);
    constexpr int kWriters = 3, kBatches = 150;
    const char* const pairs[kWriters][2] = {{"fast", "ordered"}, {"ordered", "durable"}, {"durable", "fast"}};
    std::atomic<int> failures{0};
    std::atomic<bool> over{false};
    std::vector<std::thread> threads;
    for (int w = 0; w < kWriters; w++)
      threads.emplace_back([&, w] {
        const Bytes frame = add_everywhere(pairs[w][0], pairs[w][1]);
        const Bytes alone =
            make_frame(parts_of({"fast"}, {add_op(8, ValueType::u64, 1), add_op(4080, ValueType::u64, 1)}));
        for (uint64_t i = 0; i < kBatches; i++) {
          const uint64_t ticket = static_cast<uint64_t>(w + 1) << 32 | i * 2;
          Answer answer;
          if (!c.start(frame, ticket, &answer)) answer = c.wait(ticket);
          if (answer.code() != Code::ok) failures++;
          // As the event loop does it: at once if that is possible.
          Bytes bytes;
          Store::Progress progress = c.store->commit(alone, Store::Patience::never_block, ticket + 1, &bytes);
          if (progress == Store::Progress::would_block)
            progress = c.store->commit(alone, Store::Patience::may_block, ticket + 1, &bytes);
          answer.bytes = bytes;
          if (progress == Store::Progress::waiting) answer = c.wait(ticket + 1);
          if (answer.code() != Code::ok) failures++;
        }
      });
    threads.emplace_back([&] {
      while (!over) {
        for (const char* name : {"fast", "ordered", "durable"}) {
          // One generation: the first and the last cell agree.
          std::string bytes = c.read(name, 0, 4096);
          if (bytes.size() != 4096 || cell(bytes.substr(0, 8)) != cell(bytes.substr(4088, 8))) failures++;
        }
        c.store->status();
        c.store->names();
        c.info("fast");
      }
    });
    threads.emplace_back([&] {
      for (uint64_t size = 8192; !over; size = size == 8192 ? 40000 : 8192) {
        if (c.resize("ordered", size) != Code::ok) failures++;
        if (c.store->flush("") != Code::ok) failures++;
        c.store->checkpoint_step();
      }
    });
    for (int w = 0; w < kWriters; w++) threads[w].join();
    over = true;
    for (size_t i = kWriters; i < threads.size(); i++) threads[i].join();
    CHECK_EQ(failures.load(), 0);
    CHECK_EQ(c.store->flush(""), Code::ok);
    for (const char* name : {"fast", "ordered", "durable"})
      for (const uint64_t at : {0, 4088}) CHECK_EQ(cell(c.read(name, at, 8)), uint64_t{2} * kBatches);
    CHECK_EQ(cell(c.read("fast", 4080, 8)), uint64_t{kWriters} * kBatches);
    CHECK(c.store->status().checkpoints > 3);
  });

  check::test("a change of a region and a flush get their turn while batches never stop", [] {
    // They waited for a moment with nothing pending, and under a steady load there was none.
    Lives lives;
    lives.options.flush_interval_ms = 1;
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 4096, Durability::ordered), Code::ok);
    std::atomic<bool> over{false};
    std::vector<std::thread> writers;
    for (int w = 0; w < 2; w++)
      writers.emplace_back([&] {
        const Bytes frame = make_frame(parts_of({"demo"}, {add_op(0, ValueType::u64, 1)}));
        Bytes answer;
        while (!over) c.store->commit(frame, Store::Patience::may_block, 1, &answer);
      });
    // On a busy machine the changes could be over before the first batch.
    while (c.info("demo").generation < 100) std::this_thread::yield();
    const Clock::time_point start = Clock::now();
    const uint64_t before = c.info("demo").generation;
    MetaChange labels;
    for (int i = 0; i < 10; i++) {
      labels.labels = R"({"i":")" + std::to_string(i) + R"("})";
      CHECK_EQ(c.update("demo", labels), Code::ok);
      CHECK_EQ(c.store->flush("demo"), Code::ok);
    }
    const double seconds = seconds_since(start);
    over = true;
    for (std::thread& writer : writers) writer.join();
    printf("# ten changes and ten flushes beside %llu batches: %.0f ms\n",
           static_cast<unsigned long long>(c.info("demo").generation - before), seconds * 1000);
    CHECK(seconds < 20);
  });

  check::test("changes that meet change one after the other, none is lost", [] {
    Lives lives;
    lives.options.journal_bytes = 64 << 10;
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 4096, Durability::fast), Code::ok);
    std::atomic<int> changed{0}, made{0}, other{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; t++)
      threads.emplace_back([&, t] {
        for (int i = 0; i < 20; i++) {
          MetaResult result;
          std::string detail;
          MetaChange change;
          change.labels = R"({"t":")" + std::to_string(t) + R"("})";
          // An update that depends on what it saw: as many succeed as generations are counted.
          Conditions conditions;
          const RegionInfo seen = c.info("demo");
          conditions.if_match = true;
          conditions.match = {{seen.meta.incarnation, seen.meta.meta_generation, seen.generation}};
          const Code code = c.store->update("demo", change, conditions, &result, &detail);
          if (code == Code::ok)
            changed++;
          else if (code != Code::etag_mismatch)
            other++;
          // And all want the same name.
          RegionMeta meta;
          meta.name = "wanted";
          meta.size = 64;
          meta.durability = Durability::fast;
          const Code created = c.store->create(meta, Conditions{}, &result, &detail);
          if (created == Code::ok)
            made++;
          else if (created != Code::region_exists)
            other++;
          if (created == Code::ok && c.store->remove("wanted", Conditions{}, &result, &detail) == Code::ok) made--;
        }
      });
    for (std::thread& thread : threads) thread.join();
    CHECK_EQ(other.load(), 0);
    CHECK(changed > 0);
    CHECK_EQ(made.load(), 0);
    CHECK_EQ(c.info("demo").meta.meta_generation, 1u + static_cast<uint64_t>(changed.load()));
  });
}

// Where this process has a file mapped.
uint8_t* mapped_at(const std::string& path) {
  std::FILE* maps = std::fopen("/proc/self/maps", "re");
  char line[4400];
  unsigned long long from = 0;
  while (maps != nullptr && std::fgets(line, sizeof line, maps) != nullptr) {
    if (std::strstr(line, path.c_str()) != nullptr && std::sscanf(line, "%llx-", &from) == 1) break;
  }
  if (maps != nullptr) std::fclose(maps);
  return reinterpret_cast<uint8_t*>(from);
}

void mapped() {
  check::test("a reader of a mapped region sees whole batches, and none of its loads races with a store", [] {
    constexpr size_t kBytes = 3 * kPageBytes;
    constexpr size_t kStamped[] = {0, 72, kPageBytes - 8, kPageBytes, kBytes - 8};
    // A writer is done with hundreds of batches before a reader of a busy machine has its turn.
    constexpr uint64_t kChanges = 200;
    Lives lives;
    lives.options.flush_interval_ms = 1;
    Client& c = lives.open();
    std::atomic<int> torn{0}, refused{0};
    std::atomic<bool> over{false};
    std::atomic<uint64_t> snapshots{0}, changed{0};
    const Clock::time_point start = Clock::now();
    std::vector<std::thread> readers, writers;
    for (const std::string name : {"fast", "ordered"}) {
      CHECK_EQ(c.create(name, kBytes, name == "fast" ? Durability::fast : Durability::ordered), Code::ok);
      // The store's own mappings: ThreadSanitizer knows memory by its address, and sees no race with another mapping.
      const uint8_t* data = mapped_at(lives.path("regions/" + name + "/data"));
      const auto* control =
          reinterpret_cast<const holdfast_control*>(mapped_at(lives.path("regions/" + name + "/control")));
      if (!CHECK(data != nullptr) || !CHECK(control != nullptr) || !CHECK(holdfast_control_valid(control))) return;
      readers.emplace_back([&, data, control] {
        uint64_t seen = 0, last = 0;
        while (!over) {
          if (holdfast_read_begin(control, 1000, &seen) != HOLDFAST_SETTLED) continue;
          uint64_t words[std::size(kStamped)], beside = 0;
          for (size_t i = 0; i < std::size(kStamped); i++) words[i] = holdfast_load64(data + kStamped[i]);
          // Words that a batch covers in part as well.
          for (size_t at = 2048; at < 2112; at += 8) beside += holdfast_load64(data + at);
          if (holdfast_read_retry(control, seen)) continue;
          for (const uint64_t word : words) torn += word != words[0];
          torn += words[0] == 0 && beside != 0;
          torn += seen < last;
          changed += seen != last;
          last = seen;
          ++snapshots;
        }
      });
      writers.emplace_back([&, name] {
        for (uint64_t i = 1; changed < kChanges && seconds_since(start) < 60; i++) {
          const std::string stamp(reinterpret_cast<const char*>(&i), sizeof i);
          FrameParts parts = parts_of({name}, {write_op(2051, std::string(50, static_cast<char>(i | 1)))});
          for (const size_t at : kStamped) parts.ops.push_back(write_op(at, stamp));
          const Bytes frame = make_frame(parts);
          Answer answer;
          const uint64_t ticket = (name == "fast" ? 1ull : 2ull) << 32 | i;
          if (!c.start(frame, ticket, &answer)) answer = c.wait(ticket);
          refused += answer.code() != Code::ok;
          std::this_thread::yield();
        }
      });
    }
    for (std::thread& writer : writers) writer.join();
    over = true;
    for (std::thread& reader : readers) reader.join();
    CHECK_EQ(refused.load(), 0);
    CHECK_EQ(torn.load(), 0);
    CHECK(changed >= kChanges);
    printf("# %llu snapshots of %llu generations\n", static_cast<unsigned long long>(snapshots),
           static_cast<unsigned long long>(changed));
  });
}

void ends() {
  check::test("a store that is closed in the middle of everything answers everything, and loses nothing it answered",
              [] {
                for (int round = 0; round < 5; round++) {
                  check::context = "round " + std::to_string(round);
                  Lives lives("/dev/shm");
                  lives.options.flush_interval_ms = 2;
                  Client& c = lives.open();
                  CHECK_EQ(c.create("demo", 8192, Durability::ordered), Code::ok);
                  std::atomic<uint64_t> acknowledged{0};
                  std::atomic<int> unanswered{0}, strange{0};
                  std::vector<std::thread> threads;
                  for (int w = 0; w < 2; w++)
                    threads.emplace_back([&, w] {
                      FrameParts parts = parts_of({"demo"}, {add_op(0, ValueType::u64, 1)});
                      if (w == 1) parts.wait = Wait::durable;
                      const Bytes frame = make_frame(parts);
                      for (uint64_t i = 0;; i++) {
                        const uint64_t ticket = static_cast<uint64_t>(w + 1) << 32 | i;
                        Answer answer;
                        if (!c.start(frame, ticket, &answer)) answer = c.wait(ticket);
                        if (answer.header().code == UINT16_MAX) unanswered++;
                        if (answer.code() == Code::ok) acknowledged++;
                        if (answer.code() == Code::cancelled || answer.header().code == UINT16_MAX) return;
                      }
                    });
                  threads.emplace_back([&] {
                    Code code = Code::ok;
                    for (uint64_t size = 8192; code == Code::ok; size = size == 8192 ? 16384 : 8192)
                      code = c.resize("demo", size);
                    if (code != Code::cancelled) strange++;
                  });
                  threads.emplace_back([&] {
                    Code code = Code::ok;
                    while (code == Code::ok) code = c.store->flush("");
                    if (code != Code::cancelled) strange++;
                  });
                  threads.emplace_back([&] {
                    while (c.read("demo", 0, 8) != "!cancelled") {
                    }
                  });
                  usleep(20000 + round * 7000);
                  c.store->close();
                  for (std::thread& thread : threads) thread.join();
                  CHECK_EQ(unanswered.load(), 0);
                  CHECK_EQ(strange.load(), 0);
                  lives.close();
                  CHECK_EQ(cell(lives.open().read("demo", 0, 8)), acknowledged.load());
                }
              });
}

}  // namespace

int main() {
  load();
  mapped();
  ends();
  return check::done();
}
