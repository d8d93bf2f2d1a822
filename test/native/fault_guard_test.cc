// fault_guard_test.cc - faults in a truncated file, words that stay whole, and who else may want the signal.
#include "../../native/fault_guard.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "check.h"

using namespace holdfast;

namespace {

constexpr size_t kPage = 4096;

// A file of some pages, mapped shared, that can be cut behind the mapping's back.
class MappedFile {
 public:
  explicit MappedFile(size_t pages) : bytes_(pages * kPage) {
    char path[] = "/tmp/fault_guard_test_XXXXXX";
    file_ = mkstemp(path);
    unlink(path);
    resize(pages);
    data_ = static_cast<uint8_t*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0));
  }
  ~MappedFile() {
    munmap(data_, bytes_);
    close(file_);
  }
  MappedFile(const MappedFile&) = delete;
  uint8_t* data() const { return data_; }
  bool resize(size_t pages) { return ftruncate(file_, static_cast<off_t>(pages * kPage)) == 0; }

 private:
  size_t bytes_;
  int file_;
  uint8_t* data_;
};

// How a child process ends that runs `body`: the signal, or minus its exit status.
template <typename Body>
int end_of(const Body& body) {
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    // A sanitizer prints a report of its own for a fatal signal; only the way it ends counts here.
    close(2);
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

void exit_3(int) { _exit(3); }
void exit_4(int, siginfo_t* info, void*) { _exit(info->si_addr != nullptr ? 4 : 5); }

void handle_with(void (*plain)(int), void (*detailed)(int, siginfo_t*, void*)) {
  struct sigaction action = {};
  if (detailed != nullptr) {
    action.sa_sigaction = detailed;
    action.sa_flags = SA_SIGINFO;
  } else {
    action.sa_handler = plain;
  }
  sigaction(SIGBUS, &action, nullptr);
}

uint8_t fault(size_t page = 0) {
  MappedFile file(page + 1);
  file.resize(0);
  return *static_cast<volatile uint8_t*>(file.data() + page * kPage);
}

}  // namespace

int main() {
  // As the process was started, whatever a sanitizer has installed since.
  signal(SIGBUS, SIG_DFL);

  check::test("fault guard: foreign faults end the process as if there were no guard", [] {
    const auto installed = [](const auto& body) {
      return end_of([&] {
        fault_guard_install();
        body();
      });
    };
    CHECK_EQ(installed([] { fault(); }), SIGBUS);
    CHECK_EQ(installed([] { raise(SIGBUS); }), SIGBUS);
    CHECK_EQ(installed([] { kill(getpid(), SIGBUS); }), SIGBUS);
  });

  check::test("fault guard: foreign faults go to the handler that was there before", [] {
    CHECK_EQ(end_of([] {
               handle_with(exit_3, nullptr);
               fault_guard_install();
               fault();
             }),
             -3);
    CHECK_EQ(end_of([] {
               handle_with(nullptr, exit_4);
               fault_guard_install();
               fault();
             }),
             -4);
    // A sent signal that was ignored stays ignored; a fault can't be.
    CHECK_EQ(end_of([] {
               handle_with(SIG_IGN, nullptr);
               fault_guard_install();
               raise(SIGBUS);
             }),
             0);
    CHECK_EQ(end_of([] {
               handle_with(SIG_IGN, nullptr);
               fault_guard_install();
               fault();
             }),
             SIGBUS);
  });

  check::test("fault guard: a displaced guard knows it, and comes back in front of its displacer", [] {
    CHECK_EQ(end_of([] {
               fault_guard_install();
               handle_with(exit_3, nullptr);
               if (fault_guard_is_ours()) _exit(10);
               fault_guard_install();
               if (!fault_guard_is_ours()) _exit(11);
               MappedFile file(1);
               file.resize(0);
               uint8_t byte;
               if (guarded_copy_in(&byte, file.data(), 1)) _exit(12);
               fault();
             }),
             -3);
  });

  check::test("fault guard: two handlers that pass on to each other don't do so for ever", [] {
    static struct sigaction ours;
    CHECK_EQ(end_of([] {
               fault_guard_install();
               sigaction(SIGBUS, nullptr, &ours);
               handle_with(nullptr, [](int number, siginfo_t* info, void* context) {
                 ours.sa_sigaction(number, info, context);
               });
               fault_guard_install();
               fault();
             }),
             SIGBUS);
  });

  fault_guard_install();
  fault_guard_install();
  check::test("fault guard: is installed", [] { CHECK(fault_guard_is_ours()); });

  check::test("guarded_copy_in: the bytes, or false when their page is gone, again and again", [] {
    MappedFile file(3);
    memset(file.data(), 7, 3 * kPage);
    std::vector<uint8_t> to(3 * kPage);
    CHECK(guarded_copy_in(to.data(), file.data(), 3 * kPage));
    CHECK(to == std::vector<uint8_t>(3 * kPage, 7));
    const uint64_t before = fault_guard_caught();
    file.resize(1);
    for (int round = 0; round < 100; ++round) {
      CHECK(!guarded_copy_in(to.data(), file.data(), 3 * kPage));
      CHECK(!guarded_copy_in(to.data(), file.data() + kPage - 4, 8));
      CHECK(guarded_copy_in(to.data(), file.data(), kPage));
    }
    CHECK_EQ(fault_guard_caught() - before, 200u);
    CHECK(guarded_copy_in(to.data(), file.data() + kPage, 0));
    file.resize(3);
    CHECK(guarded_copy_in(to.data(), file.data(), 3 * kPage));
    CHECK_EQ(to[kPage - 1], 7);
    CHECK_EQ(to[kPage], 0);
  });

  check::test("guarded_store: every alignment and length, and nothing beside it", [] {
    MappedFile file(1);
    std::mt19937 random(1);
    std::vector<uint8_t> from(1024), wanted(kPage);
    for (auto& byte : from) byte = static_cast<uint8_t>(random());
    for (size_t at = 0; at < 24; ++at) {
      for (size_t length = 0; length < 300; ++length) {
        check::context = "at " + std::to_string(at) + " length " + std::to_string(length);
        const size_t skip = length % 17;
        memset(file.data(), 0xee, 400);
        memset(wanted.data(), 0xee, 400);
        memcpy(wanted.data() + at, from.data() + skip, length);
        CHECK(guarded_store(file.data() + at, from.data() + skip, length));
        CHECK(memcmp(file.data(), wanted.data(), 400) == 0);
      }
    }
  });

  check::test("guarded_store: false when a page is gone, at its start, middle or end", [] {
    MappedFile file(3);
    const std::vector<uint8_t> from(3 * kPage, 9);
    file.resize(2);
    CHECK(guarded_store(file.data(), from.data(), 2 * kPage));
    CHECK(!guarded_store(file.data(), from.data(), 3 * kPage));
    CHECK(!guarded_store(file.data() + 2 * kPage - 3, from.data(), 6));
    CHECK(!guarded_store(file.data() + 3 * kPage - 1, from.data(), 1));
    CHECK_EQ(file.data()[2 * kPage - 1], 9);
  });

  check::test("guarded_touch: makes pages present without changing them, false when one is gone", [] {
    MappedFile file(4);
    memset(file.data(), 5, 4 * kPage);
    CHECK(guarded_touch(file.data() + 100, 3 * kPage));
    for (size_t at = 0; at < 4 * kPage; ++at) CHECK_EQ(file.data()[at], 5);
    file.resize(3);
    CHECK(guarded_touch(file.data(), 3 * kPage));
    CHECK(guarded_touch(file.data() + kPage - 1, 2));
    CHECK(guarded_touch(file.data(), 0));
    // The last page of a range counts even if the range covers one byte of it.
    CHECK(!guarded_touch(file.data() + kPage - 1, 2 * kPage + 2));
    CHECK(!guarded_touch(file.data() + 3 * kPage, 1));
  });

  check::test("guarded_touch: a page without write permission is not passed over by a load", [] {
    CHECK_EQ(end_of([] {
               signal(SIGSEGV, SIG_DFL);
               MappedFile file(1);
               mprotect(file.data(), kPage, PROT_READ);
               guarded_touch(file.data(), 1);
             }),
             SIGSEGV);
  });

  check::test("fault guard: threads fault side by side", [] {
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int n = 0; n < 4; ++n) {
      threads.emplace_back([&wrong, n] {
        MappedFile file(2);
        std::vector<uint8_t> bytes(2 * kPage, static_cast<uint8_t>(n));
        for (int round = 0; round < 300; ++round) {
          file.resize(1);
          if (guarded_store(file.data(), bytes.data(), 2 * kPage)) ++wrong;
          file.resize(2);
          if (!guarded_store(file.data(), bytes.data(), 2 * kPage)) ++wrong;
        }
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK_EQ(wrong.load(), 0);
  });

  check::test("guarded_store: a reader of aligned words never sees half of one", [] {
    // Each store writes one value to every word, so a torn word is one that is none of the values.
    MappedFile file(2);
    constexpr size_t kWords = 256;
    auto* words = reinterpret_cast<uint64_t*>(file.data() + 8);
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> torn{0}, changes{0};
    std::thread reader([&] {
      uint64_t last = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        for (size_t at = 0; at < kWords; at += 5) {
          const uint64_t word = __atomic_load_n(words + at, __ATOMIC_RELAXED);
          if (word != (word & 0xff) * 0x0101010101010101u) ++torn;
          if (word != last) ++changes;
          last = word;
        }
      }
    });
    std::vector<uint8_t> from(kWords * 8);
    for (int round = 0; round < 200000 || (changes < 1000 && round < 20000000); ++round) {
      memset(from.data(), round & 0xff, from.size());
      guarded_store(file.data() + 8, from.data(), from.size());
    }
    stop = true;
    reader.join();
    printf("# %llu changes seen\n", static_cast<unsigned long long>(changes.load()));
    CHECK_EQ(torn.load(), 0u);
    CHECK(changes.load() >= 1000);
  });
  return check::done();
}
