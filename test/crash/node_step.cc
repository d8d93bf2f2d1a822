// node_step.cc - kills a service, Node and all, at every machine instruction of what its store does for batches over HTTP.
//
// The service is another process, which this one attaches to (PTRACE_SEIZE). Each of its threads stops where the addon's
// commit, flush or checkpoint begins (debug registers: not a byte of the code is changed) and is single-stepped until that
// returns; no other thread is inside of the store meanwhile. After each instruction that changed a byte of the files they
// are copied, recovered by the real code, and judged: the state after all answered batches, or with the one that is being
// asked for as well, and never anything else.
#include <arpa/inet.h>
#include <elf.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <deque>
#include <filesystem>
#include <memory>
#include <set>
#include <string>

#include "../../native/store.h"
#include "../native/consistency.h"
#include "batches.h"
#include "live_files.h"
#include "rig_program.h"
#include "stepping.h"

namespace holdfast::rig {
namespace {

#if defined(__x86_64__)

struct RunSettings : Settings {
  uint64_t points = 10000;
  pid_t pid = 0;
  uint16_t port = 0;
  std::string store;
  std::string mutant;
};

// What is stepped, by the beginnings of the functions' names in the addon's symbol table.
constexpr const char* kFunctions[] = {"_ZN8holdfast5Store6commitE", "_ZN8holdfast5Store10flush_stepE",
                                      "_ZN8holdfast5Store10checkpointE"};
constexpr const char* kFunctionNames[] = {"commit", "flush", "checkpoint"};
constexpr size_t kFunctionCount = std::size(kFunctions);

enum Region : uint32_t { kFast, kOrdered, kDurable };

World new_world() {
  World world(3);
  world[kFast] = {"fast", Durability::fast, std::vector<uint8_t>(9000, 0), 0, true};
  world[kOrdered] = {"ordered", Durability::ordered, std::vector<uint8_t>(8199, 0), 0, true};
  world[kDurable] = {"durable", Durability::durable, std::vector<uint8_t>(5000, 0), 0, true};
  return world;
}

std::string hex(const std::vector<uint8_t>& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", byte);
    text += two;
  }
  return text;
}

// Some writes in one to three regions, as a body of POST /v1/batches.
std::string body_of(const RigBatch& batch, const World& world) {
  std::string text;
  for (const Op& op : batch.ops) {
    text += text.empty() ? "{\"ops\":[" : ",";
    text += "{\"op\":\"write\",\"region\":\"" + world[op.op.region].name +
            "\",\"offset\":" + std::to_string(op.op.offset) + ",\"encoding\":\"hex\",\"data\":\"" + hex(op.data) +
            "\"}";
  }
  return text + "]}";
}

RigBatch random_batch(Random& random, const World& world) {
  RigBatch batch;
  const std::vector<uint32_t> choices[] = {{kFast},           {kOrdered},           {kDurable},
                                           {kOrdered, kFast}, {kDurable, kOrdered}, {kFast, kOrdered, kDurable}};
  for (const uint32_t region : choices[random.below(std::size(choices))]) {
    for (uint64_t i = random.between(1, 3); i > 0; --i) {
      const uint64_t length = random.between(1, 100);
      batch.write(region, random.below(world[region].bytes.size() - length + 1), random_bytes(random, length));
    }
  }
  return batch;
}

// One request of HTTP/1.1, on a connection of its own.
class Request {
 public:
  Request(uint16_t port, const std::string& path, const std::string& body) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const std::string text = "POST " + path +
                             " HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: "
                             "application/json\r\ncontent-length: " +
                             std::to_string(body.size()) + "\r\n\r\n" + body;
    if (fd_ < 0 || connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        send(fd_, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
      die("can't send a request to the service");
  }
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  ~Request() { ::close(fd_); }

  // Waits a little; true when all of the answer has come.
  bool answered() {
    pollfd wanted{fd_, POLLIN, 0};
    if (poll(&wanted, 1, 1) <= 0) return false;
    char some[4096];
    const ssize_t got = recv(fd_, some, sizeof some, 0);
    if (got > 0) answer_.append(some, static_cast<size_t>(got));
    return got <= 0;
  }
  bool good() const { return answer_.starts_with("HTTP/1.1 2"); }
  const std::string& answer() const { return answer_; }

 private:
  int fd_ = -1;
  std::string answer_;
};

// ---- where the functions are ----

// The address of each function in its file's symbol table.
std::vector<uint64_t> find_functions(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat facts {};
  if (fd < 0 || fstat(fd, &facts) != 0) die("can't open the addon");
  const auto length = static_cast<size_t>(facts.st_size);
  void* mapped = mmap(nullptr, length, PROT_READ, MAP_PRIVATE, fd, 0);
  if (mapped == MAP_FAILED) die("can't map the addon");
  ::close(fd);
  const auto* bytes = static_cast<const uint8_t*>(mapped);
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(bytes);
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(bytes + header->e_shoff);
  std::vector<uint64_t> found(kFunctionCount, 0);
  for (size_t i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(bytes + sections[i].sh_offset);
    const auto* names = reinterpret_cast<const char*>(bytes + sections[sections[i].sh_link].sh_offset);
    for (size_t s = 0; s < sections[i].sh_size / sizeof *symbols; ++s) {
      const std::string_view name = names + symbols[s].st_name;
      if (ELF64_ST_TYPE(symbols[s].st_info) != STT_FUNC || name.find(".cold") != name.npos) continue;
      for (size_t f = 0; f < kFunctionCount; ++f)
        if (name.starts_with(kFunctions[f])) found[f] = symbols[s].st_value;
    }
  }
  munmap(mapped, length);
  for (const uint64_t address : found)
    if (address == 0) die("the addon's symbol table does not name what is to be stepped");
  return found;
}

// ---- stepping ----

struct Totals {
  uint64_t points = 0, states = 0, batches = 0, checked = 0;
  uint64_t by_function[kFunctionCount] = {};
};

class Run {
 public:
  explicit Run(const RunSettings& settings)
      : settings_(settings),
        random_(settings.seed),
        copy_(settings.scratch + "/judged"),
        watch_(settings.store, settings.pid) {
    locate();
  }

  Totals totals;
  std::string failure;
  bool judged = true;  // false: the service did something of its own, which says nothing about kills

  // Batches until so many points have been judged that every function has had some, or a judgement fails.
  void go() {
    worlds_ = {new_world()};
    attach();
    for (const Expected& region : worlds_[0]) create(region);
    stepping_ = true;
    while (failure.empty() && enough == 0 && wanted()) batch();
    if (failure.empty()) detach();
  }

 private:
  bool wanted() const {
    return totals.points < settings_.points ||
           std::count(std::begin(totals.by_function), std::end(totals.by_function), 0) > 0;
  }

  void locate() {
    std::FILE* maps = std::fopen(("/proc/" + std::to_string(settings_.pid) + "/maps").c_str(), "re");
    if (maps == nullptr) die("can't read what the service has mapped");
    char line[4400], path[4096];
    // The first mapping of a file is that of its start, where its addresses count from.
    while (std::fgets(line, sizeof line, maps) != nullptr) {
      unsigned long long from = 0;
      if (std::sscanf(line, "%llx-%*x %*s %*s %*s %*s %4095s", &from, path) != 2 ||
          !std::string_view(path).ends_with(".node")) {
        continue;
      }
      functions_ = find_functions(path);
      for (uint64_t& address : functions_) address += from;
      break;
    }
    std::fclose(maps);
    if (functions_.empty()) die("the service has no addon");
  }

  void attach() {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(settings_.pid) + "/task")) {
      const auto thread = static_cast<pid_t>(std::stol(entry.path().filename()));
      if (ptrace(PTRACE_SEIZE, thread, nullptr, PTRACE_O_TRACECLONE) != 0) die("can't attach to a thread");
      if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0) die("can't interrupt a thread");
      threads_.insert(thread);
    }
    for (const pid_t thread : threads_) {
      int status = 0;
      if (waitpid(thread, &status, __WALL) != thread || !WIFSTOPPED(status)) die("can't stop a thread");
      arm(thread, true);
      resume(thread, 0);
    }
  }

  // Each thread has its own debug registers: address and enabling bit (for this task, on execution, of one byte).
  void arm(pid_t thread, bool on) {
    uint64_t enabled = 0;
    for (size_t i = 0; i < kFunctionCount; ++i) {
      if (on) poke(thread, offsetof(user, u_debugreg) + i * sizeof(uint64_t), functions_[i]);
      enabled |= on ? uint64_t{1} << (2 * i) : 0;
    }
    poke(thread, offsetof(user, u_debugreg) + 7 * sizeof(uint64_t), enabled);
  }
  static void poke(pid_t thread, size_t offset, uint64_t value) {
    if (ptrace(PTRACE_POKEUSER, thread, offset, value) != 0) die("can't set a debug register");
  }

  static void resume(pid_t thread, int signal) { ptrace(PTRACE_CONT, thread, nullptr, signal); }

  // Leaves the service to itself, as it was.
  void detach() {
    for (const pid_t thread : threads_) ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr);
    for (const pid_t thread : threads_) {
      int status = 0;
      if (waitpid(thread, &status, __WALL) != thread || !WIFSTOPPED(status)) continue;
      arm(thread, false);
      ptrace(PTRACE_DETACH, thread, nullptr, nullptr);
    }
  }

  // What a stop of a thread asks for. True: it is at the beginning of a function, and stays there.
  bool at_function(pid_t thread, int status) {
    if (!WIFSTOPPED(status)) {
      threads_.erase(thread);
      if (thread == settings_.pid) lost("the service ended by itself");
      return false;
    }
    const int event = status >> 16, signal = WSTOPSIG(status);
    if (!threads_.contains(thread)) {
      threads_.insert(thread);
      arm(thread, true);
      resume(thread, 0);
      return false;
    }
    if (event == 0 && signal == SIGTRAP) {
      const uint64_t address = registers(thread).rip;
      if (stepping_ && std::find(functions_.begin(), functions_.end(), address) != functions_.end()) return true;
      resume(thread, 0);
      return false;
    }
    resume(thread, event == 0 ? signal : 0);
    return false;
  }

  static user_regs_struct registers(pid_t thread) {
    user_regs_struct all{};
    ptrace(PTRACE_GETREGS, thread, nullptr, &all);
    return all;
  }

  // Handles what the threads do until one is at the beginning of a function; 0: none is, for now.
  pid_t next_stopped() {
    if (!held_.empty()) {
      const pid_t thread = held_.front();
      held_.pop_front();
      return thread;
    }
    for (;;) {
      int status = 0;
      const pid_t thread = waitpid(-1, &status, __WALL | WNOHANG);
      if (thread <= 0) return 0;
      if (at_function(thread, status)) return thread;
    }
  }

  // One instruction. Other threads go on, but not into the store. False: the thread is gone.
  bool step(pid_t thread) {
    for (int signal = 0;;) {
      if (ptrace(PTRACE_SINGLESTEP, thread, nullptr, signal) != 0) return lost("a thread can't be stepped");
      int status = 0;
      pid_t which = 0;
      while ((which = waitpid(-1, &status, __WALL)) != thread) {
        if (which <= 0) return lost("the service is gone");
        if (at_function(which, status)) held_.push_back(which);
      }
      if (!WIFSTOPPED(status)) return lost("a thread ended within the store");
      const int event = status >> 16;
      if (event == 0 && WSTOPSIG(status) == SIGTRAP) return true;
      if (event == 0 && (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGABRT))
        return lost("the service crashed within the store");
      signal = event == 0 ? WSTOPSIG(status) : 0;
    }
  }

  bool lost(const char* how) {
    judged = false;
    failure = how;
    return false;
  }

  // From the beginning of a function to its return.
  void step_through(pid_t thread) {
    user_regs_struct now = registers(thread);
    const size_t function =
        static_cast<size_t>(std::find(functions_.begin(), functions_.end(), now.rip) - functions_.begin());
    const uint64_t stack = now.rsp;
    const auto back = static_cast<uint64_t>(ptrace(PTRACE_PEEKDATA, thread, stack, nullptr));
    watch_.after_system_call();
    if (watch_.changed()) judge();
    while (failure.empty() && !(now.rip == back && now.rsp > stack)) {
      const bool calls = (ptrace(PTRACE_PEEKTEXT, thread, now.rip, nullptr) & 0xffff) == 0x050f;
      if (!step(thread)) return;
      now = registers(thread);
      ++totals.points;
      ++totals.by_function[function];
      if (calls) watch_.after_system_call();
      if (watch_.changed()) judge();
      if (!failure.empty() && judged) {
        failure +=
            std::string(" (in ") + kFunctionNames[function] + ", batch " + std::to_string(worlds_.size() - 1) + ")";
      }
    }
    if (failure.empty()) resume(thread, 0);
  }

  void wait_for(Request* request) {
    while (failure.empty()) {
      if (const pid_t thread = next_stopped(); thread > 0)
        step_through(thread);
      else if (request->answered())
        break;
    }
    if (failure.empty() && !request->good()) {
      judged = false;
      failure = "the service answers " + request->answer().substr(0, 400);
    }
  }

  // Each is named for its durability.
  void create(const Expected& region) {
    if (!failure.empty()) return;
    Request request(settings_.port, "/v1/regions",
                    "{\"name\":\"" + region.name + "\",\"size\":" + std::to_string(region.bytes.size()) +
                        ",\"durability\":\"" + region.name + "\"}");
    wait_for(&request);
  }

  void batch() {
    World next = worlds_.back();
    const RigBatch batch = random_batch(random_, next);
    batch.apply(&next);
    worlds_.push_back(std::move(next));
    ++totals.batches;
    Request request(settings_.port, "/v1/batches", body_of(batch, worlds_[0]));
    wait_for(&request);
    if (!failure.empty()) return;
    // It is answered: from here on it is always there.
    worlds_.pop_front();
    watch_.after_system_call();
    watch_.changed();
    judge();
  }

  // Recovers a copy of the files as they are. The worlds: after all answered batches, and after the one that is asked for.
  void judge() {
    ++totals.states;
    materialize(watch_.state(), &copy_);
    StoreOptions options = store_options(copy_.directory());
    options.assume_same_files = true;
    if (random_.chance(12)) {
      ++totals.checked;
      for (const std::string& problem : consistency::Checker(copy_.directory(), consistency::Ended::killed).run())
        // The core's check knows the core's files; this one is the service's.
        if (!problem.starts_with("last-run.json")) failure = "inconsistent: " + problem;
      if (!failure.empty()) return;
    }
    std::unique_ptr<Store> store;
    std::string detail;
    if (const Code code = Store::open(options, &store, &detail); code != Code::ok) {
      failure = std::string("recovery refuses: ") + code_name(code) + " " + detail;
      return;
    }
    World seen;
    failure = observe(*store, worlds_[0], &seen);
    if (!failure.empty()) return;
    for (const World& world : worlds_)
      if (seen == world) return;
    failure = worlds_.size() == 1 ? "an answered batch is lost or torn" : "torn or lost";
    for (size_t r = 0; r < seen.size(); ++r) {
      const Expected &then = worlds_.back()[r], &now = seen[r];
      size_t at = 0;
      while (at < now.bytes.size() && now.bytes[at] == then.bytes[at]) ++at;
      if (at < now.bytes.size() || now.generation != then.generation)
        failure += ": " + now.name + " at generation " + std::to_string(now.generation) + " instead of " +
                   std::to_string(then.generation) + " differs at byte " + std::to_string(at);
    }
  }

  const RunSettings& settings_;
  Random random_;
  StoreFiles copy_;
  Watch watch_;
  std::vector<uint64_t> functions_;
  std::set<pid_t> threads_;
  std::deque<pid_t> held_;  // at the beginning of a function, until it is their turn
  std::deque<World> worlds_;
  bool stepping_ = false;
};

int run(const RunSettings& settings) {
  const auto start = std::chrono::steady_clock::now();
  Run run(settings);
  run.go();
  const Totals& totals = run.totals;
  const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!run.failure.empty()) std::printf("%s: %s\n", run.judged ? "FAILED" : "ENDED", run.failure.c_str());
  std::printf("points by what was killed:");
  for (size_t i = 0; i < kFunctionCount; ++i) std::printf(" %s %llu", kFunctionNames[i], number(totals.by_function[i]));
  std::printf(
      "\nnode_step: %llu kill points, %llu states judged, %llu batches, %llu consistency checks, %s; seed %llu; %.1f "
      "s\n",
      number(totals.points), number(totals.states), number(totals.batches), number(totals.checked),
      run.failure.empty() ? "0 torn, 0 lost" : "1 failure", number(settings.seed), seconds);
  if (settings.mutant.empty()) {
    std::printf(
        "figures: {\"points\":%llu,\"states\":%llu,\"batches\":%llu,\"failures\":%d,\"seed\":%llu,\"seconds\":%.0f}\n",
        number(totals.points), number(totals.states), number(totals.batches), run.failure.empty() ? 0 : 1,
        number(settings.seed), seconds);
    return run.failure.empty() ? 0 : 1;
  }
  const bool caught = !run.failure.empty() && run.judged;
  std::printf("%s %s\n", caught ? "caught" : "MISSED", settings.mutant.c_str());
  return caught ? 0 : 1;
}

int main_of(int argc, char** argv) {
  RunSettings settings;
  const std::vector<Option> own = {
      {"points", required_argument, [&](const char* text) { settings.points = std::strtoull(text, nullptr, 10); }},
      {"pid", required_argument, [&](const char* text) { settings.pid = std::atoi(text); }},
      {"port", required_argument, [&](const char* text) { settings.port = static_cast<uint16_t>(std::atoi(text)); }},
      {"store", required_argument, [&](const char* text) { settings.store = text; }},
      {"mutant", required_argument, [&](const char* text) { settings.mutant = text; }}};
  constexpr char kHelp[] =
      "node_step: kills a service at every machine instruction of its store, and judges what recovery makes of it\n"
      "  --pid=N         the service's process, which has made no region yet\n"
      "  --port=N        where it listens, on the loopback\n"
      "  --store=D       its store, with JOURNAL_BYTES=65536, BATCH_BYTES_MAX=8192, REGIONS_MAX=8\n"
      "  --points=N      kill points to judge at least (10000)\n"
      "  --mutant=NAME   the service makes this mistake (HOLDFAST_MUTANTS): it must be found\n";
  return run_program(argc, argv, "node-step", kHelp, &settings, own, [&] { return run(settings); });
}

#else

int main_of(int, char**) {
  std::printf("SKIP node_step knows the debug registers of x86-64 only\n");
  return 77;
}

#endif

}  // namespace
}  // namespace holdfast::rig

int main(int argc, char** argv) { return holdfast::rig::main_of(argc, argv); }
