// fault_guard.cc - one handler, one slot a thread, one sigsetjmp a copy.
//
// The copy arms its thread's slot with the range it is about to touch; the handler jumps back into it when the fault
// lies there. sigsetjmp(buf, 0) doesn't save the signal mask (3.5 ns instead of a system call of 100), so the handler
// runs with SA_NODEFER: a blocked SIGBUS would stay blocked after the jump, and the next fault would end the process.
#include "fault_guard.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include <atomic>
#include <cerrno>
#include <mutex>

#include "failpoint.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace holdfast {
namespace {

// A fault is ours when it lies in a page of the range: the kernel reports the exact byte for a truncated file, but
// only the page (or more, si_addr_lsb says) for a memory error.
constexpr uintptr_t kPageBytes = 4096;

struct Slot {
  uintptr_t first, last;  // the first and the last byte that the copy may touch
  sigjmp_buf back;
};

// initial-exec: the default model of a shared object calls the dynamic linker on a thread's first access, which may
// allocate; the handler can run on any thread, in the middle of an allocation.
__attribute__((tls_model("initial-exec"))) thread_local Slot* volatile armed = nullptr;
// Set while a foreign fault is passed on. A handler that passes it back here would do so for ever.
__attribute__((tls_model("initial-exec"))) thread_local volatile sig_atomic_t passing_on = 0;

std::atomic<uint64_t> caught{0};
static_assert(std::atomic<uint64_t>::is_always_lock_free, "the handler increments it");

// Serializes installers. What the handler reads is written to the slot that it doesn't read yet, then published.
std::mutex install_mutex;
struct sigaction displaced_by_us[2];
std::atomic<const struct sigaction*> previous{nullptr};

bool in_range(const Slot& slot, const siginfo_t& info) {
  const auto address = reinterpret_cast<uintptr_t>(info.si_addr);
  uintptr_t grain = kPageBytes;
#if defined(BUS_MCEERR_AR)
  if (info.si_code == BUS_MCEERR_AR && info.si_addr_lsb > 12 && info.si_addr_lsb < 48) {
    grain = uintptr_t{1} << info.si_addr_lsb;
  }
#endif
  return address >= (slot.first & ~(grain - 1)) && address <= (slot.last | (grain - 1));
}

// Returning runs the faulting instruction again, which then ends the process as if nobody had handled the signal,
// with the true address in the core file. A signal that was sent has to be sent again.
void default_action(int number, const siginfo_t& info) {
  signal(number, SIG_DFL);
  if (info.si_code <= 0) raise(number);
}

void pass_on(int number, siginfo_t* info, void* context) {
  const struct sigaction* to = previous.load(std::memory_order_acquire);
  if (passing_on || to == nullptr || (!(to->sa_flags & SA_SIGINFO) && to->sa_handler == SIG_DFL)) {
    default_action(number, *info);
    return;
  }
  if (!(to->sa_flags & SA_SIGINFO) && to->sa_handler == SIG_IGN) {
    if (info->si_code > 0) default_action(number, *info);  // the kernel doesn't ignore a fault either
    return;
  }
  // As the kernel would have called it. Our return restores the mask.
  sigset_t mask = to->sa_mask;
  if (!(to->sa_flags & SA_NODEFER)) sigaddset(&mask, number);
  pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  passing_on = 1;
  if (to->sa_flags & SA_SIGINFO) {
    to->sa_sigaction(number, info, context);
  } else {
    to->sa_handler(number);
  }
  passing_on = 0;
}

void on_bus_error(int number, siginfo_t* info, void* context) {
  Slot* slot = armed;
  // si_code <= 0: somebody sent the signal; there is no address, and nothing to jump away from.
  if (slot != nullptr && info->si_code > 0 && in_range(*slot, *info)) {
    armed = nullptr;
    caught.fetch_add(1, std::memory_order_relaxed);
    // Nothing is masked by the delivery (SA_NODEFER), but ThreadSanitizer's own handler, which calls this one, masks
    // all.
    pthread_sigmask(SIG_SETMASK, &static_cast<ucontext_t*>(context)->uc_sigmask, nullptr);
    siglongjmp(slot->back, 1);
  }
  const int saved = errno;
  pass_on(number, info, context);
  errno = saved;
}

bool handled_by_us(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) && action.sa_sigaction == on_bus_error;
}

// Runs `copy`, which may touch [first, first + bytes) of a mapping and must hold nothing that a jump out of it would
// leak. Not inlined: a function that calls setjmp loses its registers, and that price belongs here alone.
template <typename Copy>
__attribute__((noinline)) bool guarded(uintptr_t first, size_t bytes, const Copy& copy) {
  Slot slot;
  slot.first = first;
  slot.last = first + bytes - 1;
  if (sigsetjmp(slot.back, 0) != 0) return false;
  armed = &slot;
  // The compiler may not move the copy out of the armed stretch: a signal handler sees both.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  copy();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  armed = nullptr;
  return true;
}

template <typename Word>
inline void store_word(uint8_t* to, const uint8_t* from) {
  Word word;
  memcpy(&word, from, sizeof word);
  __atomic_store_n(reinterpret_cast<Word*>(to), word, __ATOMIC_RELAXED);
}

// `to` is aligned to 8, `bytes` a multiple of 8.
inline void store_words(uint8_t* to, const uint8_t* from, size_t bytes) {
  for (; bytes >= 32; to += 32, from += 32, bytes -= 32) {
    store_word<uint64_t>(to, from);
    store_word<uint64_t>(to + 8, from + 8);
    store_word<uint64_t>(to + 16, from + 16);
    store_word<uint64_t>(to + 24, from + 24);
  }
  for (; bytes != 0; to += 8, from += 8, bytes -= 8) store_word<uint64_t>(to, from);
}

// Below this many bytes the vector loop's own edges cost more than it saves.
constexpr size_t kVectorBytesMin = 128;

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
// Why a vector store keeps every aligned 8-byte word whole: a processor that has AVX performs an aligned 16-byte store
// to cacheable memory as one access (Intel SDM volume 3A, 9.1.1; AMD APM volume 2, 7.3.2), so 16 aligned bytes, and
// with them both their words, are old or new. Nothing of the kind is promised for 32 bytes, so wider stores are not
// used though they would be faster still. Written in assembly because a compiler that recognizes a copy loop would
// make it memcpy, which stores unaligned and twice. ThreadSanitizer can't see it: there the words above are used.
__attribute__((target("avx"))) inline void store_16(uint8_t* to, __m128i value) {
  asm volatile("vmovdqa %1, %0" : "=m"(*reinterpret_cast<__m128i*>(to)) : "x"(value));
}

// `to` is aligned to 8, `bytes` a multiple of 8 and at least 8.
__attribute__((target("avx"), noinline)) void store_vectors(uint8_t* to, const uint8_t* from, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(to) & 8) store_word<uint64_t>(to, from), to += 8, from += 8, bytes -= 8;
  for (; bytes >= 64; to += 64, from += 64, bytes -= 64) {
    const auto* source = reinterpret_cast<const __m128i*>(from);
    const __m128i first = _mm_loadu_si128(source), second = _mm_loadu_si128(source + 1);
    const __m128i third = _mm_loadu_si128(source + 2), fourth = _mm_loadu_si128(source + 3);
    store_16(to, first), store_16(to + 16, second), store_16(to + 32, third), store_16(to + 48, fourth);
  }
  for (; bytes >= 8; to += 8, from += 8, bytes -= 8) store_word<uint64_t>(to, from);
}

inline bool vectors_usable() { return __builtin_cpu_supports("avx") != 0; }
#else
inline void store_vectors(uint8_t* to, const uint8_t* from, size_t bytes) { store_words(to, from, bytes); }
inline bool vectors_usable() { return false; }
#endif

inline void store_range(uint8_t* to, const uint8_t* from, size_t bytes) {
  if (HOLDFAST_MUTANT("words_stored_bytewise")) {
    for (; bytes != 0; ++to, ++from, --bytes) store_word<uint8_t>(to, from);
    return;
  }
  const auto address = reinterpret_cast<uintptr_t>(to);
  // Up to an aligned word. A step that isn't taken for want of bytes leaves fewer than the next one needs, so
  // everything after it is aligned too.
  if ((address & 1) && bytes >= 1) store_word<uint8_t>(to, from), to += 1, from += 1, bytes -= 1;
  if ((reinterpret_cast<uintptr_t>(to) & 2) && bytes >= 2)
    store_word<uint16_t>(to, from), to += 2, from += 2, bytes -= 2;
  if ((reinterpret_cast<uintptr_t>(to) & 4) && bytes >= 4)
    store_word<uint32_t>(to, from), to += 4, from += 4, bytes -= 4;
  const size_t words = bytes & ~size_t{7};
  if (words >= kVectorBytesMin && vectors_usable()) {
    store_vectors(to, from, words);
  } else {
    store_words(to, from, words);
  }
  to += words, from += words, bytes -= words;
  if (bytes & 4) store_word<uint32_t>(to, from), to += 4, from += 4;
  if (bytes & 2) store_word<uint16_t>(to, from), to += 2, from += 2;
  if (bytes & 1) store_word<uint8_t>(to, from);
}

// Writes to the page in a way that no other thread's store can get lost in. The zero is hidden from the compiler,
// which may turn an addition of a known 0 into a load; a load makes no page writable.
inline void touch_byte(volatile uint8_t* at) {
  uint8_t nothing = 0;
  asm volatile("" : "+r"(nothing));
  __atomic_fetch_add(at, nothing, __ATOMIC_RELAXED);
}

}  // namespace

void fault_guard_install() {
  const std::lock_guard<std::mutex> lock(install_mutex);
  struct sigaction now;
  sigaction(SIGBUS, nullptr, &now);
  if (handled_by_us(now)) return;
  struct sigaction* spare =
      previous.load(std::memory_order_relaxed) == &displaced_by_us[0] ? &displaced_by_us[1] : &displaced_by_us[0];
  *spare = now;
  previous.store(spare, std::memory_order_release);
  struct sigaction ours = {};
  ours.sa_sigaction = on_bus_error;
  // SA_ONSTACK: a thread that has an alternative stack has it because its own may be the problem.
  ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTART;
  sigaction(SIGBUS, &ours, nullptr);
}

bool fault_guard_is_ours() {
  struct sigaction now;
  return sigaction(SIGBUS, nullptr, &now) == 0 && handled_by_us(now);
}

uint64_t fault_guard_caught() { return caught.load(std::memory_order_relaxed); }

bool guarded_copy_in(void* to, const void* from_mapping, size_t bytes) {
  if (bytes == 0) return true;
  return guarded(reinterpret_cast<uintptr_t>(from_mapping), bytes, [=] { memcpy(to, from_mapping, bytes); });
}

bool guarded_store(uint8_t* to_mapping, const uint8_t* from, size_t bytes) {
  if (bytes == 0) return true;
  return guarded(reinterpret_cast<uintptr_t>(to_mapping), bytes, [=] { store_range(to_mapping, from, bytes); });
}

bool guarded_touch(volatile uint8_t* mapping, size_t bytes) {
  if (bytes == 0) return true;
  return guarded(reinterpret_cast<uintptr_t>(mapping), bytes, [=] {
    touch_byte(mapping);
    // The first byte of each further page; the range's own first byte may lie anywhere in its page.
    const size_t to_next = kPageBytes - (reinterpret_cast<uintptr_t>(mapping) & (kPageBytes - 1));
    for (size_t at = to_next; at < bytes; at += kPageBytes) touch_byte(mapping + at);
  });
}

}  // namespace holdfast
