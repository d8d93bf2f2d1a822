// stores.h - for tests: a directory with a store, what one does with it in one line, and processes that are killed.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../../native/holdfast.h"
#include "../../native/store.h"
#include "check.h"
#include "consistency.h"
#include "frames.h"

namespace holdfast::stores {

using Bytes = std::vector<uint8_t>;
using consistency::Ended;

// A directory that goes away with its owner. On a disk: most machines keep /tmp in memory, where no region is durable.
class Directory {
 public:
  explicit Directory(const std::string& base = "/var/tmp") {
    std::string pattern = base + "/holdfast-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) abort();
    path_ = pattern;
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline Bytes file_bytes(const std::string& path) {
  Bytes bytes;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return bytes;
  struct stat facts;
  fstat(fd, &facts);
  bytes.resize(static_cast<size_t>(facts.st_size));
  const ssize_t got = pread(fd, bytes.data(), bytes.size(), 0);
  bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
  close(fd);
  return bytes;
}

inline void patch_file(const std::string& path, uint64_t offset, const void* from, size_t bytes) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0 || pwrite(fd, from, bytes, static_cast<off_t>(offset)) != static_cast<ssize_t>(bytes)) abort();
  close(fd);
}

inline void make_file(const std::string& path, const Bytes& bytes) {
  close(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
  patch_file(path, 0, bytes.data(), bytes.size());
}

inline void copy_directory(const std::string& from, const std::string& to) {
  std::filesystem::copy(from, to,
                        std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
}

// What an answer frame says.
struct Answer {
  Bytes bytes;

  const AnswerHeader& header() const { return *reinterpret_cast<const AnswerHeader*>(bytes.data()); }
  Code code() const { return static_cast<Code>(header().code); }
  bool replayed() const { return header().flags & kAnswerReplayed; }
  const AnswerRegion& region(size_t i = 0) const {
    return reinterpret_cast<const AnswerRegion*>(bytes.data() + sizeof(AnswerHeader))[i];
  }
  // The data of the first result.
  std::string data() const {
    const size_t at = sizeof(AnswerHeader) + header().region_count * sizeof(AnswerRegion);
    const auto* result = reinterpret_cast<const AnswerResult*>(bytes.data() + at);
    return {reinterpret_cast<const char*>(result + 1), result->data_bytes};
  }
};

// A store and the answers that come later. `run` waits for those.
class Client {
 public:
  explicit Client(StoreOptions options) {
    options.on_settled = [this](std::vector<Settled>&& settled) {
      std::lock_guard<std::mutex> lock(lock_);
      for (Settled& one : settled) answers_[one.ticket].bytes = std::move(one.answer);
      came_.notify_all();
    };
    threads_ = options.threads;
    code = Store::open(std::move(options), &store, &detail);
  }

  // Hands the batch in; false: it is answered later, under the ticket.
  bool start(const Bytes& frame, uint64_t ticket, Answer* answer,
             Store::Patience patience = Store::Patience::may_block) {
    return store->commit(frame, patience, ticket, &answer->bytes) == Store::Progress::done;
  }
  Answer wait(uint64_t ticket) {
    if (!threads_) store->flush_step();
    std::unique_lock<std::mutex> lock(lock_);
    Answer answer;
    if (!came_.wait_for(lock, std::chrono::seconds(20), [&] { return answers_.contains(ticket); })) return no_answer();
    answer = std::move(answers_[ticket]);
    answers_.erase(ticket);
    return answer;
  }
  bool answered(uint64_t ticket) {
    std::lock_guard<std::mutex> lock(lock_);
    return answers_.contains(ticket);
  }
  Answer run(const frames::FrameParts& parts) { return run(frames::make_frame(parts)); }
  Answer run(const Bytes& frame) {
    const uint64_t ticket = ++tickets_;
    Answer answer;
    return start(frame, ticket, &answer) ? answer : wait(ticket);
  }
  // A batch of one write; the answer's code.
  Code write(const std::string& region, uint64_t offset, std::string_view text, Wait how_long = Wait::region_mode) {
    frames::FrameParts parts;
    parts.regions = {region};
    parts.ops = {frames::write_op(offset, text)};
    parts.wait = how_long;
    return run(parts).code();
  }
  std::string read(const std::string& region, uint64_t offset, uint64_t length) {
    std::string bytes(length, '\0');
    Store::ReadFacts facts;
    Code code = Code::ok;
    store->read(region, offset, length, Store::Patience::may_block, reinterpret_cast<uint8_t*>(bytes.data()), &code,
                &facts);
    return code == Code::ok ? bytes : std::string("!") + code_name(code);
  }
  Code create(const std::string& name, uint64_t size, Durability durability, uint32_t flags = 0,
              const std::string& path = "") {
    RegionMeta meta;
    meta.name = name;
    meta.size = size;
    meta.durability = durability;
    meta.flags = flags;
    meta.path = path;
    result = {};
    return store->create(meta, Conditions{}, &result, &detail);
  }
  Code resize(const std::string& name, uint64_t size) {
    MetaChange change;
    change.size = size;
    return update(name, change);
  }
  // With the condition that a shrinking needs. Any thread, as long as nobody looks at `result` and `detail`.
  Code update(const std::string& name, const MetaChange& change) {
    Conditions conditions;
    conditions.if_match = conditions.if_match_any = true;
    MetaResult made;
    std::string why;
    const Code code = store->update(name, change, conditions, &made, &why);
    std::lock_guard<std::mutex> lock(lock_);
    result = std::move(made);
    detail = std::move(why);
    return code;
  }
  Code remove(const std::string& name) {
    result = {};
    return store->remove(name, Conditions{}, &result, &detail);
  }
  RegionInfo info(const std::string& name) { return store->info(name).value_or(RegionInfo{}); }
  RecoveryReport recovery() { return store->status().recovery; }

  std::unique_ptr<Store> store;
  Code code = Code::ok;
  std::string detail;
  MetaResult result;

 private:
  static Answer no_answer() {
    AnswerHeader header = {};
    header.magic = kAnswerMagic;
    header.code = UINT16_MAX;
    Answer answer;
    answer.bytes.resize(sizeof header);
    memcpy(answer.bytes.data(), &header, sizeof header);
    return answer;
  }

  bool threads_ = true;
  uint64_t tickets_ = 1000000;
  std::mutex lock_;
  std::condition_variable came_;
  std::map<uint64_t, Answer> answers_;
};

inline StoreOptions small_options(const std::string& directory) {
  StoreOptions options;
  options.directory = directory;
  options.journal_bytes = 256 << 10;
  options.batch.batch_bytes_max = 16 << 10;
  options.regions_max = 16;
  options.flush_interval_ms = 5;
  options.standby = false;
  options.allow_any_file_system = true;
  return options;
}

// A store's directory through several lives of the store. Checked whenever none is open.
class Lives {
 public:
  explicit Lives(const std::string& base = "/var/tmp") : directory(base), options(small_options(directory / "store")) {}
  // A test whose last store is open ends it in order.
  ~Lives() { close(); }

  // Ends the one that is open in order.
  Client& open() {
    close();
    client_ = std::make_unique<Client>(options);
    if (client_->code != Code::ok) {
      printf("Bail out! %s the store did not open: %s, %s\n", ::check::context.c_str(), code_name(client_->code),
             client_->detail.c_str());
      exit(1);
    }
    return *client_;
  }
  // Opening is expected to fail.
  Code refused() {
    Client client(options);
    detail = client.detail;
    return client.code;
  }
  void close(Ended ended = Ended::closed) {
    if (!client_) return;
    client_.reset();
    check(ended);
  }
  void check(Ended ended) {
    for (const std::string& problem : consistency::Checker(options.directory, ended).run())
      ::check::fail(__FILE__, __LINE__, "inconsistent: " + problem);
  }
  std::string path(const std::string& name) const { return options.directory + "/" + name; }

  // Runs `body` with an open store in another process, which then kills itself.
  void killed_after(const std::function<void(Client&)>& body, bool verify = true) {
    const int status = in_process([&] {
      // Nothing of it is ever destroyed.
      auto* client = new Client(options);
      if (client->code != Code::ok) _exit(90);
      body(*client);
      fflush(stdout);
      if (check::failures_here > 0) _exit(91);
      kill(getpid(), SIGKILL);
    });
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
      ::check::fail(__FILE__, __LINE__, "the process was not killed as planned: status " + std::to_string(status));
    if (verify) check(Ended::killed);
  }
  // The status of a process that runs `body`.
  static int in_process(const std::function<void()>& body) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      check::failures_here = 0;
      body();
      _exit(check::failures_here == 0 ? 0 : 91);
    }
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
  }
  // As if the machine had been started anew since: nothing in memory is known any more.
  void other_boot() {
    const uint64_t other = 0x1234567812345678;
    patch_file(path("store.lock"), offsetof(StoreWords, boot_id), &other, sizeof other);
  }

  Directory directory;
  StoreOptions options;
  std::string detail;

 private:
  std::unique_ptr<Client> client_;
};

inline holdfast_control control_of(const Lives& lives, const std::string& region) {
  holdfast_control control;
  memcpy(&control, file_bytes(lives.path("regions/" + region + "/control")).data(), sizeof control);
  return control;
}

}  // namespace holdfast::stores
