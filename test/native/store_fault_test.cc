// store_fault_test.cc - files that others cut, disks that are full or fail: what is refused, what goes on, what is redone.
#include "../../native/failpoint.h"
#include "../../native/fault_guard.h"
#include "../../native/holdfast.h"
#include "../../native/store.h"
#include "stores.h"

using namespace holdfast;
using namespace holdfast::frames;
using namespace holdfast::stores;

namespace {

constexpr uint64_t kSize = 64 << 10;

// A region whose pages are all in use, and a second one that has nothing to do with it.
void make_two(Client& c, Durability mode) {
  CHECK_EQ(c.create("demo", kSize, mode), Code::ok);
  CHECK_EQ(c.create("other", kSize, mode), Code::ok);
  for (const char* name : {"demo", "other"})
    for (uint64_t at = 0; at < kSize; at += 4096) CHECK_EQ(c.write(name, at, "old"), Code::ok);
  CHECK_EQ(c.store->flush(""), Code::ok);
}

void cut(const Lives& lives, uint64_t size) {
  CHECK_EQ(truncate(lives.path("regions/demo/data").c_str(), static_cast<off_t>(size)), 0);
}

void truncated() {
  for (const Durability mode : {Durability::fast, Durability::ordered, Durability::durable}) {
    const char* const names[] = {"", "fast", "ordered", "durable"};
    check::test(
        (std::string(
             "a file that is cut under a live mapping faults its region, and its batch is redone when the file is "
             "whole again: ") +
         names[static_cast<int>(mode)])
            .c_str(),
        [mode] {
          Lives lives;
          lives.options.threads = false;
          Client& c = lives.open();
          make_two(c, mode);
          const uint64_t before = c.info("demo").generation, caught = fault_guard_caught();
          const Bytes frame = make_frame(
              parts_of({"demo", "other"}, {write_op(0, "new"), write_op(40000, "new"), write_op(0, "new").in(1)}));
          Answer answer;
          // A fast batch is applied at once, the others when their record is on the disk.
          if (mode == Durability::fast) cut(lives, 4096);
          const bool at_once = c.start(frame, 1, &answer);
          CHECK_EQ(at_once, mode != Durability::durable);
          if (mode != Durability::fast) {
            cut(lives, 4096);
            CHECK(c.store->flush_step());
          }
          if (!at_once) answer = c.wait(1);
          CHECK_EQ(answer.code(), mode == Durability::ordered ? Code::ok : Code::region_faulted);
          CHECK(answer.header().flags & kAnswerCommitted);
          CHECK(fault_guard_caught() > caught);
          CHECK_EQ(c.write("demo", 0, "x"), Code::region_faulted);
          // Half of the batch is in the file: nobody is shown it, mapped or not.
          CHECK_EQ(c.read("demo", 0, 3), std::string("!region_faulted"));
          CHECK_EQ(c.run(parts_of({"demo"}, {read_op(0, 3)})).code(), Code::region_faulted);
          CHECK_EQ(control_of(lives, "demo").state, static_cast<uint32_t>(HOLDFAST_STATE_FAULTED));
          CHECK_EQ(control_of(lives, "demo").sequence & 1, 1u);
          // The other region of the same batch has it, and goes on.
          c.store->flush_step();
          CHECK_EQ(c.read("other", 0, 3), std::string("new"));
          CHECK_EQ(c.write("other", 8, "on"), Code::ok);
          CHECK_EQ(c.store->checkpoint_step(), 0);
          CHECK(std::filesystem::file_size(lives.path("regions/demo/redo")) > 0);
          // The ring goes round; what the region misses is in its redo file.
          for (int i = 0; i < 100; i++) CHECK_EQ(c.write("other", 100, std::string(4000, 'x')), Code::ok);
          lives.close();
          // Still cut at the next start: still faulted, nothing forgotten.
          Client& second = lives.open();
          CHECK_EQ(second.recovery().faulted.size(), 1u);
          CHECK_EQ(second.write("demo", 0, "x"), Code::region_faulted);
          CHECK_EQ(second.write("other", 8, "on"), Code::ok);
          CHECK_EQ(second.store->checkpoint_step(), 0);
          lives.close();
          CHECK(std::filesystem::file_size(lives.path("regions/demo/redo")) > 0);
          cut(lives, kSize);
          Client& third = lives.open();
          CHECK(third.recovery().faulted.empty());
          CHECK_EQ(third.read("demo", 40000, 3), std::string("new"));
          CHECK_EQ(third.read("demo", 0, 3), std::string("new"));
          CHECK_EQ(third.info("demo").generation, before + 1);
          CHECK(!std::filesystem::exists(lives.path("regions/demo/redo")));
          CHECK_EQ(third.write("demo", 0, "x"), Code::ok);
        });
  }

  check::test("a batch that reads or copies a page that is gone is refused with nothing written", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::ordered);
    CHECK_EQ(c.create("quick", kSize, Durability::fast), Code::ok);
    CHECK_EQ(c.write("quick", 0, "old"), Code::ok);
    const uint64_t committed = c.store->status().committed;
    cut(lives, 4096);
    // One region's page is copied to be written over; then the other's can't be. Had the first copy stayed, the next
    // batch of several modes would have been laid over bytes of now.
    CHECK_EQ(c.run(parts_of({"quick", "demo"}, {write_op(0, "new"), write_op(40000, "new").in(1)})).code(),
             Code::region_faulted);
    CHECK_EQ(c.store->status().committed, committed);
    CHECK_EQ(c.write("quick", 8, "first"), Code::ok);
    Answer answer;
    CHECK(c.start(make_frame(parts_of({"quick", "other"}, {write_op(16, "second"), write_op(0, "new").in(1)})), 1,
                  &answer));
    CHECK(c.start(make_frame(parts_of({"quick"}, {read_op(8, 14)})), 2, &answer));
    CHECK_EQ(answer.data(), std::string("first\0\0\0second", 14));
    c.store->flush_step();
    CHECK_EQ(c.read("quick", 8, 14), std::string("first\0\0\0second", 14));
  });

  check::test("a process that is killed with a faulted region loses none of its batches", [] {
    for (const bool checkpointed : {false, true}) {
      check::context = checkpointed ? "after a checkpoint" : "before a checkpoint";
      Lives lives;
      lives.options.threads = false;
      lives.killed_after([&](Client& c) {
        make_two(c, Durability::ordered);
        CHECK_EQ(c.store->checkpoint_step(), 0);
        for (const char* text : {"one", "two"})
          CHECK_EQ(c.run(parts_of({"demo", "other"}, {write_op(40000, text), write_op(0, text).in(1)})).code(),
                   Code::ok);
        cut(lives, 4096);
        c.store->flush_step();
        CHECK_EQ(c.write("other", 8, "on"), Code::ok);
        c.store->flush_step();
        if (checkpointed) CHECK_EQ(c.store->checkpoint_step(), 0);
        CHECK_EQ(c.write("other", 8, "and on"), Code::ok);
      });
      Client& second = lives.open();
      CHECK_EQ(second.recovery().faulted.size(), 1u);
      CHECK_EQ(second.read("other", 8, 6), std::string("and on"));
      lives.close();
      cut(lives, kSize);
      Client& third = lives.open();
      CHECK_EQ(third.read("demo", 40000, 3), std::string("two"));
      CHECK_EQ(third.info("demo").generation, 18u);
    }
  });

  check::test("a faulted region can be removed, and one that is only read is not touched", [] {
    Lives lives;
    Client& c = lives.open();
    make_two(c, Durability::fast);
    cut(lives, 4096);
    CHECK_EQ(c.read("demo", 0, 3), std::string("old"));
    CHECK_EQ(c.read("demo", 40000, 3), std::string("!region_faulted"));
    CHECK_EQ(c.store->flush("demo"), Code::region_faulted);
    CHECK_EQ(c.store->flush(""), Code::ok);
    CHECK_EQ(c.resize("demo", 2 * kSize), Code::region_faulted);
    CHECK_EQ(c.remove("demo"), Code::ok);
    CHECK_EQ(c.create("demo", kSize, Durability::fast), Code::ok);
    CHECK_EQ(c.write("demo", 40000, "new"), Code::ok);
  });
}

#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG

void disarm() { failpoint::arm("", nullptr); }

void failing_syncs() {
  check::test("a journal that can't be made durable: promises end, nothing is retried, a restart finds all of it", [] {
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      make_two(c, Durability::durable);
      CHECK_EQ(c.create("order", kSize, Durability::ordered), Code::ok);
      CHECK_EQ(c.create("quick", kSize, Durability::fast), Code::ok);
      CHECK_EQ(c.create("mixed", kSize, Durability::fast), Code::ok);
      Answer answer;
      CHECK_EQ(c.write("order", 0, "said"), Code::ok);
      CHECK(!c.start(make_frame(parts_of({"demo", "mixed"}, {write_op(0, "unknown"), write_op(0, "unknown").in(1)})), 1,
                     &answer));
      failpoint::arm("sync_data=eio@1", nullptr);
      CHECK(c.store->flush_step());
      disarm();
      const Answer failed = c.wait(1);
      CHECK_EQ(failed.code(), Code::flush_failed);
      CHECK(failed.header().flags & kAnswerCommitted);
      // The next fdatasync would say success without the pages: it is not asked.
      CHECK(!c.store->flush_step());
      CHECK(c.store->checkpoint_step() != 0);
      for (const char* name : {"demo", "other", "order", "mixed"}) {
        check::context = name;
        CHECK_EQ(c.write(name, 0, "x"), Code::region_faulted);
        CHECK(!c.info(name).fault.empty());
      }
      check::context.clear();
      CHECK_EQ(c.store->flush(""), Code::flush_failed);
      CHECK_EQ(c.create("more", kSize, Durability::fast), Code::flush_failed);
      CHECK_EQ(c.remove("other"), Code::flush_failed);
      // What was applied is read; what was answered and never will be applied is neither hidden nor shown.
      CHECK_EQ(c.read("other", 0, 3), std::string("old"));
      CHECK_EQ(c.read("demo", 4096, 3), std::string("old"));
      CHECK_EQ(c.read("order", 0, 4), std::string("!region_faulted"));
      CHECK_EQ(c.run(parts_of({"demo"}, {read_op(0, 3)})).code(), Code::region_faulted);
      // A fast region asks nothing of the disk.
      CHECK_EQ(c.write("quick", 0, "quick"), Code::ok);
      CHECK_EQ(c.read("quick", 0, 5), std::string("quick"));
    });
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::B);
    CHECK(c.recovery().faulted.empty());
    CHECK_EQ(c.read("order", 0, 4), std::string("said"));
    CHECK_EQ(c.read("demo", 0, 7), std::string("unknown"));
    CHECK_EQ(c.read("mixed", 0, 7), std::string("unknown"));
    CHECK_EQ(c.read("quick", 0, 5), std::string("quick"));
    CHECK_EQ(c.write("demo", 0, "x"), Code::ok);
  });

  check::test("a data file that can't be made durable faults its region, which keeps its records", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::ordered);
    CHECK_EQ(c.store->checkpoint_step(), 0);
    for (const char* name : {"demo", "other"}) CHECK_EQ(c.write(name, 4094, "last"), Code::ok);
    c.store->flush_step();
    failpoint::arm("sync_data=eio@1", nullptr);  // the regions come in the order of their names
    CHECK_EQ(c.store->checkpoint_step(), 0);
    disarm();
    CHECK(!c.info("demo").fault.empty());
    CHECK(c.info("other").fault.empty());
    CHECK_EQ(c.write("demo", 0, "x"), Code::region_faulted);
    CHECK_EQ(c.write("other", 0, "x"), Code::ok);
    CHECK(std::filesystem::exists(lives.path("regions/demo/redo")));
    lives.close();
    // As if the kernel had dropped the page that it could not write.
    patch_file(lives.path("regions/demo/data"), 4094, "\0\0\0\0", 4);
    Client& again = lives.open();
    CHECK(again.recovery().faulted.empty());
    CHECK_EQ(again.read("demo", 4094, 4), std::string("last"));
  });

  check::test("a fast region whose sync failed long ago does not hold the journal's words back", [] {
    // It took nothing since: with no record to save, its redo file was never said to be complete, and `applied` stayed
    // behind the checkpoint, which the next start took for corruption.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      make_two(c, Durability::fast);
      CHECK_EQ(c.store->checkpoint_step(), 0);
      failpoint::arm("sync_data=eio@1", nullptr);
      CHECK_EQ(c.store->flush("demo"), Code::flush_failed);
      disarm();
      for (int i = 0; i < 3; i++) {
        CHECK_EQ(c.write("other", 0, "x"), Code::ok);
        CHECK_EQ(c.store->checkpoint_step(), 0);
      }
      CHECK_EQ(c.write("other", 0, "y"), Code::ok);
    });
    CHECK(lives.open().recovery().row != RecoveryRow::C);
  });

  check::test("a checkpoint that can't be written frees nothing and loses nothing", [] {
    for (const char* point : {"write_synced=eio", "write_synced=enospc"}) {
      check::context = point;
      Lives lives;
      lives.options.threads = false;
      Client& c = lives.open();
      make_two(c, Durability::ordered);
      failpoint::arm(point, nullptr);
      const uint64_t used = c.store->status().journal_used_bytes;
      CHECK(c.store->checkpoint_step() != 0);
      CHECK_EQ(c.store->status().journal_used_bytes, used);
      CHECK_EQ(c.write("demo", 0, "new"), Code::ok);
      // The ring fills: batches are refused, none is half there.
      Code code = Code::ok;
      int written = 0;
      for (; written < 100 && code == Code::ok; written++) code = c.write("other", 0, std::string(8000, 'x'));
      CHECK_EQ(code, Code::overloaded);
      disarm();
      CHECK_EQ(c.write("other", 0, "after"), Code::ok);
      CHECK_EQ(c.read("demo", 0, 3), std::string("new"));
      lives.close();
      CHECK_EQ(lives.open().read("other", 0, 6), std::string("afterx"));
    }
  });

  check::test("a full ring makes a batch wait for its checkpoint, and then refuses it", [] {
    Lives lives;
    lives.options.full_wait_ms_max = 50;
    lives.options.journal_bytes = 64 << 10;
    Lives::in_process([&] {
      // Each checkpoint takes longer than anybody waits.
      failpoint::arm("checkpoint_data_synced=sleep:400", nullptr);
      Client& c = lives.open();
      make_two(c, Durability::fast);
      int overloaded = 0, would_block = 0;
      for (int i = 0; i < 40; i++) {
        Bytes answer;
        const Bytes frame = make_frame(parts_of({"demo"}, {write_op(0, std::string(8000, 'x'))}));
        if (c.store->commit(frame, Store::Patience::never_block, 1, &answer) != Store::Progress::would_block) continue;
        would_block++;
        const Code code = c.run(frame).code();
        CHECK(code == Code::ok || code == Code::overloaded);
        if (code == Code::overloaded) overloaded++;
      }
      CHECK(would_block > 0);
      CHECK(overloaded > 0);
      lives.close();
    });
    CHECK_EQ(lives.open().write("demo", 0, "x"), Code::ok);
  });
}

void full_disks() {
  check::test("a full disk refuses a creation, and leaves nothing of it", [] {
    Lives lives;
    lives.options.threads = false;  // fail points are changed while no thread can meet one
    Client& c = lives.open();
    for (const char* point : {"allocate=enospc@1", "allocate=enospc@2"}) {
      check::context = point;
      failpoint::arm(point, nullptr);
      CHECK_EQ(c.create("demo", kSize, Durability::durable), Code::insufficient_storage);
      disarm();
      CHECK(c.store->names().empty());
      for (const auto& entry : std::filesystem::directory_iterator(lives.options.directory))
        CHECK(!entry.path().filename().string().starts_with(".new-"));
    }
    CHECK_EQ(c.create("demo", kSize, Durability::durable), Code::ok);
  });

  check::test("a full disk refuses growth, and the region is as it was", [] {
    Lives lives;
    lives.options.threads = false;  // fail points are changed while no thread can meet one
    Client& c = lives.open();
    make_two(c, Durability::durable);
    const uint64_t generation = c.info("demo").generation;
    failpoint::arm("allocate=enospc", nullptr);
    CHECK_EQ(c.resize("demo", 4 * kSize), Code::insufficient_storage);
    disarm();
    CHECK_EQ(c.info("demo").meta.size, kSize);
    CHECK_EQ(c.info("demo").meta.meta_generation, 1u);
    CHECK_EQ(c.info("demo").generation, generation);
    CHECK_EQ(std::filesystem::file_size(lives.path("regions/demo/data")), kSize);
    CHECK_EQ(c.write("demo", kSize - 3, "end"), Code::ok);
    CHECK_EQ(c.resize("demo", 2 * kSize), Code::ok);
  });

  check::test("a full disk under a hole of a sparse region refuses the batch, with nothing written", [] {
    Lives lives;
    lives.options.threads = false;  // fail points are changed while no thread can meet one
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 1 << 20, Durability::ordered, kMetaSparse), Code::ok);
    const uint64_t committed = c.store->status().committed;
    failpoint::arm("allocate=enospc", nullptr);
    CHECK_EQ(c.write("demo", 500000, "x"), Code::insufficient_storage);
    disarm();
    CHECK_EQ(c.store->status().committed, committed);
    CHECK(c.info("demo").fault.empty());
    CHECK_EQ(c.write("demo", 500000, "x"), Code::ok);
  });

  check::test("a change that was committed and can't be finished is finished by the next start", [] {
    // The checkpoint went past it, or its files were cleaned up: it was in the journal and then nowhere.
    struct Case {
      const char* point;
      std::function<Code(Client&)> change;
      std::function<bool(Client&)> done;
    };
    const Case cases[] = {
        {"rename=eio@1", [](Client& c) { return c.create("made", kSize, Durability::ordered); },
         [](Client& c) { return c.info("made").meta.size == kSize && c.write("made", 9, "x") == Code::ok; }},
        {"replace=eio@1", [](Client& c) { return c.resize("demo", 2 * kSize); },
         [](Client& c) {
           return c.info("demo").meta.size == 2 * kSize && c.write("demo", 2 * kSize - 1, "x") == Code::ok;
         }},
        {"replace=eio@1", [](Client& c) { return c.resize("demo", 100); },
         [](Client& c) { return c.info("demo").meta.size == 100 && c.read("demo", 0, 3) == "old"; }},
        {"rename=eio@1", [](Client& c) { return c.remove("demo"); }, [](Client& c) { return !c.store->info("demo"); }},
    };
    for (const Case& one : cases) {
      for (const bool killed : {false, true}) {
        check::context = std::string(one.point) + (killed ? ", killed" : ", closed");
        Lives lives;
        lives.options.threads = false;
        const auto life = [&](Client& c) {
          make_two(c, Durability::ordered);
          failpoint::arm(one.point, nullptr);
          CHECK_EQ(one.change(c), Code::io_error);
          CHECK(c.detail.find("next start") != std::string::npos);
          disarm();
          CHECK_EQ(c.create("more", kSize, Durability::fast), Code::io_error);
          CHECK_EQ(c.write("other", 1, "goes on"), Code::ok);
          c.store->flush_step();
          CHECK_EQ(c.store->checkpoint_step(), 0);
          CHECK_EQ(c.read("other", 1, 7), std::string("goes on"));
        };
        if (killed) {
          lives.killed_after(life);
        } else {
          life(lives.open());
          lives.close(Ended::killed);
        }
        Client& c = lives.open();
        CHECK(one.done(c));
        CHECK_EQ(c.read("other", 1, 7), std::string("goes on"));
        CHECK_EQ(c.create("more", kSize, Durability::fast), Code::ok);
      }
    }
  });
}

#endif

}  // namespace

int main() {
  truncated();
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
  failing_syncs();
  full_disks();
#endif
  return check::done();
}
