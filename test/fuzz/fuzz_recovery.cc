// fuzz_recovery.cc - any bytes in a killed store's files: it is refused with a reason, or a region is faulted, or the
// state is one that was; never another one, and never a read or write beside the files' bytes. For libFuzzer.
//
// An input is a list of edits of the files of one small store that was killed with batches committed and not applied:
//   byte 0   bit 0: the machine was started anew since; bit 1: checksums are made to fit after the edits, so that what
//            is behind them is reached as well (forged records say what they like: then it is not asked which state)
//   then     which file (1 byte; 0x40: cut off there, 0x80: made longer by that much), where among the bytes that are in
//            use (2 bytes), how many (1 byte), those bytes
#include <sys/resource.h>
#include <sys/stat.h>

#include "../../native/crc32c.h"
#include "../../native/record.h"
#include "../native/stores.h"

using namespace holdfast;
using namespace holdfast::frames;
using namespace holdfast::stores;

namespace {

constexpr int kBatches = 4;
constexpr uint64_t kDemoBytes = 512, kCountAt = 504, kOtherBytes = 300, kTextAt = 100;
constexpr uint32_t kRegionsMax = 4;
constexpr size_t kRingBytes = kPageBytes;
// A forged size must not fill the memory that the files lie in.
constexpr rlim_t kFileBytesMax = 8 << 20;

void require(bool holds, const std::string& what) {
  if (holds) return;
  fprintf(stderr, "broken: %s\n", what.c_str());
  abort();
}

// Where the files are made: in memory, or nothing would be tried often.
std::string scratch() {
  const char* given = getenv("TMPDIR");
  return given != nullptr ? given : "/dev/shm";
}

StoreOptions options_in(const std::string& directory) {
  StoreOptions options = small_options(directory);
  options.batch.batch_bytes_max = 1024;
  options.journal_bytes = kRingBytes;
  options.regions_max = kRegionsMax;
  options.threads = false;
  options.assume_same_files = true;
  return options;
}

// What the batch of this number writes into `other`.
std::string text_of(uint64_t number) { return "text" + std::to_string(number); }

Bytes batch_frame(int number) {
  FrameParts parts;
  parts.regions = {"demo", "other"};
  parts.ops = {add_op(0, ValueType::u64, 1), add_op(kCountAt, ValueType::u64, 1),
               write_op(kTextAt, text_of(static_cast<uint64_t>(number))).in(1)};
  parts.flags = kFrameHasKey;
  Bytes frame = make_frame(parts);
  memset(frame.data() + offsetof(FrameHeader, key), number, 16);
  return frame;
}

struct StoreFile {
  std::string path;
  Bytes bytes;
  std::vector<std::pair<size_t, size_t>> used;  // what edits may touch: from, to
};

// The killed store, and the directory in which each input's copy is made.
class Killed {
 public:
  Killed() : directory_(scratch()), copy_(directory_ / "copy") {
    struct rlimit limit = {kFileBytesMax, kFileBytesMax};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    const std::string made = directory_ / "made";
    const int status = Lives::in_process([&] {
      auto* client = new Client(options_in(made));
      Answer answer;
      bool good = client->code == Code::ok && client->create("demo", kDemoBytes, Durability::ordered) == Code::ok &&
                  client->create("other", kOtherBytes, Durability::fast) == Code::ok;
      MetaChange change;
      change.labels = R"({"a":"b"})";
      good = good && client->update("other", change) == Code::ok;
      for (int i = 1; i <= kBatches; i++) {
        client->start(batch_frame(i), static_cast<uint64_t>(i), &answer);
        // The first one is checkpointed, so that the outcomes file and a slot say something.
        if (i == 1) client->store->flush_step();
        if (i == 1) good = good && client->store->checkpoint_step() == 0;
      }
      if (good) kill(getpid(), SIGKILL);
      fprintf(stderr, "%s\n", client->detail.c_str());
    });
    require(WIFSIGNALED(status), "the store can be made");
    for (const char* path :
         {"journal", "store.lock", "outcomes.0", "outcomes.1", "regions/demo/meta", "regions/demo/data",
          "regions/demo/control", "regions/other/meta", "regions/other/data", "regions/other/control"}) {
      StoreFile file;
      file.path = path;
      file.bytes = file_bytes(made + "/" + path);
      file.used = {{0, std::min<size_t>(file.bytes.size(), 512)}};
      if (file.path == "journal") {
        const size_t slot = checkpoint_slot_bytes(kRegionsMax), ring = journal_ring_offset(kRegionsMax);
        file.used = {{ring, ring + kRingBytes},
                     {0, sizeof(JournalHeader)},
                     {kPageBytes, kPageBytes + 160},
                     {kPageBytes + slot, kPageBytes + slot + 160}};
      }
      files.push_back(std::move(file));
    }
    std::filesystem::remove_all(made);
  }

  std::vector<StoreFile> files;

  // Makes the copy of `edited`, which is `files` with other bytes in the places in use and other sizes.
  const std::string& make(const std::vector<StoreFile>& edited) const {
    std::filesystem::remove_all(copy_);
    for (const char* folder : {"/regions/demo", "/regions/other"}) std::filesystem::create_directories(copy_ + folder);
    for (const StoreFile& file : edited) {
      const int fd = ::open((copy_ + "/" + file.path).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
      bool made = fd >= 0 && ftruncate(fd, static_cast<off_t>(file.bytes.size())) == 0;
      // The rest of the journal is zeros: they stay a hole.
      for (const auto& [from, to] : file.used) {
        const size_t end = std::min(to, file.bytes.size());
        made = made && (from >= end || pwrite(fd, &file.bytes[from], end - from, static_cast<off_t>(from)) ==
                                           static_cast<ssize_t>(end - from));
      }
      close(fd);
      require(made, "a file can be made");
    }
    return copy_;
  }

 private:
  Directory directory_;
  std::string copy_;
};

void fit_journal(Bytes* journal) {
  const size_t slot_bytes = checkpoint_slot_bytes(kRegionsMax), ring = journal_ring_offset(kRegionsMax);
  if (journal->size() < ring + kRingBytes) return;
  auto* header = reinterpret_cast<JournalHeader*>(journal->data());
  header->crc = 0;
  header->crc = crc32c(0, header, sizeof *header);
  CheckpointHeader newest = {};
  for (uint64_t which = 0; which < 2; which++) {
    auto* slot = reinterpret_cast<CheckpointHeader*>(journal->data() + kPageBytes + which * slot_bytes);
    const size_t used = sizeof *slot + std::min(slot->region_count, kRegionsMax) * sizeof(CheckpointRegion);
    slot->crc = 0;
    slot->crc = crc32c(0, slot, used);
    if (slot->sequence >= newest.sequence) newest = *slot;
  }
  // Twice in a row, as the store maps it.
  Bytes twice(2 * kRingBytes);
  memcpy(twice.data(), journal->data() + ring, kRingBytes);
  memcpy(twice.data() + kRingBytes, journal->data() + ring, kRingBytes);
  uint32_t seed = newest.chain_seed;
  for (size_t at = newest.ring_position / kRecordAlign * kRecordAlign % kRingBytes, done = 0; done < kRingBytes;) {
    auto* record = reinterpret_cast<RecordHeader*>(twice.data() + at);
    const uint64_t bytes = record->total_bytes;
    if (bytes < sizeof *record || bytes % kRecordAlign != 0 || bytes > kRingBytes) break;
    seed = record->crc = record_crc(*record, seed);
    memcpy(journal->data() + ring + at + offsetof(RecordHeader, crc), &record->crc, sizeof record->crc);
    done += bytes;
    at = (at + bytes) % kRingBytes;
  }
}

void fit_meta(Bytes* meta) {
  if (meta->size() < sizeof(MetaHeader)) return;
  const uint32_t zero = 0;
  memcpy(meta->data() + offsetof(MetaHeader, crc), &zero, sizeof zero);
  const uint32_t crc = crc32c(0, meta->data(), meta->size());
  memcpy(meta->data() + offsetof(MetaHeader, crc), &crc, sizeof crc);
}

// What a client sees of a region; a faulted one says nothing.
struct Seen {
  uint64_t size, generation;
  std::string labels, bytes;
  bool operator==(const Seen&) const = default;
};
using State = std::map<std::string, Seen>;

State state_of(Client& client) {
  State state;
  for (const std::string& name : client.store->names()) {
    const RegionInfo info = client.info(name);
    if (!info.fault.empty()) continue;
    // A forged size may be anything.
    const std::string bytes = info.meta.size <= 4096 ? client.read(name, 0, info.meta.size) : "";
    state[name] = {info.meta.size, info.generation, info.meta.labels, bytes};
  }
  return state;
}

// Which edits there were, and so what the state can be asked for.
struct Edited {
  bool other_boot, fit;
  bool sizes = false, words = false, data = false, ring = false, slots = false;
};

Edited edit(const uint8_t* bytes, size_t size, std::vector<StoreFile>* files) {
  Edited edited = {(bytes[0] & 1) != 0, (bytes[0] & 2) != 0};
  for (size_t at = 1; at + 4 < size;) {
    StoreFile& file = (*files)[(bytes[at] & 0x3f) % files->size()];
    size_t in_use = 0;
    for (const auto& [from, to] : file.used) in_use += to - from;
    size_t where = (bytes[at + 1] | size_t{bytes[at + 2]} << 8) % std::max<size_t>(in_use, 1);
    const size_t length = std::min<size_t>(bytes[at + 3], size - at - 4);
    edited.words |= file.path == "store.lock" || file.path.ends_with("/control");
    edited.data |= file.path.ends_with("/data");
    edited.ring |= file.path == "journal" && where < kRingBytes;
    edited.slots |= file.path == "journal" && where >= kRingBytes;
    if (bytes[at] & 0xc0) {
      edited.sizes = true;
      const size_t longer = bytes[at] & 0x80 ? file.bytes.size() + where : std::min(file.bytes.size(), where * 64);
      file.bytes.resize(longer);
    } else {
      for (const auto& [from, to] : file.used) {
        if (where >= to - from) {
          where -= to - from;
          continue;
        }
        const size_t end = std::min({from + where + length, to, file.bytes.size()});
        if (from + where < end) memcpy(&file.bytes[from + where], bytes + at + 4, end - from - where);
        break;
      }
    }
    at += 4 + length;
  }
  for (StoreFile& file : *files) {
    if (edited.fit && file.path == "journal") fit_journal(&file.bytes);
    if (edited.fit && file.path.ends_with("/meta")) fit_meta(&file.bytes);
    if (edited.other_boot && file.path == "store.lock" && file.bytes.size() >= sizeof(StoreWords))
      memset(file.bytes.data() + offsetof(StoreWords, boot_id), 0x5a, 16);
  }
  return edited;
}

// That each region is after a whole number of batches, both after the same one, and after all if they must be.
void check_count(const Edited& edited, const State& state, const RecoveryReport& recovery) {
  // Words that name this boot are believed; data and sizes have no checksum; and with a slot lost there must be a ring
  // that tells what it told.
  if (edited.fit || edited.words || edited.data || edited.sizes || (edited.slots && edited.ring)) return;
  const auto must_be_last = [&](uint64_t count) {
    if (!edited.other_boot && recovery.row != RecoveryRow::C)
      require(count == kBatches, "what was committed is there after a kill");
    if (edited.other_boot && !edited.ring) require(count == kBatches, "what the journal has is there after a restart");
  };
  if (state.contains("demo")) {
    const Seen& demo = state.at("demo");
    uint64_t count = 0;
    require(demo.bytes.size() == kDemoBytes, "a region that is not faulted can be read");
    memcpy(&count, demo.bytes.data() + kCountAt, sizeof count);
    require(demo.generation == count && memcmp(demo.bytes.data(), &count, sizeof count) == 0,
            "the bytes are those of generation " + std::to_string(demo.generation) + ": " + std::to_string(count));
    require(count <= kBatches, "no batch is there twice");
    must_be_last(count);
  }
  // A fast region may be ahead of its journal, or behind it, after a restart of the machine.
  if (state.contains("other") && !edited.other_boot) {
    const Seen& other = state.at("other");
    require(other.bytes.size() == kOtherBytes, "a region that is not faulted can be read");
    // The first batch is in the data file.
    require(other.generation >= 1 && other.generation <= kBatches,
            "no state of `other` had generation " + std::to_string(other.generation));
    std::string expected(kOtherBytes, '\0');
    const std::string text = text_of(other.generation);
    expected.replace(kTextAt, text.size(), text);
    require(other.bytes == expected, "the bytes of `other` are those of generation " +
                                         std::to_string(other.generation) + ": " +
                                         other.bytes.substr(kTextAt, text.size()));
    must_be_last(other.generation);
    if (state.contains("demo"))
      require(other.generation == state.at("demo").generation, "a batch is in both of its regions or in none");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const Killed killed;
  static std::vector<StoreFile> files;
  if (size == 0) return 0;
  files = killed.files;
  const Edited edited = edit(bytes, size, &files);
  const std::string& directory = killed.make(files);

  auto client = std::make_unique<Client>(options_in(directory));
  const Code code = client->code;
  if (code != Code::ok) {
    require(!client->detail.empty(), "a refusal says why");
    client = std::make_unique<Client>(options_in(directory));
    require(client->code == code, "a second opening gives the same refusal");
    return 0;
  }
  const RecoveryReport recovery = client->recovery();
  const State first = state_of(*client);
  check_count(edited, first, recovery);
  // It takes batches as any other store, or refuses them.
  for (const auto& [name, seen] : first) client->write(name, 0, "x");
  client->store->flush_step();
  const State written = state_of(*client);
  client.reset();
  if (!edited.fit && !edited.words && !edited.data && !edited.sizes && !(edited.slots && edited.ring) &&
      recovery.faulted.empty()) {
    const std::vector<std::string> problems = consistency::Checker(directory, Ended::closed_a_copy).run();
    require(problems.empty(), problems.empty() ? "" : "inconsistent: " + problems.front());
  }
  client = std::make_unique<Client>(options_in(directory));
  require(client->code == Code::ok, "a second opening is refused: " + client->detail);
  const State second = state_of(*client);
  for (const auto& [name, seen] : written)
    require(second.contains(name) && second.at(name) == seen, name + " is another one after a second opening");
  return 0;
}
