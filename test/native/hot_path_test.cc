// hot_path_test.cc - a batch on pages that are populated asks the kernel for nothing.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "stores.h"

using namespace holdfast;
using namespace holdfast::stores;

namespace {

constexpr uint64_t kRegionBytes = uint64_t{1} << 20;
constexpr int kCaught = 9;

// Without the sanitizers' last words, which are system calls as well.
[[noreturn]] void leave(int code) {
  syscall(SYS_exit_group, code);
  __builtin_unreachable();
}

extern "C" void on_system_call(int, siginfo_t* info, void*) {
  char line[64];
  const int length = snprintf(line, sizeof line, "# system call %d\n", info->si_syscall);
  if (write(STDOUT_FILENO, line, static_cast<size_t>(length)) < 0) leave(kCaught);
  leave(kCaught);
}

// From here on the calling thread may write and exit; any other system call ends the process with kCaught.
void forbid_system_calls() {
  struct sigaction action = {};
  action.sa_sigaction = on_system_call;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSYS, &action, nullptr);
  std::vector<sock_filter> program = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  std::vector<uint32_t> allowed = {SYS_write, SYS_exit_group};
#if defined(__SANITIZE_ADDRESS__)
  // Its allocator's own, and what it asks before a function that does not return.
  allowed.insert(allowed.end(), {SYS_mmap, SYS_munmap, SYS_madvise, SYS_futex, SYS_sched_yield, SYS_sigaltstack});
#endif
  for (const uint32_t call : allowed) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
  const sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) _exit(8);
}

frames::FrameParts batch_at(uint64_t offset) {
  frames::FrameParts parts;
  parts.regions = {"hot"};
  parts.ops = {frames::write_op(offset, std::string(64, 'x')), frames::add_op(offset + 64, ValueType::u64, 1),
               frames::read_op(offset, 16)};
  return parts;
}

// In a process of its own: a `fast` region whose first half is populated, then `batches` of which each may lie up to
// `reach`. How it exits: 0, or kCaught.
int run_without_system_calls(uint64_t reach, int batches) {
  const pid_t child = fork();
  if (child == 0) {
    Directory directory;
    StoreOptions options;
    options.directory = directory.path();
    Client client(options);
    if (client.create("hot", kRegionBytes, Durability::fast) != Code::ok) _exit(7);
    Answer answer;
    // Every page, and often enough that whatever is reused from batch to batch has grown to its size.
    for (uint64_t i = 0; i < 4096; i++) {
      const Bytes frame = frames::make_frame(batch_at(i * 128 % (kRegionBytes / 2)));
      if (client.start(frame, 1, &answer) && answer.code() != Code::ok) _exit(6);
    }
    std::vector<Bytes> made;
    for (int i = 0; i < 64; i++) made.push_back(frames::make_frame(batch_at(static_cast<uint64_t>(i) * (reach / 64))));
    std::filesystem::remove_all(directory.path());
    forbid_system_calls();
    for (int i = 0; i < batches; i++) {
      // The checkpoint's thread may hold the lock for a moment.
      while (!client.start(made[static_cast<size_t>(i) % made.size()], 1, &answer, Store::Patience::never_block)) {
        if (reach > kRegionBytes / 2) client.start(made.back(), 1, &answer);
      }
    }
    leave(answer.code() == Code::ok ? 0 : 5);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

int main() {
  check::test("a batch on populated pages makes no system call, 20,000 times",
              [] { CHECK_EQ(run_without_system_calls(kRegionBytes / 2, 20000), 0); });
  check::test("one that populates a page is caught at it",
              [] { CHECK_EQ(run_without_system_calls(kRegionBytes, 64), kCaught); });
  return check::done();
}
