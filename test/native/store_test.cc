// store_test.cc - what a store promises while nothing goes wrong: regions, batches, durabilities, idempotency, the ring.
#include "../../native/store.h"

#include "stores.h"

using namespace holdfast;
using namespace holdfast::frames;
using namespace holdfast::stores;

namespace {

Conditions conditions_with_key(uint8_t key, uint8_t fingerprint = 1) {
  Conditions conditions;
  conditions.has_key = true;
  memset(conditions.key, key, sizeof conditions.key);
  memset(conditions.fingerprint, fingerprint, sizeof conditions.fingerprint);
  return conditions;
}

RegionMeta meta_of(const std::string& name, uint64_t size = 4096, Durability durability = Durability::fast) {
  RegionMeta meta;
  meta.name = name;
  meta.size = size;
  meta.durability = durability;
  return meta;
}

constexpr Durability kModes[] = {Durability::fast, Durability::ordered, Durability::durable};
const char* const kModeNames[] = {"", "fast", "ordered", "durable"};

void regions() {
  check::test("a region is created, changed, removed and created again under another incarnation", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 10000, Durability::ordered), Code::ok);
    CHECK(c.result.created && !c.result.replayed);
    const RegionInfo made = c.info("demo");
    CHECK_EQ(made.meta.size, 10000u);
    CHECK_EQ(made.generation, 0u);
    CHECK_EQ(made.meta.meta_generation, 1u);
    CHECK_EQ(c.create("demo", 10000, Durability::ordered), Code::region_exists);
    MetaChange change;
    change.labels = R"({"a":"b"})";
    CHECK_EQ(c.update("demo", change), Code::ok);
    CHECK_EQ(c.info("demo").meta.labels, std::string(R"({"a":"b"})"));
    CHECK_EQ(c.info("demo").meta.meta_generation, 2u);
    CHECK_EQ(c.info("demo").generation, 0u);
    CHECK_EQ(c.write("demo", 9990, "0123456789"), Code::ok);
    CHECK_EQ(c.info("demo").generation, 1u);
    CHECK_EQ(c.remove("demo"), Code::ok);
    CHECK(c.result.removed);
    CHECK(!c.store->info("demo"));
    CHECK_EQ(c.write("demo", 0, "x"), Code::region_not_found);
    CHECK_EQ(c.remove("demo"), Code::region_not_found);
    CHECK_EQ(c.create("demo", 4096, Durability::fast), Code::ok);
    CHECK(c.info("demo").meta.incarnation > made.meta.incarnation);
    CHECK_EQ(c.read("demo", 0, 4), std::string(4, '\0'));
    lives.close();
    Client& again = lives.open();
    CHECK_EQ(again.store->names().size(), 1u);
    CHECK_EQ(again.info("demo").meta.size, 4096u);
  });

  check::test("no region is made of a name or durability that is none, beyond the limit, or without a byte", [] {
    Lives lives;
    lives.options.regions_max = 2;
    Client& c = lives.open();
    for (const char* name : {"", "..", "a/b", "A", "a..b", "-a", "a-", ".new-1"})
      CHECK_EQ(c.create(name, 64, Durability::fast), Code::validation_failed);
    CHECK_EQ(c.create("one", 64, Durability::fast), Code::ok);
    for (const uint32_t number : {0u, 4u}) {
      CHECK_EQ(c.create("two", 64, static_cast<Durability>(number)), Code::validation_failed);
      MetaChange change;
      change.durability = static_cast<Durability>(number);
      CHECK_EQ(c.update("one", change), Code::validation_failed);
    }
    CHECK_EQ(c.create("two", 64, Durability::fast), Code::ok);
    CHECK_EQ(c.create("three", 64, Durability::fast), Code::too_many_regions);
    CHECK(c.create("zero", 0, Durability::fast) != Code::ok);
    CHECK_EQ(c.remove("one"), Code::ok);
    CHECK_EQ(c.create("three", 64, Durability::fast), Code::ok);
  });

  check::test("an adopted file is mapped in place and outlives its region", [] {
    Lives lives;
    const std::string path = lives.directory / "mine";
    make_file(path, Bytes(8192, 'm'));
    Client& c = lives.open();
    CHECK_EQ(c.create("mine", 8192, Durability::durable, kMetaAdopted, path), Code::ok);
    CHECK_EQ(c.read("mine", 8190, 2), std::string("mm"));
    CHECK_EQ(c.write("mine", 4095, "hello"), Code::ok);
    CHECK_EQ(c.create("none", 8192, Durability::durable, kMetaAdopted, lives.directory / "none"), Code::io_error);
    lives.close();
    CHECK(memcmp(file_bytes(path).data() + 4094, "mhellom", 7) == 0);
    Client& again = lives.open();
    CHECK_EQ(again.info("mine").meta.path, path);
    CHECK_EQ(again.info("mine").generation, 1u);
    CHECK_EQ(again.remove("mine"), Code::ok);
    CHECK_EQ(file_bytes(path).size(), 8192u);
  });

  check::test("a region is made from a stream, and given up with all its files", [] {
    Lives lives;
    Client& c = lives.open();
    std::unique_ptr<NewRegion> made;
    CHECK_EQ(c.store->begin_upload(meta_of("big"), Conditions{}, &made, &c.result, &c.detail), Code::ok);
    for (int i = 0; i < 5; i++) CHECK_EQ(made->append(Bytes(3000, static_cast<uint8_t>('a' + i))), 0);
    CHECK_EQ(c.store->publish(std::move(made), Conditions{}, &c.result, &c.detail), Code::ok);
    CHECK_EQ(c.info("big").meta.size, 15000u);
    CHECK_EQ(c.read("big", 2999, 2), std::string("ab"));
    CHECK_EQ(c.store->begin_upload(meta_of("gone"), Conditions{}, &made, &c.result, &c.detail), Code::ok);
    CHECK_EQ(made->append(Bytes(100, 'x')), 0);
    made.reset();
    // An empty body is no region; and a name that was taken meanwhile is still a refusal.
    CHECK_EQ(c.store->begin_upload(meta_of("late"), Conditions{}, &made, &c.result, &c.detail), Code::ok);
    CHECK_EQ(c.store->publish(std::move(made), Conditions{}, &c.result, &c.detail), Code::validation_failed);
    CHECK_EQ(c.store->begin_upload(meta_of("late"), Conditions{}, &made, &c.result, &c.detail), Code::ok);
    CHECK_EQ(made->append(Bytes(100, 'x')), 0);
    CHECK_EQ(c.create("late", 64, Durability::fast), Code::ok);
    CHECK_EQ(c.store->publish(std::move(made), Conditions{}, &c.result, &c.detail), Code::region_exists);
    CHECK_EQ(c.info("late").meta.size, 64u);
  });

  check::test("a change of a region asks its conditions, in their order", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 4096, Durability::fast), Code::ok);
    const RegionInfo info = c.info("demo");
    const auto update = [&](const Conditions& conditions, std::optional<uint64_t> size = std::nullopt) {
      MetaChange change;
      change.labels = "{}";
      change.size = size;
      return c.store->update("demo", change, conditions, &c.result, &c.detail);
    };
    Conditions wrong, right, none_match, by_number;
    wrong.if_match = right.if_match = none_match.if_none_match = true;
    wrong.match = {{info.meta.incarnation, info.meta.meta_generation, 7}};
    right.match = {{1, 1, 1}, {info.meta.incarnation, info.meta.meta_generation, 0}};
    none_match.none_match = right.match;
    by_number.if_generation = 1;
    CHECK_EQ(update(wrong), Code::etag_mismatch);
    CHECK_EQ(update(none_match), Code::etag_mismatch);
    CHECK_EQ(update(by_number), Code::generation_mismatch);
    CHECK_EQ(update(right), Code::ok);
    CHECK_EQ(update(right), Code::etag_mismatch);  // its meta generation has moved on
    CHECK_EQ(update(Conditions{}, 1024), Code::precondition_required);
    by_number.if_generation = 0;
    CHECK_EQ(update(by_number, 1024), Code::ok);
    CHECK_EQ(c.info("demo").generation, 1u);
    Conditions none;
    none.if_none_match = none.if_none_match_any = true;
    CHECK_EQ(c.store->create(meta_of("demo"), none, &c.result, &c.detail), Code::etag_mismatch);
    CHECK_EQ(c.store->remove("nothing", right, &c.result, &c.detail), Code::etag_mismatch);
  });

  check::test("growth brings zeros, shrinking takes bytes, both survive a reopening", [] {
    Lives lives;
    Client& c = lives.open();
    for (const Durability mode : kModes) {
      const std::string name = kModeNames[static_cast<int>(mode)];
      CHECK_EQ(c.create(name, 5000, mode), Code::ok);
      CHECK_EQ(c.write(name, 4990, "0123456789"), Code::ok);
      CHECK_EQ(c.write(name, 4999, "ab"), Code::out_of_bounds);
      CHECK_EQ(c.resize(name, 20000), Code::ok);
      CHECK_EQ(c.write(name, 19990, "abcdefghij"), Code::ok);
      CHECK_EQ(c.read(name, 4988, 14), std::string("\0\0", 2) + "0123456789" + std::string(2, '\0'));
      CHECK_EQ(c.resize(name, 4995), Code::ok);
      CHECK_EQ(c.write(name, 4995, "x"), Code::out_of_bounds);
      CHECK_EQ(c.read(name, 4990, 6), std::string("!out_of_bounds"));
      CHECK_EQ(c.resize(name, 12000), Code::ok);
      CHECK_EQ(c.read(name, 4990, 10), std::string("01234") + std::string(5, '\0'));
      CHECK_EQ(c.info(name).generation, 5u);
    }
    lives.close();
    Client& again = lives.open();
    for (const Durability mode : kModes) {
      const std::string name = kModeNames[static_cast<int>(mode)];
      CHECK_EQ(again.info(name).meta.size, 12000u);
      CHECK_EQ(again.info(name).generation, 5u);
      CHECK_EQ(again.read(name, 4990, 10), std::string("01234") + std::string(5, '\0'));
    }
  });

  check::test("a read-only region is read and not written until it is released", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 4096, Durability::fast), Code::ok);
    MetaChange change;
    change.read_only = true;
    CHECK_EQ(c.update("demo", change), Code::ok);
    CHECK_EQ(c.write("demo", 0, "x"), Code::region_read_only);
    CHECK_EQ(c.resize("demo", 8192), Code::region_read_only);
    CHECK_EQ(c.read("demo", 0, 1), std::string(1, '\0'));
    change.read_only = false;
    CHECK_EQ(c.update("demo", change), Code::ok);
    CHECK_EQ(c.write("demo", 0, "x"), Code::ok);
  });

  check::test("a sparse region takes blocks where it is written", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(c.create("sparse", uint64_t{1} << 36, Durability::ordered, kMetaSparse), Code::ok);
    CHECK_EQ(c.write("sparse", (uint64_t{1} << 36) - 3, "end"), Code::ok);
    CHECK_EQ(c.read("sparse", (uint64_t{1} << 36) - 4, 4), std::string("\0end", 4));
    CHECK_EQ(c.resize("sparse", (uint64_t{1} << 36) + 10), Code::ok);
    struct stat facts;
    CHECK_EQ(stat(lives.path("regions/sparse/data").c_str(), &facts), 0);
    CHECK_EQ(facts.st_size, (int64_t{1} << 36) + 10);
    CHECK(facts.st_blocks * 512 < 1 << 20);
    CHECK_EQ(c.remove("sparse"), Code::ok);
  });

  check::test("data and holes are listed in order, without gaps, a number at a time", [] {
    Lives lives;
    Client& c = lives.open();
    constexpr uint64_t size = uint64_t{16} << 20, written = uint64_t{8} << 20;
    CHECK_EQ(c.create("sparse", size, Durability::durable, kMetaSparse), Code::ok);
    CHECK_EQ(c.write("sparse", written, "here"), Code::ok);
    std::vector<Extent> extents;
    Store::ReadFacts facts = {};
    CHECK_EQ(c.store->extents("sparse", 0, size, 100, &extents, &facts), Code::ok);
    CHECK_EQ(facts.region.generation, 1u);
    CHECK_EQ(facts.region.size, size);
    CHECK_EQ(extents.size(), 3u);
    uint64_t at = 0;
    for (const Extent& extent : extents) {
      CHECK_EQ(extent.offset, at);
      CHECK_EQ(extent.data, extent.offset <= written && written < extent.offset + extent.length);
      at += extent.length;
    }
    CHECK_EQ(at, size);
    const std::vector<Extent> all = extents;
    extents.clear();
    CHECK_EQ(c.store->extents("sparse", 5, size - 10, 2, &extents, &facts), Code::ok);
    CHECK_EQ(extents.size(), 2u);
    CHECK_EQ(extents[0].offset, 5u);
    CHECK_EQ(extents[0].length, all[0].length - 5);
    CHECK(extents[1].data);
    CHECK_EQ(c.store->extents("sparse", 1, size, 100, &extents, &facts), Code::out_of_bounds);
    CHECK_EQ(c.store->extents("nope", 0, 0, 100, &extents, &facts), Code::region_not_found);
    extents.clear();
    CHECK_EQ(c.store->extents("sparse", size, 0, 100, &extents, &facts), Code::ok);
    CHECK(extents.empty());
  });

  check::test("slices tell what holds data and what is in memory, a bounded number of bytes at a time", [] {
    Lives lives;
    Client& c = lives.open();
    constexpr uint64_t gib = uint64_t{1} << 30, size = 6 * gib + 100, granularity = gib / 2;
    CHECK_EQ(c.create("sparse", size, Durability::durable, kMetaSparse), Code::ok);
    std::vector<Store::Slice> slices;
    Store::ReadFacts facts = {};
    const auto look = [&](uint64_t offset, uint64_t bytes, size_t most) {
      slices.clear();
      return c.store->slices("sparse", offset, bytes, most, &slices, &facts);
    };
    CHECK_EQ(look(0, granularity, 100), Code::ok);
    CHECK_EQ(slices.size(), 8u);  // the bound
    for (const Store::Slice& slice : slices) CHECK_EQ(slice.resident_bytes + slice.data_bytes, 0u);
    CHECK_EQ(c.write("sparse", 6 * gib + 90, "0123456789"), Code::ok);
    CHECK_EQ(look(4 * gib, granularity, 100), Code::ok);
    CHECK_EQ(slices.size(), 5u);
    CHECK_EQ(slices[0].offset, 4 * gib);
    CHECK_EQ(slices[0].length, granularity);
    CHECK_EQ(slices[0].resident_bytes, 0u);
    CHECK_EQ(slices[4].length, 100u);
    CHECK_EQ(slices[4].data_bytes, 100u);
    CHECK_EQ(slices[4].resident_bytes, 100u);
    CHECK_EQ(facts.region.generation, 1u);
    CHECK_EQ(look(granularity + 1, granularity, 1), Code::ok);
    CHECK_EQ(slices.size(), 1u);
    CHECK_EQ(slices[0].offset, granularity);
    CHECK_EQ(look(size, granularity, 1), Code::ok);
    CHECK(slices.empty());
    CHECK_EQ(look(size + 1, granularity, 1), Code::out_of_bounds);
    CHECK_EQ(c.store->slices("nope", 0, granularity, 1, &slices, &facts), Code::region_not_found);
  });
}

void batches() {
  check::test("every durability takes batches, and what was answered is read", [] {
    Lives lives;
    Client& c = lives.open();
    for (const Durability mode : kModes) {
      const std::string name = kModeNames[static_cast<int>(mode)];
      check::context = name;
      CHECK_EQ(c.create(name, 1 << 20, mode), Code::ok);
      for (uint64_t i = 0; i < 50; i++) {
        const std::string text = "value " + std::to_string(i);
        const Answer answer = c.run(parts_of({name}, {write_op(i * 5003, text), add_op(8 * (1 + i), ValueType::u64, 3),
                                                      read_op(i * 5003, text.size())}));
        CHECK_EQ(answer.code(), Code::ok);
        CHECK_EQ(answer.region().generation, i + 1);
        if (mode == Durability::durable) CHECK_EQ(answer.region().durable_generation, i + 1);
        // Ordered: acknowledged before it is applied, so this read brings the apply forward.
        CHECK_EQ(c.read(name, i * 5003, text.size()), text);
      }
      CHECK_EQ(c.store->flush(name), Code::ok);
      CHECK_EQ(c.info(name).durable_generation, 50u);
    }
    lives.close();
    Client& again = lives.open();
    for (const Durability mode : kModes) {
      const std::string name = kModeNames[static_cast<int>(mode)];
      CHECK_EQ(again.info(name).generation, 50u);
      CHECK_EQ(again.read(name, 49 * 5003, 8), std::string("value 49"));
    }
    CHECK_EQ(again.recovery().row, RecoveryRow::A);
    CHECK(again.recovery().clean);
  });

  check::test("an ordered batch is answered at once, and seen by the next one before it is applied", [] {
    Lives lives;
    lives.options.threads = false;  // nothing is flushed unless this test says so
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 4096, Durability::ordered), Code::ok);
    const uint64_t before = c.store->status().committed;
    Answer answer;
    CHECK(c.start(make_frame(parts_of({"demo"}, {add_op(0, ValueType::u64, 5)})), 1, &answer));
    CHECK(c.start(make_frame(parts_of({"demo"}, {add_op(0, ValueType::u64, 5), write_op(100, "later")})), 2, &answer));
    CHECK_EQ(answer.region().generation, 2u);
    CHECK_EQ(answer.region().durable_generation, 0u);
    CHECK_EQ(c.store->status().committed, before + 2);
    CHECK_EQ(c.store->status().applied, before);
    CHECK_EQ(file_bytes(lives.path("regions/demo/data"))[0], 0);
    CHECK(c.start(make_frame(parts_of({"demo"}, {load_op(0, ValueType::u64), read_op(98, 8)})), 3, &answer));
    CHECK_EQ(answer.data()[0], 10);
    // The plain read waits for the apply.
    CHECK_EQ(c.read("demo", 0, 1), std::string("\x0a"));
    CHECK_EQ(c.store->status().applied, before + 2);
    CHECK_EQ(c.info("demo").durable_generation, 2u);
  });

  check::test("what a durable region has not made durable is told to nobody before it is", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    CHECK_EQ(c.create("sure", 4096, Durability::durable), Code::ok);
    CHECK_EQ(c.create("quick", 4096, Durability::fast), Code::ok);
    Answer answer;
    CHECK(!c.start(make_frame(parts_of({"sure"}, {write_op(0, "secret")})), 1, &answer));
    CHECK_EQ(c.read("sure", 0, 6), std::string(6, '\0'));
    // A batch that reads it, alone or on the way to a fast region, waits with it.
    CHECK(!c.start(make_frame(parts_of({"sure"}, {read_op(0, 6)})), 2, &answer));
    CHECK(!c.start(make_frame(parts_of({"quick", "sure"}, {copy_op(0, 64, 6, 1), read_op(64, 6)})), 3, &answer));
    CHECK(!c.answered(1) && !c.answered(2) && !c.answered(3));
    CHECK(c.store->flush_step());
    CHECK_EQ(c.wait(1).code(), Code::ok);
    CHECK_EQ(c.wait(2).data().substr(0, 6), std::string("secret"));
    CHECK_EQ(c.wait(3).code(), Code::ok);
    CHECK_EQ(c.read("quick", 64, 6), std::string("secret"));
  });

  check::test("a batch over regions of several durabilities takes the strictest, and later ones keep its order", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    CHECK_EQ(c.create("quick", 4096, Durability::fast), Code::ok);
    CHECK_EQ(c.create("sure", 4096, Durability::durable), Code::ok);
    const uint64_t before = c.store->status().committed;
    Answer answer;
    CHECK(!c.start(make_frame(parts_of({"quick", "sure"}, {write_op(0, "mixed"), write_op(0, "mixed").in(1)})), 1,
                   &answer));
    CHECK_EQ(c.read("quick", 0, 5), std::string(5, '\0'));
    // The fast region has a record that waits for its sync: the next one may not overtake it.
    CHECK(!c.start(make_frame(parts_of({"quick"}, {write_op(3, "own")})), 2, &answer));
    CHECK_EQ(c.store->status().applied, before);
    CHECK(c.store->flush_step());
    CHECK_EQ(c.wait(1).code(), Code::ok);
    CHECK_EQ(c.wait(2).code(), Code::ok);
    CHECK_EQ(c.read("quick", 0, 6), std::string("mixown"));
    // With nothing pending it is fast again, even while another region's record waits.
    CHECK(!c.start(make_frame(parts_of({"sure"}, {write_op(0, "again")})), 3, &answer));
    CHECK(c.start(make_frame(parts_of({"quick"}, {write_op(0, "ahead")})), 4, &answer));
    CHECK_EQ(c.read("quick", 0, 6), std::string("aheadn"));
    CHECK_EQ(c.store->status().applied, before + 2);
    CHECK(c.store->flush_step());
    CHECK_EQ(c.store->status().applied, before + 4);
    CHECK_EQ(c.wait(3).code(), Code::ok);
  });

  check::test("a batch may ask to wait longer than its region's mode, never shorter, and never a fast one", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(c.create("quick", 4096, Durability::fast), Code::ok);
    CHECK_EQ(c.create("sure", 4096, Durability::durable), Code::ok);
    CHECK_EQ(c.create("order", 4096, Durability::ordered), Code::ok);
    CHECK_EQ(c.write("sure", 0, "x", Wait::fast), Code::validation_failed);
    CHECK_EQ(c.write("sure", 0, "x", Wait::ordered), Code::validation_failed);
    CHECK_EQ(c.write("order", 0, "x", Wait::fast), Code::validation_failed);
    CHECK_EQ(c.write("quick", 0, "x", Wait::durable), Code::durability_unavailable);
    CHECK_EQ(c.write("quick", 0, "x", Wait::ordered), Code::durability_unavailable);
    CHECK_EQ(c.write("quick", 0, "x", Wait::fast), Code::ok);
    CHECK_EQ(c.write("order", 0, "x", Wait::durable), Code::ok);
    CHECK_EQ(c.info("order").durable_generation, 1u);
    CHECK_EQ(c.info("sure").generation, 0u);
  });

  check::test("a batch that only reads, is dry or is refused makes no record and no generation", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 4096, Durability::fast), Code::ok);
    const uint64_t before = c.store->status().committed;
    CHECK_EQ(c.run(parts_of({"demo"}, {read_op(0, 16)})).code(), Code::ok);
    FrameParts dry = parts_of({"demo"}, {write_op(0, "x")});
    dry.flags = kFrameDryRun;
    const Answer answer = c.run(dry);
    CHECK_EQ(answer.code(), Code::ok);
    CHECK_EQ(answer.header().flags, kAnswerDryRun);
    CHECK_EQ(c.run(parts_of({"demo"}, {write_op(0, "x"), cas_op(8, ValueType::u64, 1, 2)})).code(), Code::cas_mismatch);
    CHECK_EQ(c.run(parts_of({"demo", "none"}, {write_op(0, "x")})).code(), Code::region_not_found);
    CHECK_EQ(c.run(Bytes(10, 0)).code(), Code::malformed_batch);
    CHECK_EQ(c.run(parts_of({"demo"}, {fill_op(0, 4096, "x"), fill_op(0, 4096, "x"), fill_op(0, 4096, "x"),
                                       fill_op(0, 4096, "x"), write_op(0, "y")}))
                 .code(),
             Code::batch_too_large);
    CHECK_EQ(c.store->status().committed, before);
    CHECK_EQ(c.info("demo").generation, 0u);
    CHECK_EQ(c.read("demo", 0, 1), std::string(1, '\0'));
  });

  check::test("with never_block, a cold page is reported and touched by nobody; a hot one is committed", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 1 << 20, Durability::fast), Code::ok);
    const Bytes frame = make_frame(parts_of({"demo"}, {write_op(500000, "x")}));
    Bytes answer;
    CHECK_EQ(c.store->commit(frame, Store::Patience::never_block, 1, &answer), Store::Progress::would_block);
    CHECK_EQ(c.info("demo").generation, 0u);
    CHECK_EQ(c.run(frame).code(), Code::ok);
    CHECK_EQ(c.store->commit(frame, Store::Patience::never_block, 1, &answer), Store::Progress::done);
    CHECK_EQ(c.info("demo").generation, 2u);
  });
}

void idempotency() {
  check::test("a key is answered once and replayed, also after a reopening, and not for another request", [] {
    Lives lives;
    Client* c = &lives.open();
    for (const Durability mode : kModes) CHECK_EQ(c->create(kModeNames[static_cast<int>(mode)], 4096, mode), Code::ok);
    const auto frame = [](Durability mode, uint8_t fingerprint = 1) {
      return keyed(parts_of({kModeNames[static_cast<int>(mode)]}, {add_op(0, ValueType::u64, 7)}),
                   static_cast<uint8_t>(mode), fingerprint);
    };
    Answer first[4];
    for (const Durability mode : kModes) {
      first[static_cast<int>(mode)] = c->run(frame(mode));
      CHECK_EQ(first[static_cast<int>(mode)].code(), Code::ok);
      CHECK(!first[static_cast<int>(mode)].replayed());
    }
    for (int life = 0; life < 3; life++) {
      check::context = "life " + std::to_string(life);
      for (const Durability mode : kModes) {
        const Answer again = c->run(frame(mode));
        CHECK_EQ(again.code(), Code::ok);
        CHECK(again.replayed());
        CHECK_EQ(again.region().generation, 1u);
        CHECK_EQ(c->run(frame(mode, 2)).code(), Code::idempotency_key_reused);
        CHECK_EQ(c->info(kModeNames[static_cast<int>(mode)]).generation, 1u);
      }
      lives.close();
      c = &lives.open();
    }
  });

  check::test("an acknowledged ordered batch is replayed at once, a durable one when it is durable", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    CHECK_EQ(c.create("order", 4096, Durability::ordered), Code::ok);
    CHECK_EQ(c.create("sure", 4096, Durability::durable), Code::ok);
    CHECK_EQ(c.create("quick", 4096, Durability::fast), Code::ok);
    Answer answer;
    const Bytes ordered = keyed(parts_of({"order"}, {add_op(0, ValueType::u64, 7)}), 1);
    CHECK(c.start(ordered, 1, &answer));
    CHECK(c.start(ordered, 2, &answer));
    CHECK(answer.replayed());
    const Bytes durable = keyed(parts_of({"sure"}, {add_op(0, ValueType::u64, 7)}), 2);
    CHECK(!c.start(durable, 3, &answer));
    CHECK(c.start(durable, 4, &answer));
    CHECK_EQ(answer.code(), Code::idempotency_in_progress);
    // Behind what waits for its sync, a fast batch is done nevertheless.
    const Bytes fast = keyed(parts_of({"quick"}, {add_op(0, ValueType::u64, 7)}), 3);
    CHECK(c.start(fast, 5, &answer));
    CHECK(c.start(fast, 6, &answer));
    CHECK_EQ(answer.code(), Code::ok);
    CHECK(answer.replayed());
    CHECK_EQ(c.wait(3).code(), Code::ok);
    CHECK(c.start(durable, 7, &answer));
    CHECK(answer.replayed());
    CHECK_EQ(answer.region().durable_generation, 1u);
    CHECK_EQ(c.info("sure").generation, 1u);
  });

  check::test("a batch is replayed even when its region is gone", [] {
    Lives lives;
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 4096, Durability::fast), Code::ok);
    const Bytes frame = keyed(parts_of({"demo"}, {write_op(0, "x")}), 1);
    CHECK_EQ(c.run(frame).code(), Code::ok);
    CHECK_EQ(c.remove("demo"), Code::ok);
    const Answer again = c.run(frame);
    CHECK_EQ(again.code(), Code::ok);
    CHECK(again.replayed());
    CHECK_EQ(c.run(keyed(parts_of({"demo"}, {write_op(0, "x")}), 2)).code(), Code::region_not_found);
  });

  check::test("changes of regions are replayed too, also after a reopening", [] {
    Lives lives;
    Client* c = &lives.open();
    MetaResult first, again;
    CHECK_EQ(c->store->create(meta_of("demo"), conditions_with_key(1), &first, &c->detail), Code::ok);
    MetaChange change;
    change.size = 9000;
    CHECK_EQ(c->store->update("demo", change, conditions_with_key(2), &first, &c->detail), Code::ok);
    for (int life = 0; life < 2; life++) {
      again = {};
      CHECK_EQ(c->store->create(meta_of("demo"), conditions_with_key(1), &again, &c->detail), Code::ok);
      CHECK(again.replayed && again.created);
      CHECK_EQ(again.info.meta.size, 4096u);
      again = {};
      CHECK_EQ(c->store->update("demo", change, conditions_with_key(2), &again, &c->detail), Code::ok);
      CHECK(again.replayed && !again.created);
      CHECK_EQ(again.info.meta.size, 9000u);
      CHECK_EQ(again.info.generation, 1u);
      CHECK_EQ(c->store->update("demo", change, conditions_with_key(2, 9), &again, &c->detail),
               Code::idempotency_key_reused);
      lives.close();
      c = &lives.open();
    }
    CHECK_EQ(c->store->remove("demo", conditions_with_key(3), &first, &c->detail), Code::ok);
    again = {};
    CHECK_EQ(c->store->remove("demo", conditions_with_key(3), &again, &c->detail), Code::ok);
    CHECK(again.replayed && again.removed);
  });
}

void ring() {
  check::test("the ring wraps many times over, and every byte of the last pass is there", [] {
    Lives lives;
    lives.options.journal_bytes = 64 << 10;
    Client& c = lives.open();
    for (const Durability mode : kModes)
      CHECK_EQ(c.create(kModeNames[static_cast<int>(mode)], 64 << 10, mode), Code::ok);
    Bytes expected(64 << 10);
    uint64_t seed = 1, written = 0;
    while (written < 2 << 20) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      const uint64_t length = 1 + (seed >> 33) % 5000, offset = (seed >> 17) % (expected.size() - length);
      const std::string text(length, static_cast<char>(seed >> 56));
      memcpy(&expected[offset], text.data(), length);
      for (const char* name : {"fast", "ordered"}) CHECK_EQ(c.write(name, offset, text), Code::ok);
      written += 2 * length;
    }
    CHECK_EQ(c.write("durable", 1, "durable"), Code::ok);
    CHECK(c.store->status().checkpoints > 10);
    const std::string all(expected.begin(), expected.end());
    CHECK(c.read("fast", 0, all.size()) == all);
    CHECK(c.read("ordered", 0, all.size()) == all);
    lives.close();
    Client& again = lives.open();
    CHECK(again.read("fast", 0, all.size()) == all);
    CHECK(again.read("ordered", 0, all.size()) == all);
    CHECK_EQ(again.read("durable", 1, 7), std::string("durable"));
  });

  check::test("a checkpoint frees the ring, and there is nothing to redo after it", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    for (const Durability mode : kModes) CHECK_EQ(c.create(kModeNames[static_cast<int>(mode)], 4096, mode), Code::ok);
    for (int i = 0; i < 10; i++)
      for (const char* name : {"fast", "ordered", "durable"})
        CHECK_EQ(c.write(name, 0, std::string(1000, 'x')), Code::ok);
    c.store->flush_step();
    CHECK(c.store->status().journal_used_bytes > 30000);
    CHECK_EQ(c.store->checkpoint_step(), 0);
    CHECK_EQ(c.store->status().journal_used_bytes, 0u);
    CHECK_EQ(c.store->status().checkpoint, c.store->status().committed);
    CHECK_EQ(c.info("ordered").durable_generation, 10u);
    CHECK_EQ(c.info("durable").durable_generation, 10u);
    // A fast region was promised nothing: its bytes are synced when somebody asks.
    CHECK_EQ(c.info("fast").durable_generation, 0u);
    CHECK_EQ(c.store->flush("fast"), Code::ok);
    CHECK_EQ(c.info("fast").durable_generation, 10u);
  });

  check::test("another journal size takes effect at the next opening and loses nothing", [] {
    Lives lives;
    Client* c = &lives.open();
    CHECK_EQ(c->create("demo", 4096, Durability::ordered), Code::ok);
    const Bytes frame = keyed(parts_of({"demo"}, {add_op(0, ValueType::u64, 7)}), 1);
    CHECK_EQ(c->run(frame).code(), Code::ok);
    for (const uint64_t bytes : {uint64_t{1} << 20, uint64_t{128} << 10}) {
      lives.close();
      lives.options.journal_bytes = bytes;
      lives.options.regions_max *= 2;
      c = &lives.open();
      CHECK_EQ(c->store->status().journal_bytes, bytes);
      CHECK_EQ(c->info("demo").generation, 1u);
      CHECK(c->run(frame).replayed());
      CHECK_EQ(c->read("demo", 0, 1), std::string("\x07"));
    }
    CHECK_EQ(c->write("demo", 0, "x"), Code::ok);
    CHECK_EQ(c->info("demo").generation, 2u);
  });
}

void lifecycle() {
  check::test("a closed store answers cancelled, and what it had promised it has kept", [] {
    Lives lives;
    lives.options.flush_interval_ms = 10000;
    Client& c = lives.open();
    CHECK_EQ(c.create("order", 4096, Durability::ordered), Code::ok);
    CHECK_EQ(c.create("sure", 4096, Durability::durable), Code::ok);
    CHECK_EQ(c.write("order", 0, "kept"), Code::ok);
    Answer answer;
    CHECK(!c.start(make_frame(parts_of({"sure"}, {write_op(0, "kept")})), 1, &answer));
    c.store->close();
    CHECK_EQ(c.wait(1).code(), Code::ok);
    CHECK_EQ(c.write("order", 0, "late"), Code::cancelled);
    CHECK_EQ(c.read("order", 0, 4), std::string("!cancelled"));
    CHECK_EQ(c.create("more", 4096, Durability::fast), Code::cancelled);
    CHECK_EQ(c.resize("order", 8192), Code::cancelled);
    CHECK_EQ(c.remove("order"), Code::cancelled);
    CHECK_EQ(c.store->flush(""), Code::cancelled);
    CHECK(c.store->checkpoint_step() != 0);
    // Another process may have the store by now: not a byte of it is touched.
    Lives::in_process([&] {
      Client other(lives.options);
      if (other.code != Code::ok || other.read("order", 0, 4) != "kept") _exit(92);
    });
    lives.close();
    Client& again = lives.open();
    CHECK_EQ(again.read("order", 0, 4), std::string("kept"));
    CHECK_EQ(again.read("sure", 0, 4), std::string("kept"));
    CHECK_EQ(again.recovery().row, RecoveryRow::A);
  });

  check::test("a store that is in use is refused, or waited for and recovered when its process dies", [] {
    Lives lives;
    lives.close();
    int ready[2];
    if (!CHECK_EQ(pipe(ready), 0)) return;
    const pid_t writer = fork();
    if (writer == 0) {
      Client client(lives.options);
      if (client.code != Code::ok || client.create("demo", 4096, Durability::ordered) != Code::ok) _exit(90);
      if (::write(ready[1], "r", 1) != 1) _exit(91);
      for (uint64_t i = 0;; i++) client.write("demo", (i % 64) * 8, "12345678");
    }
    char byte;
    CHECK_EQ(::read(ready[0], &byte, 1), 1);
    CHECK_EQ(lives.refused(), Code::lease_held);
    CHECK(lives.detail.find("in use") != std::string::npos);
    std::atomic<bool> waiting{false};
    lives.options.standby = true;
    lives.options.on_standby = [&] { waiting = true; };
    std::thread killer([&] {
      for (int ms = 0; !waiting && ms < 5000; ms++) usleep(1000);
      usleep(20000);
      kill(writer, SIGKILL);
    });
    Client& c = lives.open();
    killer.join();
    waitpid(writer, nullptr, 0);
    CHECK(waiting);
    CHECK(c.info("demo").generation > 0);
    CHECK(c.recovery().same_boot);
    CHECK_EQ(c.write("demo", 0, "mine"), Code::ok);
    close(ready[0]);
    close(ready[1]);
    lives.options.on_standby = nullptr;
  });

  check::test("a file system that can't keep the promises is refused unless it is allowed", [] {
    Lives lives;
    lives.options.directory = "/proc/self/fd";  // a file system of no known kind; nothing is made there
    lives.options.allow_any_file_system = false;
    CHECK_EQ(lives.refused(), Code::unsupported_file_system);
    CHECK(lives.detail.find("file system") != std::string::npos);
    lives.options.directory = lives.directory / "none/below";
    CHECK_EQ(lives.refused(), Code::io_error);
  });

  check::test("on a file system in memory a region can't be durable", [] {
    char pattern[] = "/dev/shm/holdfast-XXXXXX";
    if (!CHECK(mkdtemp(pattern) != nullptr)) return;
    {
      Lives lives;
      lives.options.directory = pattern;
      lives.options.allow_any_file_system = false;
      Client& c = lives.open();
      CHECK_EQ(c.store->status().file_system, std::string("tmpfs"));
      CHECK_EQ(c.create("sure", 4096, Durability::durable), Code::durability_unavailable);
      CHECK_EQ(c.create("order", 4096, Durability::ordered), Code::ok);
      CHECK_EQ(c.write("order", 0, "x"), Code::ok);
      MetaChange change;
      change.durability = Durability::durable;
      CHECK_EQ(c.update("order", change), Code::durability_unavailable);
      lives.close();
    }
    std::filesystem::remove_all(pattern);
  });
}

}  // namespace

int main() {
  regions();
  batches();
  idempotency();
  ring();
  lifecycle();
  return check::done();
}
