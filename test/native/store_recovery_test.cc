// store_recovery_test.cc - what an opening makes of what the last process left: each row of recovery.h's table, journals
// with wrong bytes, and kills in the middle of changes of regions.
#include <sys/mman.h>

#include <atomic>

#include "../../native/crc32c.h"
#include "../../native/failpoint.h"
#include "../../native/holdfast.h"
#include "../../native/store.h"
#include "stores.h"

using namespace holdfast;
using namespace holdfast::frames;
using namespace holdfast::stores;

namespace {

void make_three(Client& c) {
  CHECK_EQ(c.create("fast", 64 << 10, Durability::fast), Code::ok);
  CHECK_EQ(c.create("ordered", 64 << 10, Durability::ordered), Code::ok);
  CHECK_EQ(c.create("durable", 64 << 10, Durability::durable), Code::ok);
}
void write_three(Client& c, const std::string& text) {
  for (const char* name : {"fast", "ordered", "durable"}) CHECK_EQ(c.write(name, 4090, text), Code::ok);
}
void check_three(Client& c, const std::string& text, uint64_t generation) {
  for (const char* name : {"fast", "ordered", "durable"}) {
    CHECK_EQ(c.read(name, 4090, text.size()), text);
    CHECK_EQ(c.info(name).generation, generation);
    CHECK(c.info(name).fault.empty());
  }
}

StoreWords words_of(const Lives& lives) {
  StoreWords words;
  memcpy(&words, file_bytes(lives.path("store.lock")).data(), sizeof words);
  return words;
}

// Where the ring of a small store's journal begins.
uint64_t ring_offset(const Lives& lives) {
  return std::filesystem::file_size(lives.path("journal")) - lives.options.journal_bytes;
}

// The file offset of the chain's n-th record of this pass.
uint64_t record_offset(const Lives& lives, int n) {
  const Bytes journal = file_bytes(lives.path("journal"));
  uint64_t at = ring_offset(lives);
  for (; n > 0; n--) at += reinterpret_cast<const RecordHeader*>(&journal[at])->total_bytes;
  return at;
}

void rows() {
  check::test("A: after an orderly end, and after a kill with nothing under way, every word holds", [] {
    Lives lives;
    make_three(lives.open());
    lives.close();
    lives.killed_after([](Client& c) {
      CHECK_EQ(c.recovery().row, RecoveryRow::A);
      write_three(c, "hello");
      c.store->flush("");
    });
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::A);
    CHECK_EQ(c.recovery().redone, 0u);
    check_three(c, "hello", 1);
  });

  check::test("A: what a fast region took since the last checkpoint is not called durable after a kill", [] {
    // It is in the page cache and nowhere else: this restart has synced neither its data nor its records.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      make_three(c);
      CHECK_EQ(c.write("fast", 0, "one"), Code::ok);
      CHECK_EQ(c.store->checkpoint_step(), 0);
      CHECK_EQ(c.write("fast", 0, "two"), Code::ok);
    });
    Client& c = lives.open();
    CHECK_EQ(c.info("fast").generation, 2u);
    CHECK_EQ(c.info("fast").durable_generation, 0u);
    CHECK_EQ(c.store->flush("fast"), Code::ok);
    CHECK_EQ(c.info("fast").durable_generation, 2u);
  });

  check::test("B: committed batches that were not applied are redone, with their outcomes", [] {
    Lives lives;
    lives.options.flush_interval_ms = 100000;
    const Bytes frame = keyed(parts_of({"ordered"}, {add_op(0, ValueType::u64, 3)}), 1);
    lives.killed_after([&](Client& c) {
      make_three(c);
      CHECK_EQ(c.run(frame).code(), Code::ok);
      CHECK_EQ(c.write("ordered", 8, "second"), Code::ok);
      CHECK_EQ(c.write("fast", 8, "ahead"), Code::ok);
    });
    CHECK(words_of(lives).applied < words_of(lives).committed);
    CHECK_EQ(file_bytes(lives.path("regions/ordered/data"))[0], 0);
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::B);
    CHECK_EQ(c.recovery().redone, 3u);
    CHECK(c.recovery().unverified.empty());
    CHECK_EQ(c.read("ordered", 8, 6), std::string("second"));
    CHECK_EQ(c.read("fast", 8, 5), std::string("ahead"));
    CHECK(c.run(frame).replayed());
    CHECK_EQ(c.read("ordered", 0, 1), std::string("\x03"));
    CHECK_EQ(c.info("ordered").generation, 2u);
    CHECK_EQ(c.info("ordered").durable_generation, 2u);
  });

  check::test("C: a record that is broken below the commit point faults the regions, and goes on doing so", [] {
    Lives lives;
    lives.options.flush_interval_ms = 100000;
    lives.killed_after([](Client& c) {
      make_three(c);
      for (int i = 0; i < 3; i++) CHECK_EQ(c.write("ordered", 0, "record " + std::to_string(i)), Code::ok);
    });
    // Three creations precede; the second of the three batches loses a bit.
    const uint64_t at = record_offset(lives, 4) + 100;
    const uint8_t flipped = file_bytes(lives.path("journal"))[at] ^ 1;
    const Bytes before = file_bytes(lives.path("journal"));
    patch_file(lives.path("journal"), at, &flipped, 1);
    const uint64_t committed = words_of(lives).committed;
    for (int life = 0; life < 2; life++) {
      check::context = "life " + std::to_string(life);
      Client& c = lives.open();
      if (life == 0) CHECK_EQ(c.recovery().row, RecoveryRow::C);
      CHECK_EQ(c.recovery().faulted.size(), 3u);
      CHECK_EQ(c.write("ordered", 0, "x"), Code::region_faulted);
      CHECK_EQ(c.write("fast", 0, "x"), Code::region_faulted);
      CHECK(c.store->status().committed >= committed);
      // What is made from now on is sound.
      const std::string name = "new" + std::to_string(life);
      CHECK_EQ(c.create(name, 4096, Durability::ordered), Code::ok);
      CHECK_EQ(c.write(name, 0, "x"), Code::ok);
      lives.close();
    }
    CHECK_EQ(file_bytes(lives.path("journal.corrupt")).size(), before.size());
    // A person looks, says that a region is fine, and removes the evidence.
    MetaChange verified;
    verified.verified = true;
    CHECK_EQ(lives.open().update("ordered", verified), Code::ok);
    lives.close();
    CHECK_EQ(lives.open().write("ordered", 0, "x"), Code::ok);
    CHECK_EQ(lives.open().write("new0", 0, "x"), Code::ok);
    lives.close();
    std::filesystem::remove(lives.path("journal.corrupt"));
    CHECK_EQ(lives.open().write("fast", 0, "x"), Code::ok);
  });

  check::test("C: each corrupt journal is kept, the second one as well", [] {
    // The first one's name was taken: the second was said to be kept, and was not.
    Lives lives;
    Bytes kept[2];
    for (Bytes& journal : kept) {
      lives.killed_after([](Client& c) {
        if (c.store->names().empty()) make_three(c);
      });
      StoreWords words = words_of(lives);
      words.applied = words.committed + 1;
      patch_file(lives.path("store.lock"), 0, &words, sizeof words);
      journal = file_bytes(lives.path("journal"));
      Client& c = lives.open();
      CHECK_EQ(c.recovery().row, RecoveryRow::C);
      lives.close();
    }
    CHECK(file_bytes(lives.path("journal.corrupt")) == kept[0]);
    CHECK(file_bytes(lives.path("journal.corrupt-2")) == kept[1]);
    // Either one keeps the doubt alive.
    std::filesystem::remove(lives.path("journal.corrupt"));
    CHECK_EQ(lives.open().recovery().faulted.size(), 3u);
    lives.close();
    std::filesystem::remove(lives.path("journal.corrupt-2"));
    CHECK(lives.open().recovery().faulted.empty());
  });

  check::test("C: a store with more regions than its next journal was to have room for opens again", [] {
    // The table of regions went beyond its slot, which was no checkpoint then.
    Lives lives;
    lives.killed_after(make_three);
    StoreWords words = words_of(lives);
    words.applied = words.committed + 1;
    patch_file(lives.path("store.lock"), 0, &words, sizeof words);
    lives.options.regions_max = 2;
    CHECK_EQ(lives.open().recovery().row, RecoveryRow::C);
    lives.close();
    CHECK_EQ(lives.open().store->names().size(), 3u);
  });

  check::test("C: counts that contradict each other are corruption, too", [] {
    Lives lives;
    lives.killed_after([](Client& c) {
      make_three(c);
      write_three(c, "hello");
    });
    StoreWords words = words_of(lives);
    words.applied = words.committed + 1;
    patch_file(lives.path("store.lock"), 0, &words, sizeof words);
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::C);
    CHECK_EQ(c.recovery().faulted.size(), 3u);
  });

  for (const bool used_again : {true, false}) {
    check::test(
        used_again ? "C: a newer checkpoint that is damaged, over a ring that was used again, is told after a restart"
                   : "F: a newer checkpoint that is damaged costs nothing while the older one's chain is whole",
        [used_again] {
          // The older checkpoint's chain was taken for all there is: an older state, and no word of it.
          Lives lives;
          lives.options.threads = false;
          lives.options.journal_bytes = 64 << 10;
          const uint64_t batches = used_again ? 12 : 7;
          lives.killed_after([&](Client& c) {
            CHECK_EQ(c.create("demo", 64 << 10, Durability::durable), Code::ok);
            for (uint64_t n = 1; n <= batches; n++) {
              const std::string text = "batch " + std::to_string(n);
              CHECK_EQ(
                  c.run(parts_of({"demo"}, {write_op(0, text + std::string(8000, 'x')), write_op(60000, text)})).code(),
                  Code::ok);
              if (n == 3 || n == 6) CHECK_EQ(c.store->checkpoint_step(), 0);
            }
          });
          const Bytes journal = file_bytes(lives.path("journal"));
          const uint64_t slot_bytes = checkpoint_slot_bytes(lives.options.regions_max);
          CheckpointHeader slots[2];
          for (int i = 0; i < 2; i++) memcpy(&slots[i], &journal[kPageBytes + i * slot_bytes], sizeof slots[i]);
          const int newest = slots[0].sequence > slots[1].sequence ? 0 : 1;
          const uint8_t wrong = journal[kPageBytes + newest * slot_bytes + 40] ^ 1;
          patch_file(lives.path("journal"), kPageBytes + newest * slot_bytes + 40, &wrong, 1);
          lives.other_boot();
          Client& c = lives.open();
          if (!used_again) {
            CHECK_EQ(c.recovery().row, RecoveryRow::F);
            CHECK(c.recovery().faulted.empty());
            CHECK_EQ(c.info("demo").generation, batches);
            CHECK_EQ(c.read("demo", 60000, 7), "batch " + std::to_string(batches));
            return;
          }
          CHECK_EQ(c.recovery().row, RecoveryRow::C);
          CHECK_EQ(c.recovery().faulted.size(), 1u);
          CHECK(c.recovery().detail.find("checkpoint is damaged") != std::string::npos);
          CHECK_EQ(c.write("demo", 0, "x"), Code::region_faulted);
          CHECK_EQ(file_bytes(lives.path("journal.corrupt")).size(), journal.size());
          // The data file is as it was found; no generation that anybody has seen comes again for other bytes.
          CHECK_EQ(c.read("demo", 60000, 8), "batch " + std::to_string(batches));
          MetaChange verified;
          verified.verified = true;
          CHECK_EQ(c.update("demo", verified), Code::ok);
          lives.close();
          CHECK_EQ(lives.open().write("demo", 0, "x"), Code::ok);
          CHECK(lives.open().info("demo").generation > batches);
        });
  }

  check::test("D: words of another chain are not believed, the whole chain is redone", [] {
    Lives lives;
    lives.options.flush_interval_ms = 100000;
    lives.killed_after([](Client& c) {
      make_three(c);
      write_three(c, "hello");
    });
    StoreWords words = words_of(lives);
    words.salt ^= 1;
    patch_file(lives.path("store.lock"), 0, &words, sizeof words);
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::D);
    CHECK(c.recovery().unverified.empty());
    check_three(c, "hello", 1);
  });

  check::test("E: an orderly end before another boot, or before a move, leaves nothing in doubt", [] {
    Lives lives;
    Client& c = lives.open();
    make_three(c);
    write_three(c, "hello");
    lives.close();
    lives.other_boot();
    Client& again = lives.open();
    CHECK_EQ(again.recovery().row, RecoveryRow::E);
    CHECK(again.recovery().clean && !again.recovery().same_boot && again.recovery().unverified.empty());
    check_three(again, "hello", 1);
    lives.close();
    const std::string moved = lives.directory / "moved";
    copy_directory(lives.options.directory, moved);
    lives.options.directory = moved;
    CHECK_EQ(lives.open().recovery().row, RecoveryRow::E);
  });

  check::test(
      "F: another boot without an orderly end redoes the chain; fast regions are unverified until a person clears them",
      [] {
        Lives lives;
        lives.options.flush_interval_ms = 100000;
        lives.killed_after([](Client& c) {
          make_three(c);
          write_three(c, "hello");
          CHECK_EQ(c.write("ordered", 4095, "!"), Code::ok);
        });
        lives.other_boot();
        for (int life = 0; life < 2; life++) {
          check::context = "life " + std::to_string(life);
          Client& c = lives.open();
          CHECK_EQ(c.recovery().row, life == 0 ? RecoveryRow::F : RecoveryRow::A);
          CHECK_EQ(c.recovery().unverified.size(), 1u);
          CHECK(c.info("fast").meta.flags & kMetaUnverified);
          CHECK(!(c.info("ordered").meta.flags & kMetaUnverified));
          CHECK_EQ(c.read("ordered", 4090, 6), std::string("hello!"));
          CHECK_EQ(c.info("ordered").generation, 2u);
          if (life == 1) {
            MetaChange verified;
            verified.verified = true;
            CHECK_EQ(c.update("fast", verified), Code::ok);
          }
          lives.close();
        }
        CHECK(lives.open().recovery().unverified.empty());
      });

  check::test("F: a start after an orderly end takes back what that end said of fast regions", [] {
    Lives lives;
    lives.options.flush_interval_ms = 100000;
    make_three(lives.open());
    lives.close();
    const Bytes before = file_bytes(lives.path("journal"));
    lives.killed_after([](Client& c) { CHECK_EQ(c.write("fast", 0, "late"), Code::ok); });
    // A power cut that came after its page was written back, and before its record was.
    const uint64_t ring = journal_ring_offset(lives.options.regions_max);
    patch_file(lives.path("journal"), ring, before.data() + ring, before.size() - ring);
    lives.other_boot();
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::F);
    CHECK(c.info("fast").meta.flags & kMetaUnverified);
  });

  check::test("F: of a chain that lost its end to a power cut, the whole beginning is taken", [] {
    Lives lives;
    lives.options.flush_interval_ms = 100000;
    lives.killed_after([](Client& c) {
      make_three(c);
      for (int i = 1; i <= 5; i++)
        CHECK_EQ(c.run(parts_of({"ordered"}, {add_op(0, ValueType::u64, 1), add_op(60000, ValueType::u64, 1)})).code(),
                 Code::ok);
    });
    // Of the fourth batch (after three creations) one sector never reached the disk; the fifth did.
    const Bytes nothing(64);
    patch_file(lives.path("journal"), record_offset(lives, 6) + 64, nothing.data(), nothing.size());
    lives.other_boot();
    Client& c = lives.open();
    CHECK_EQ(c.info("ordered").generation, 3u);
    CHECK_EQ(c.read("ordered", 0, 1), std::string("\x03"));
    CHECK_EQ(c.read("ordered", 60000, 1), std::string("\x03"));
    // The fifth record still lies there, whole: no later chain may run into it.
    for (int i = 0; i < 3; i++) CHECK_EQ(c.write("ordered", 100, "x"), Code::ok);
    CHECK_EQ(c.store->flush(""), Code::ok);
    CHECK_EQ(c.info("ordered").generation, 6u);
    lives.close();
    lives.other_boot();
    CHECK_EQ(lives.open().info("ordered").generation, 6u);
  });

  check::test("a journal that is missing beside regions is refused: their generations would begin anew", [] {
    Lives lives;
    make_three(lives.open());
    lives.close();
    std::filesystem::rename(lives.path("journal"), lives.directory / "journal");
    CHECK_EQ(lives.refused(), Code::store_corrupt);
    CHECK(lives.detail.find("journal") != std::string::npos);
    std::filesystem::rename(lives.directory / "journal", lives.path("journal"));
    CHECK_EQ(lives.open().store->names().size(), 3u);
  });
}

void names() {
  check::test("a region that replaced another of its name survives the redo of both lives", [] {
    // The redo of the first creation took the second one's files for its own, and the removal that followed unlinked
    // them.
    for (const bool other_boot : {false, true}) {
      check::context = other_boot ? "another boot" : "the same boot";
      Lives lives;
      lives.killed_after([](Client& c) {
        CHECK_EQ(c.create("demo", 4096, Durability::durable), Code::ok);
        CHECK_EQ(c.write("demo", 0, "first"), Code::ok);
        CHECK_EQ(c.remove("demo"), Code::ok);
        CHECK_EQ(c.create("demo", 8192, Durability::durable), Code::ok);
        CHECK_EQ(c.write("demo", 0, "second"), Code::ok);
      });
      if (other_boot) {
        lives.other_boot();
      } else {
        StoreWords words = words_of(lives);
        words.salt ^= 1;
        patch_file(lives.path("store.lock"), 0, &words, sizeof words);
      }
      Client& c = lives.open();
      CHECK_EQ(c.read("demo", 0, 6), std::string("second"));
      CHECK_EQ(c.info("demo").meta.size, 8192u);
      CHECK_EQ(c.info("demo").generation, 1u);
      CHECK_EQ(c.write("demo", 8000, "third"), Code::ok);
      lives.close();
      CHECK_EQ(lives.open().read("demo", 8000, 5), std::string("third"));
    }
  });

  check::test("a change that was staged and never published leaves nothing behind", [] {
    // Its meta.new stayed for ever, and so did the blocks that it had allocated behind the region.
    for (const bool same_boot : {true, false}) {
      Lives lives;
      lives.killed_after([](Client& c) { CHECK_EQ(c.create("demo", 4096, Durability::durable), Code::ok); });
      make_file(lives.path("regions/demo/meta.new"), file_bytes(lives.path("regions/demo/meta")));
      std::filesystem::resize_file(lives.path("regions/demo/data"), 9000);
      if (!same_boot) lives.other_boot();
      lives.open();
      CHECK(!std::filesystem::exists(lives.path("regions/demo/meta.new")));
      CHECK_EQ(std::filesystem::file_size(lives.path("regions/demo/data")), 4096u);
    }
  });

  check::test("the redo of a change leaves the rest of an adopted file alone, and so does growth", [] {
    // A redone change of labels cut the file to the region's size.
    Lives lives;
    const std::string path = lives.directory / "mine";
    make_file(path, Bytes(20000, 'm'));
    lives.killed_after([&](Client& c) {
      CHECK_EQ(c.create("mine", 8192, Durability::durable, kMetaAdopted, path), Code::ok);
      MetaChange change;
      change.labels = R"({"a":"b"})";
      CHECK_EQ(c.update("mine", change), Code::ok);
    });
    lives.other_boot();
    Client& c = lives.open();
    CHECK_EQ(file_bytes(path).size(), 20000u);
    CHECK_EQ(c.resize("mine", 12000), Code::ok);
    CHECK_EQ(file_bytes(path).size(), 20000u);
    CHECK_EQ(c.read("mine", 11999, 1), std::string("m"));
    CHECK_EQ(c.resize("mine", 30000), Code::ok);
    CHECK_EQ(file_bytes(path).size(), 30000u);
    CHECK_EQ(c.resize("mine", 100), Code::ok);
    CHECK_EQ(file_bytes(path).size(), 100u);
  });

  check::test("an adopted file that is gone faults its region alone, and what waits for it is kept", [] {
    Lives lives;
    lives.options.flush_interval_ms = 100000;
    const std::string path = lives.directory / "mine";
    make_file(path, Bytes(8192, 'm'));
    lives.killed_after([&](Client& c) {
      CHECK_EQ(c.create("mine", 8192, Durability::ordered, kMetaAdopted, path), Code::ok);
      CHECK_EQ(c.create("other", 8192, Durability::ordered), Code::ok);
      CHECK_EQ(c.write("mine", 4090, "promised"), Code::ok);
      CHECK_EQ(c.write("other", 4090, "promised"), Code::ok);
    });
    std::filesystem::rename(path, path + ".away");
    for (int life = 0; life < 2; life++) {
      check::context = "life " + std::to_string(life);
      Client& c = lives.open();
      CHECK_EQ(c.recovery().faulted.size(), 1u);
      CHECK(c.info("mine").fault.find(path) != std::string::npos);
      CHECK_EQ(c.write("mine", 0, "x"), Code::region_faulted);
      CHECK_EQ(c.run(parts_of({"mine"}, {read_op(0, 4)})).code(), Code::region_faulted);
      CHECK_EQ(c.read("mine", 0, 1), std::string("!region_faulted"));
      CHECK_EQ(c.read("other", 4090, 8), std::string("promised"));
      CHECK_EQ(c.write("other", 0, "x"), Code::ok);
      lives.close();
    }
    std::filesystem::rename(path + ".away", path);
    Client& c = lives.open();
    CHECK(c.recovery().faulted.empty());
    CHECK_EQ(c.read("mine", 4090, 8), std::string("promised"));
    CHECK_EQ(c.info("mine").generation, 1u);
    CHECK_EQ(c.write("mine", 0, "x"), Code::ok);
  });

  check::test("a store keeps to the number of regions that its journal has room for", [] {
    // With a faulted region the journal keeps its size, and a slot that names more regions than it may is no slot.
    Lives lives;
    lives.options.regions_max = 2;
    const std::string path = lives.directory / "mine";
    make_file(path, Bytes(8192, 'm'));
    Client& c = lives.open();
    CHECK_EQ(c.create("mine", 8192, Durability::ordered, kMetaAdopted, path), Code::ok);
    lives.close();
    std::filesystem::rename(path, path + ".away");
    lives.options.regions_max = 16;
    Client& again = lives.open();
    CHECK_EQ(again.create("two", 64, Durability::fast), Code::ok);
    CHECK_EQ(again.create("three", 64, Durability::fast), Code::too_many_regions);
    lives.close();
    CHECK_EQ(lives.open().store->names().size(), 2u);
    lives.close();
    std::filesystem::rename(path + ".away", path);
    CHECK_EQ(lives.open().create("three", 64, Durability::fast), Code::ok);
  });
}

// ---- wrong bytes -------------------------------------------------------------------------------------------------

void wrong_bytes() {
  check::test("a checkpoint at a position that no journal reaches is no checkpoint, whatever its checksum says", [] {
    // Sums of positions wrapped, and recovery went round the ring for ever.
    Lives lives;
    lives.killed_after([](Client& c) { CHECK_EQ(c.create("demo", 4096, Durability::fast), Code::ok); });
    lives.other_boot();
    const Bytes journal = file_bytes(lives.path("journal"));
    const uint64_t slot_bytes = checkpoint_slot_bytes(lives.options.regions_max);
    for (uint64_t at = kPageBytes; at < kPageBytes + 2 * slot_bytes; at += slot_bytes) {
      CheckpointHeader header;
      memcpy(&header, journal.data() + at, sizeof header);
      const uint64_t table = header.region_count * sizeof(CheckpointRegion);
      header.ring_position = UINT64_MAX / kRecordAlign * kRecordAlign;
      header.crc = 0;
      header.crc = crc32c(crc32c(0, &header, sizeof header), journal.data() + at + sizeof header, table);
      patch_file(lives.path("journal"), at, &header, sizeof header);
    }
    CHECK_EQ(lives.refused(), Code::store_corrupt);
  });
  for (const bool other_boot : {false, true}) {
    check::test(
        other_boot
            ? "bytes of a journal, each with a flipped bit, after a power cut: a state that was, or a refusal"
            : "bytes of a journal, each with a flipped bit, after a kill: the last state, or a fault, or a refusal",
        [other_boot] {
          Lives lives;
          lives.options.batch.batch_bytes_max = 1024;
          lives.options.journal_bytes = 4096;
          lives.options.flush_interval_ms = 100000;
          lives.options.regions_max = 4;
          constexpr int kBatches = 4;
          lives.killed_after([](Client& c) {
            CHECK_EQ(c.create("demo", 512, Durability::ordered), Code::ok);
            for (int i = 1; i <= kBatches; i++)
              CHECK_EQ(c.run(keyed(parts_of({"demo"}, {add_op(0, ValueType::u64, 1), add_op(504, ValueType::u64, 1)}),
                                   static_cast<uint8_t>(i)))
                           .code(),
                       Code::ok);
          });
          if (other_boot) lives.other_boot();
          const std::string copy = std::string("/dev/shm/holdfast-flip-") + std::to_string(getpid());
          const Bytes journal = file_bytes(lives.path("journal"));
          int flipped = 0, refused = 0, faulted = 0, fewer = 0;
          for (size_t at = 0; at < journal.size(); at++) {
            // Between the slots and the ring lies nothing; of zeros elsewhere, one in each 64 stands for them.
            if (at >= kPageBytes + 2 * checkpoint_slot_bytes(lives.options.regions_max) && at < ring_offset(lives))
              continue;
            if (journal[at] == 0 && at % 64 != 5) continue;
            check::context = "byte " + std::to_string(at);
            flipped++;
            std::filesystem::remove_all(copy);
            copy_directory(lives.options.directory, copy);
            const uint8_t wrong = journal[at] ^ static_cast<uint8_t>(1 << (at % 8));
            patch_file(copy + "/journal", at, &wrong, 1);
            StoreOptions options = lives.options;
            options.directory = copy;
            options.threads = false;
            options.assume_same_files = true;
            Client c(options);
            if (c.code != Code::ok) {
              CHECK_EQ(c.code, Code::store_corrupt);
              refused++;
              continue;
            }
            // The file, not the mapping: what the next program would see.
            const RegionInfo info = c.info("demo");
            const Bytes data = file_bytes(copy + "/regions/demo/data");
            if (c.store->names().empty()) {
              // Its creation is the broken record: then nothing after it counts, and the directory is no region's.
              CHECK(at >= ring_offset(lives));
              fewer++;
              continue;
            }
            if (!info.fault.empty()) {
              // After a power cut, the ring's end is no news; that a checkpoint was there is.
              CHECK(!other_boot || at < ring_offset(lives));
              CHECK_EQ(c.write("demo", 0, "x"), Code::region_faulted);
              faulted++;
              continue;
            }
            CHECK_EQ(data[0], data[504]);
            CHECK_EQ(data[0], info.generation);
            if (info.generation < kBatches) fewer++;
            if (at < ring_offset(lives)) CHECK_EQ(info.generation, static_cast<uint64_t>(kBatches));
            if (!other_boot) CHECK_EQ(info.generation, static_cast<uint64_t>(kBatches));
            // A retry of each batch lands exactly once.
            for (int i = 1; i <= kBatches; i++)
              CHECK_EQ(c.run(keyed(parts_of({"demo"}, {add_op(0, ValueType::u64, 1), add_op(504, ValueType::u64, 1)}),
                                   static_cast<uint8_t>(i)))
                           .code(),
                       Code::ok);
            CHECK_EQ(c.info("demo").generation, static_cast<uint64_t>(kBatches));
            CHECK_EQ(c.read("demo", 504, 1), std::string(1, static_cast<char>(kBatches)));
          }
          std::filesystem::remove_all(copy);
          CHECK(refused > 0);
          CHECK(other_boot ? fewer > 0 : faulted > 0);
          printf("# %d bytes flipped: %d refused, %d faulted, %d with fewer batches\n", flipped, refused, faulted,
                 fewer);
        });
  }

  check::test("a record whose parts go beyond its end is not valid, whatever its checksum", [] {
    // The length of an image was believed: recovery read beyond the ring.
    for (const uint32_t length : {4096u, UINT32_MAX}) {
      Lives lives;
      lives.options.flush_interval_ms = 100000;
      lives.killed_after([](Client& c) {
        CHECK_EQ(c.create("demo", 512, Durability::ordered), Code::ok);
        CHECK_EQ(c.write("demo", 0, "hello"), Code::ok);
      });
      lives.other_boot();
      Bytes journal = file_bytes(lives.path("journal"));
      const uint64_t created = record_offset(lives, 0), at = record_offset(lives, 1);
      auto* record = reinterpret_cast<RecordHeader*>(&journal[at]);
      CHECK_EQ(record->image_count, 1u);
      const uint64_t image = at + sizeof *record + record->region_count * sizeof(RecordRegion);
      reinterpret_cast<ImageHeader*>(&journal[image])->length = length;
      record->crc = record_crc(*record, reinterpret_cast<const RecordHeader*>(&journal[created])->crc);
      patch_file(lives.path("journal"), at, record, record->total_bytes);
      Client& c = lives.open();
      CHECK_EQ(c.recovery().row, RecoveryRow::F);
      CHECK_EQ(c.info("demo").generation, 0u);
      CHECK_EQ(c.read("demo", 0, 5), std::string(5, '\0'));
    }
  });

  check::test("a journal whose header tells of a larger ring than the file has is refused", [] {
    Lives lives;
    make_three(lives.open());
    lives.close();
    JournalHeader header;
    memcpy(&header, file_bytes(lives.path("journal")).data(), sizeof header);
    // Added to where the ring starts it came round to a small number.
    header.ring_bytes = uint64_t{0} - kPageBytes;
    header.crc = 0;
    header.crc = crc32c(0, &header, sizeof header);
    patch_file(lives.path("journal"), 0, &header, sizeof header);
    CHECK_EQ(lives.refused(), Code::store_corrupt);
  });

  check::test("a meta file that does not decode is refused, and told by name", [] {
    Lives lives;
    make_three(lives.open());
    lives.close();
    const uint8_t wrong = 0xff;
    patch_file(lives.path("regions/ordered/meta"), 30, &wrong, 1);
    CHECK_EQ(lives.refused(), Code::store_corrupt);
    CHECK(lives.detail.find("ordered/meta") != std::string::npos);
  });

  check::test("a data file that is too short faults its region alone", [] {
    Lives lives;
    Client& c = lives.open();
    make_three(c);
    write_three(c, "hello");
    lives.close();
    CHECK_EQ(truncate(lives.path("regions/ordered/data").c_str(), 100), 0);
    Client& again = lives.open();
    CHECK_EQ(again.recovery().faulted.size(), 1u);
    CHECK_EQ(again.write("ordered", 0, "x"), Code::region_faulted);
    CHECK_EQ(again.write("fast", 0, "x"), Code::ok);
    CHECK_EQ(again.read("durable", 4090, 5), std::string("hello"));
  });
}

// ---- kills at marked places --------------------------------------------------------------------------------------

#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG

// What the steps below have done so far, as a reader would see it. A step changes it as a whole.
struct World {
  std::string a = "-", b = "-", size = "-", labels = "-";  // "-": no such region
  bool operator==(const World&) const = default;
};

struct Step {
  std::function<void(Client&)> run;
  std::function<void(World&)> does;
};

std::vector<Step> steps() {
  const auto both = [](const std::string& text) {
    return Step{
        [=](Client& c) {
          CHECK_EQ(c.run(parts_of({"a", "b"}, {write_op(4093, text), write_op(1, text).in(1)})).code(), Code::ok);
        },
        [=](World& w) { w.a = w.b = text; }};
  };
  const auto checkpoint = Step{[](Client& c) { CHECK_EQ(c.store->checkpoint_step(), 0); }, [](World&) {}};
  return {
      {[](Client& c) { CHECK_EQ(c.create("a", 8192, Durability::fast), Code::ok); },
       [](World& w) { w.a = std::string(6, '\0'), w.size = "8192", w.labels = "{}"; }},
      {[](Client& c) { CHECK_EQ(c.create("b", 4096, Durability::ordered), Code::ok); },
       [](World& w) { w.b = std::string(6, '\0'); }},
      both("first!"),
      both("second"),
      {[](Client& c) { CHECK_EQ(c.resize("a", 16384), Code::ok); }, [](World& w) { w.size = "16384"; }},
      both("third!"),
      checkpoint,
      {[](Client& c) { CHECK_EQ(c.write("a", 4093, "fourth"), Code::ok); }, [](World& w) { w.a = "fourth"; }},
      {[](Client& c) {
         MetaChange change;
         change.labels = R"({"l":"5"})";
         CHECK_EQ(c.update("a", change), Code::ok);
       },
       [](World& w) { w.labels = R"({"l":"5"})"; }},
      {[](Client& c) { CHECK_EQ(c.resize("a", 4095), Code::ok); }, [](World& w) { w.size = "4095", w.a = "fo"; }},
      {[](Client& c) { CHECK_EQ(c.resize("a", 8192), Code::ok); },
       [](World& w) { w.size = "8192", w.a = std::string("fo\0\0\0\0", 6); }},
      both("sixth!"),
      {[](Client& c) { CHECK_EQ(c.remove("b"), Code::ok); }, [](World& w) { w.b = "-"; }},
      {[](Client& c) { CHECK_EQ(c.create("b", 8192, Durability::ordered), Code::ok); },
       [](World& w) { w.b = std::string(6, '\0'); }},
      both("eighth"),
      checkpoint,
      both("ninth!"),
  };
}

World look(Client& c) {
  World world;
  if (c.store->info("a")) {
    const RegionInfo info = c.info("a");
    world.a = c.read("a", 4093, std::min<uint64_t>(6, info.meta.size - 4093));
    world.size = std::to_string(info.meta.size);
    world.labels = info.meta.labels;
  }
  if (c.store->info("b")) world.b = c.read("b", 1, 6);
  return world;
}

constexpr const char* kPoints[] = {
    "commit_written",     "commit_published", "apply_image",      "commit_left",
    "flush_before_sync",  "flush_synced",     "change_published", "change_synced",
    "create_renamed",     "meta_replaced",    "remove_renamed",   "checkpoint_data_synced",
    "checkpoint_written", "checkpoint_done",  "rename",           "replace",
    "lease_taken",        "journal_made",     "recovery_done"};
constexpr const char* kRecoveryPoints[] = {
    "recovery_journal_synced", "recovery_record_redone", "recovery_checkpoint", "create_renamed",
    "meta_replaced",           "remove_renamed",         "apply_image"};

void kills() {
  std::vector<World> worlds = {World{}};
  for (const Step& step : steps()) {
    World next = worlds.back();
    step.does(next);
    worlds.push_back(next);
  }
  auto* done = static_cast<std::atomic<uint64_t>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

  for (const bool other_boot : {false, true}) {
    check::test(other_boot ? "a machine that stops at any marked place finds a whole state again"
                           : "a process that is killed at any marked place leaves a whole state",
                [&, other_boot] {
                  int kills = 0, twice = 0;
                  for (const char* point : kPoints) {
                    for (int hit = 1;; hit++) {
                      Lives lives("/dev/shm");  // hundreds of openings; what is tested is not the disk
                      lives.options.threads = false;
                      lives.options.flush_interval_ms = 1;
                      *done = 0;
                      const std::string armed = std::string(point) + "=kill@" + std::to_string(hit);
                      check::context = armed;
                      const auto life = [&](const std::string& points, uint64_t from) {
                        return Lives::in_process([&, from] {
                          failpoint::arm(points.c_str(), nullptr);
                          auto* c = new Client(lives.options);
                          if (c->code != Code::ok) _exit(90);
                          const std::vector<Step> all = steps();
                          for (uint64_t i = from; i < all.size(); i++) {
                            all[i].run(*c);
                            c->store->flush_step();
                            *done = i + 1;
                          }
                          c->store->close();
                        });
                      };
                      const int status = life(armed, 0);
                      if (WIFEXITED(status)) {
                        CHECK_EQ(WEXITSTATUS(status), 0);
                        break;  // the place was passed fewer times
                      }
                      kills++;
                      if (other_boot && *done > 0) lives.other_boot();
                      // Killed in the recovery as well, at a place that moves from case to case.
                      if (hit % 2 == 0) {
                        const std::string again =
                            std::string(kRecoveryPoints[(hit / 2 + point[0]) % std::size(kRecoveryPoints)]) + "=kill";
                        check::context += ", then " + again;
                        if (WIFSIGNALED(life(again, 1000))) twice++;
                      }
                      lives.check(Ended::killed);
                      Client& c = lives.open();
                      const World seen = look(c);
                      const uint64_t at = *done;
                      // A step that was under way is there or not; both are whole.
                      if (!CHECK(seen == worlds[at] || (at + 1 < worlds.size() && seen == worlds[at + 1])))
                        printf("# after %llu steps: a %s b %s size %s labels %s\n", static_cast<unsigned long long>(at),
                               seen.a.c_str(), seen.b.c_str(), seen.size.c_str(), seen.labels.c_str());
                      CHECK(c.recovery().faulted.empty());
                      if (!other_boot) CHECK(c.recovery().unverified.empty());
                      lives.close();
                    }
                  }
                  printf("# %d kills, %d of them with another one in the recovery\n", kills, twice);
                  CHECK(kills > 60);
                  CHECK(twice > 5);
                });
  }

  check::test("a record that was whole but not published at a kill is not there after a later power cut", [] {
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      CHECK_EQ(c.create("demo", 4096, Durability::ordered), Code::ok);
      CHECK_EQ(c.write("demo", 0, "first"), Code::ok);
      c.store->flush_step();
      failpoint::arm("commit_written=kill", nullptr);
      c.write("demo", 0, "never");
    });
    lives.killed_after([](Client& c) {
      CHECK_EQ(c.info("demo").generation, 1u);
      CHECK_EQ(c.read("demo", 0, 5), std::string("first"));
    });
    lives.other_boot();
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::F);
    CHECK_EQ(c.info("demo").generation, 1u);
    CHECK_EQ(c.read("demo", 0, 5), std::string("first"));
  });

  check::test("C: a kill after the new journal is there takes no generation back", [] {
    // It knew of no region: every generation began anew, and an entity tag matched bytes that it never stood for.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      make_three(c);
      for (int i = 0; i < 3; i++) write_three(c, "hello");
    });
    StoreWords words = words_of(lives);
    words.applied = words.committed + 1;
    patch_file(lives.path("store.lock"), 0, &words, sizeof words);
    CHECK(WIFSIGNALED(Lives::in_process([&] {
      failpoint::arm("write_synced=kill@1", nullptr);
      Client c(lives.options);
    })));
    Client& c = lives.open();
    CHECK_EQ(c.recovery().faulted.size(), 3u);
    for (const char* name : {"fast", "ordered", "durable"}) CHECK(c.info(name).generation >= 3);
  });

  check::test("nothing is redone before its record is on the disk", [] {
    // A power cut in the recovery would find pages of a batch that the journal doesn't know.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      CHECK_EQ(c.create("demo", 4096, Durability::ordered), Code::ok);
      CHECK_EQ(c.write("demo", 0, "waits"), Code::ok);
    });
    failpoint::arm("sync_data=eio@1", nullptr);
    CHECK_EQ(lives.refused(), Code::io_error);
    failpoint::arm("", nullptr);
    CHECK_EQ(file_bytes(lives.path("regions/demo/data"))[0], 0);
    CHECK_EQ(lives.open().read("demo", 0, 5), std::string("waits"));
  });

  check::test("what a killed process applied is synced by the next checkpoint", [] {
    // It is in the page cache only. The checkpoint passed over it, and a power cut lost what was acknowledged.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      CHECK_EQ(c.create("demo", 4096, Durability::ordered), Code::ok);
      CHECK_EQ(c.write("demo", 0, "applied"), Code::ok);
      c.store->flush_step();
    });
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::A);
    // Whoever asks for its sync learns that it failed.
    failpoint::arm("sync_data=eio@1", nullptr);
    CHECK_EQ(c.store->checkpoint_step(), 0);
    failpoint::arm("", nullptr);
    CHECK(!c.info("demo").fault.empty());
    lives.close();
    CHECK_EQ(lives.open().read("demo", 0, 7), std::string("applied"));
  });

  check::test("a recovery does not take back what mapped readers see settled", [] {
    // It laid the older batches of a fast region over the newest one, and told the same sequence before and after: a reader
    // that had begun before took a mixture for one generation.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      make_three(c);
      CHECK_EQ(c.store->checkpoint_step(), 0);
      CHECK_EQ(c.write("ordered", 0, "waits"), Code::ok);
      for (const char* text : {"one", "two"}) CHECK_EQ(c.write("fast", 4090, text), Code::ok);
    });
    const auto settled = [&] {
      const holdfast_control page = control_of(lives, "fast");
      uint64_t seen = 0;
      CHECK_EQ(holdfast_read_begin(&page, 1, &seen), static_cast<int>(HOLDFAST_SETTLED));
      CHECK_EQ(holdfast_generation(&page), 2u);
      const Bytes bytes = file_bytes(lives.path("regions/fast/data"));
      CHECK_EQ(std::string(bytes.begin() + 4090, bytes.begin() + 4093), std::string("two"));
    };
    settled();
    for (const char* point : {"recovery_record_redone=kill@2", "recovery_done=kill"}) {
      check::context = point;
      CHECK(WIFSIGNALED(Lives::in_process([&] {
        failpoint::arm(point, nullptr);
        Client c(lives.options);
      })));
      lives.check(Ended::killed);
      settled();
    }
    Client& c = lives.open();
    CHECK_EQ(c.read("fast", 4090, 3), std::string("two"));
    CHECK_EQ(c.read("ordered", 0, 5), std::string("waits"));
    CHECK_EQ(c.info("fast").generation, 2u);
  });

  check::test("a mapped reader finds a killed batch unsettled until its successor has redone it", [] {
    Lives lives;
    lives.options.threads = false;
    {
      Client& c = lives.open();
      CHECK_EQ(c.create("demo", 8192, Durability::fast), Code::ok);
      CHECK_EQ(c.write("demo", 0, "before"), Code::ok);
      lives.close();
    }
    const int status = Lives::in_process([&] {
      auto* c = new Client(lives.options);
      failpoint::arm("apply_image=kill@2", nullptr);
      c->run(parts_of({"demo"}, {write_op(0, "after!"), write_op(5000, "after!")}));
    });
    CHECK(WIFSIGNALED(status));
    const holdfast_control torn = control_of(lives, "demo");
    uint64_t seen = 0;
    CHECK_EQ(holdfast_read_begin(&torn, 1000, &seen), static_cast<int>(HOLDFAST_UNSETTLED));
    CHECK_EQ(holdfast_generation(&torn), 1u);
    lives.check(Ended::killed);
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::B);
    CHECK_EQ(c.read("demo", 5000, 6), std::string("after!"));
    const holdfast_control whole = control_of(lives, "demo");
    CHECK_EQ(holdfast_read_begin(&whole, 1, &seen), static_cast<int>(HOLDFAST_SETTLED));
    CHECK_EQ(holdfast_generation(&whole), 2u);
  });
}

#endif

}  // namespace

int main() {
  rows();
  names();
  wrong_bytes();
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
  kills();
#endif
  return check::done();
}
