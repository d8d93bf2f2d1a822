// outcomes_test.cc - what was answered to which key: kept long enough, in memory and in the two files, and not for ever.
#include "../../native/outcomes.h"

#include "../../native/failpoint.h"
#include "stores.h"

using namespace holdfast;
using namespace holdfast::stores;

namespace {

constexpr uint64_t kYear = 365ull * 24 * 3600;

// The files of one directory, through several lives.
struct Life {
  Life(const Directory& directory, uint64_t keys_min, uint64_t seconds_min, uint64_t bytes_max = 1 << 20)
      : outcomes(keys_min, seconds_min, bytes_max) {
    CHECK_EQ(open_directory(directory.path(), false, &root), 0);
    CHECK_EQ(outcomes.open(root), 0);
  }
  static OutcomeHeader header_of(uint32_t key, uint64_t age_seconds, uint32_t answer_bytes) {
    OutcomeHeader header = {};
    memcpy(header.key, &key, sizeof key);
    header.time_us = now_us() - age_seconds * 1000000;
    header.answer_bytes = answer_bytes;
    return header;
  }
  void add(uint32_t key, uint64_t lsn, uint64_t age_seconds = 0, const std::string& answer = "answer") {
    outcomes.add(header_of(key, age_seconds, static_cast<uint32_t>(answer.size())),
                 {reinterpret_cast<const uint8_t*>(answer.data()), answer.size()}, lsn);
  }
  // One that open() has read, as a recovery meets it in the ring.
  void add_again(uint32_t key, uint64_t lsn) {
    uint8_t bytes[16] = {};
    memcpy(bytes, &key, sizeof key);
    const Outcome copy = *outcomes.find(bytes);
    outcomes.add(copy.header, copy.answer, lsn);
  }
  // Adds it, and has the checkpoint move it to a file.
  void save(uint32_t key, uint64_t lsn, uint64_t age_seconds = 0, const std::string& answer = "answer") {
    add(key, lsn, age_seconds, answer);
    CHECK_EQ(outcomes.save(outcomes.encode(lsn), lsn), 0);
  }
  std::string find(uint32_t key) const {
    uint8_t bytes[16] = {};
    memcpy(bytes, &key, sizeof key);
    const Outcome* outcome = outcomes.find(bytes);
    return outcome ? std::string(outcome->answer.begin(), outcome->answer.end()) : "-";
  }

  File root;
  Outcomes outcomes;
};

uint64_t files_bytes(const Directory& directory) {
  return std::filesystem::file_size(directory / "outcomes.0") + std::filesystem::file_size(directory / "outcomes.1");
}

}  // namespace

int main() {
  check::test("an outcome is found, and forgotten only when it is both old and one of too many", [] {
    Directory directory;
    Life life(directory, 10, 600);
    for (uint32_t key = 0; key < 10; key++) life.add(key, key + 1, 3600);
    CHECK_EQ(life.find(0), std::string("answer"));  // old, but among the last ten
    for (uint32_t key = 10; key < 30; key++) life.add(key, key + 1, 60);
    CHECK_EQ(life.find(0), std::string("-"));
    CHECK_EQ(life.find(9), std::string("-"));
    CHECK_EQ(life.find(10), std::string("answer"));  // one of too many, but young
    CHECK_EQ(life.outcomes.size(), 20u);
    CHECK_EQ(life.find(99), std::string("-"));
  });

  check::test("a checkpoint takes the outcomes of its own records, no earlier and no later ones", [] {
    Directory directory;
    {
      Life life(directory, 10, 600);
      for (uint32_t key = 1; key <= 9; key++) life.add(key, key * 10, 0, std::to_string(key));
      CHECK_EQ(life.outcomes.save(life.outcomes.encode(30), 30), 0);
      CHECK_EQ(life.outcomes.save(life.outcomes.encode(60), 60), 0);
      CHECK(life.outcomes.encode(69).empty());
    }
    Life life(directory, 10, 600);
    for (uint32_t key = 1; key <= 9; key++) CHECK_EQ(life.find(key), key <= 6 ? std::to_string(key) : "-");
  });

  check::test("half an outcome at the end of a file is cut off, and what is appended next is found", [] {
    Directory directory;
    for (const size_t torn : {1u, 47u, 48u, 53u}) {
      check::context = std::to_string(torn) + " bytes";
      for (const char* name : {"outcomes.0", "outcomes.1"}) std::filesystem::remove(directory / name);
      {
        Life life(directory, 10, 600);
        for (uint32_t key = 1; key <= 3; key++) life.save(key, key);
      }
      // The third one's end never came.
      const std::string path = std::filesystem::file_size(directory / "outcomes.0") ? "outcomes.0" : "outcomes.1";
      CHECK_EQ(std::filesystem::file_size(directory / path), 3 * (sizeof(OutcomeHeader) + 6));
      CHECK_EQ(truncate((directory / path).c_str(), static_cast<off_t>(2 * (sizeof(OutcomeHeader) + 6) + torn)), 0);
      {
        Life life(directory, 10, 600);
        CHECK_EQ(life.find(2), std::string("answer"));
        CHECK_EQ(life.find(3), std::string("-"));
        life.save(4, 4);
      }
      Life life(directory, 10, 600);
      CHECK_EQ(life.find(1), std::string("answer"));
      CHECK_EQ(life.find(4), std::string("answer"));
    }
  });

  check::test("the files take turns: neither grows for ever, and the last outcomes survive every restart", [] {
    Directory directory;
    constexpr uint32_t kKeep = 8;
    uint64_t most = 0;
    for (uint32_t key = 1; key <= 200;) {
      Life life(directory, kKeep, 0);
      // What a restart finds, whatever the moment.
      for (uint32_t before = key > kKeep ? key - kKeep : 1; before < key; before++) {
        check::context = std::to_string(before) + " before " + std::to_string(key);
        CHECK_EQ(life.find(before), std::string("answer"));
      }
      for (int i = 0; i < 1 + static_cast<int>(key % 5); i++, key++) life.save(key, key);
      most = std::max(most, files_bytes(directory));
    }
    CHECK(most <= 3 * kKeep * (sizeof(OutcomeHeader) + 6));
  });

  check::test("a restart that forgets old outcomes keeps the young ones, whichever file they are in", [] {
    Directory directory;
    {
      Life life(directory, 4, 600);
      for (uint32_t key = 1; key <= 50; key++) life.save(key, key, kYear);
      for (uint32_t key = 51; key <= 53; key++) life.save(key, key);
    }
    {
      Life life(directory, 4, 600);
      life.save(54, 54);
      CHECK_EQ(life.find(53), std::string("answer"));
    }
    Life life(directory, 4, 600);
    for (uint32_t key = 51; key <= 54; key++) CHECK_EQ(life.find(key), std::string("answer"));
  });

  check::test("a key that is used again after it was forgotten has its newer outcome, also after a restart", [] {
    Directory directory;
    {
      Life life(directory, 2, 600);
      life.save(1, 1, kYear, "first");
      life.save(2, 2, kYear);
      life.save(3, 3);
      CHECK_EQ(life.find(1), std::string("-"));
      life.save(1, 4, 0, "second");
      life.save(4, 5);
      CHECK_EQ(life.find(1), std::string("second"));
    }
    Life life(directory, 2, 600);
    CHECK_EQ(life.find(1), std::string("second"));
  });

  check::test("what a killed checkpoint saved is not saved again, but made durable before the ring gives it up", [] {
    // Each restart after it had the outcome twice in the file, out of the order of time.
    Directory directory;
    {
      Life life(directory, 10, 600);
      for (uint32_t key = 1; key <= 3; key++) life.save(key, key);
    }
    const uint64_t bytes = files_bytes(directory);
    {
      Life life(directory, 10, 600);
      // The slot of the last two was never written: the recovery meets their records again.
      for (uint32_t key = 2; key <= 3; key++) life.add_again(key, key);
      life.add(4, 4);
      CHECK_EQ(life.outcomes.save(life.outcomes.encode(3), 3), 0);
      CHECK_EQ(files_bytes(directory), bytes);
      CHECK_EQ(life.outcomes.save(life.outcomes.encode(4), 4), 0);
      CHECK_EQ(life.outcomes.size(), 4u);
    }
    Life life(directory, 10, 600);
    for (uint32_t key = 1; key <= 4; key++) CHECK_EQ(life.find(key), std::string("answer"));
    CHECK_EQ(life.outcomes.size(), 4u);
  });

  check::test("what a checkpoint saved is not saved again by the next one, if its slot could not be written", [] {
    // Each attempt appended all of them once more, until the file was taken for full and older ones were given up.
    Directory directory;
    Life life(directory, 10, 600);
    for (uint32_t key = 1; key <= 3; key++) life.add(key, key);
    CHECK_EQ(life.outcomes.save(life.outcomes.encode(3), 3), 0);
    const uint64_t bytes = files_bytes(directory);
    life.add(4, 4);
    CHECK_EQ(life.outcomes.save(life.outcomes.encode(4), 4), 0);
    CHECK_EQ(files_bytes(directory), bytes / 3 * 4);
  });

  check::test("large answers end early rather than fill the memory and the disk", [] {
    Directory directory;
    constexpr uint64_t kBytes = 100000;
    {
      Life life(directory, 1000, 600, kBytes);
      for (uint32_t key = 1; key <= 100; key++)
        life.save(key, key, 0, std::string(9000, static_cast<char>('a' + key % 26)));
      CHECK(life.outcomes.size() < 25);
      CHECK(files_bytes(directory) <= 2 * kBytes);
    }
    Life life(directory, 1000, 600, kBytes);
    CHECK(life.outcomes.size() >= 10);
    CHECK_EQ(life.find(100).size(), 9000u);
    CHECK_EQ(life.find(91).size(), 9000u);
  });

#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
  check::test("outcomes whose sync failed are written anew, and hide nothing", [] {
    Directory directory;
    {
      Life life(directory, 10, 600);
      life.save(1, 1);
      life.add(2, 2);
      failpoint::arm("sync_data=eio@1", nullptr);
      CHECK(life.outcomes.save(life.outcomes.encode(2), 2) != 0);
      failpoint::arm("", nullptr);
      CHECK_EQ(files_bytes(directory), sizeof(OutcomeHeader) + 6);
      life.add(3, 3);
      CHECK_EQ(life.outcomes.save(life.outcomes.encode(3), 3), 0);
    }
    Life life(directory, 10, 600);
    for (uint32_t key = 1; key <= 3; key++) CHECK_EQ(life.find(key), std::string("answer"));
  });
#endif

  return check::done();
}
