// pattern.cc - see pattern.h.
#include "pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>

#include "fault_guard.h"

namespace holdfast {
namespace {

constexpr uint64_t kBytesMax = uint64_t{1} << 47;
constexpr uint64_t kWordBytes = 8;
static_assert(std::atomic_ref<uint64_t>::is_always_lock_free, "a lock would not reach into other processes");

int fail_closing(int fd, int error) {
  close(fd);
  return error;
}

}  // namespace

int MappedWords::open(const std::string& path, uint64_t bytes_min, std::unique_ptr<MappedWords>* words) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  if (fd < 0) return errno;
  struct stat st;
  if (fstat(fd, &st) != 0) return fail_closing(fd, errno);
  if (!S_ISREG(st.st_mode) || bytes_min > kBytesMax) return fail_closing(fd, EINVAL);
  uint64_t bytes = static_cast<uint64_t>(st.st_size);
  if (bytes < bytes_min) {
    // Allocated now, so that a full disk is an error here and no SIGBUS later.
    if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes_min))) {
      // It may have grown the file part of the way.
      if (ftruncate(fd, st.st_size) != 0) return fail_closing(fd, errno);
      return fail_closing(fd, error);
    }
    bytes = bytes_min;
  }
  if (bytes == 0 || bytes > kBytesMax) return fail_closing(fd, EINVAL);
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return fail_closing(fd, errno);
  fault_guard_install();
  words->reset(new MappedWords(fd, static_cast<uint8_t*>(base), bytes));
  return 0;
}

MappedWords::~MappedWords() {
  munmap(base_, bytes_);
  close(fd_);
}

WordResult MappedWords::word(uint64_t offset, uint64_t** found) {
  if (offset % kWordBytes != 0) return WordResult::misaligned;
  if (bytes_ < kWordBytes || offset > bytes_ - kWordBytes) return WordResult::out_of_bounds;
  // The guard covers its own copies only, and an atomic instruction is none of them. A file cut between this touch and
  // the instruction still ends the process with SIGBUS.
  if (!guarded_touch(base_ + offset, kWordBytes)) return WordResult::faulted;
  *found = reinterpret_cast<uint64_t*>(base_ + offset);
  return WordResult::ok;
}

WordResult MappedWords::load(uint64_t offset, uint64_t* value) {
  uint64_t* at;
  const WordResult result = word(offset, &at);
  if (result == WordResult::ok) *value = std::atomic_ref(*at).load();
  return result;
}

WordResult MappedWords::store(uint64_t offset, uint64_t value) {
  uint64_t* at;
  const WordResult result = word(offset, &at);
  if (result == WordResult::ok) std::atomic_ref(*at).store(value);
  return result;
}

WordResult MappedWords::add(uint64_t offset, uint64_t delta, uint64_t* before) {
  uint64_t* at;
  const WordResult result = word(offset, &at);
  if (result == WordResult::ok) *before = std::atomic_ref(*at).fetch_add(delta);
  return result;
}

WordResult MappedWords::compare_exchange(uint64_t offset, uint64_t expected, uint64_t desired, uint64_t* before) {
  uint64_t* at;
  const WordResult result = word(offset, &at);
  if (result != WordResult::ok) return result;
  *before = expected;
  std::atomic_ref(*at).compare_exchange_strong(*before, desired);
  return result;
}

int MappedWords::sync() { return fdatasync(fd_) == 0 ? 0 : errno; }

}  // namespace holdfast
