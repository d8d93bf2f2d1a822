// pattern.h - the pattern that the store grew from, as a small library: a file mapped for 64-bit words that other
// programs see whole.
//
// With critical_begin/critical_end (critical_section.h) and signals_exit_at_once (signals.h) it is complete: several
// stores inside a section are not parted by SIGTERM or SIGINT. SIGKILL can part them; what no kill can tear is the
// store's batch. The mapping is owned here and no pointer into it gets out.
//
// Every access is an aligned 64-bit atomic in the machine's byte order, sequentially consistent, also between
// processes. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace holdfast {

enum class WordResult {
  ok,
  out_of_bounds,  // offset + 8 is beyond the mapping
  misaligned,     // offset is no multiple of 8
  faulted,        // the page is gone: the file was cut, the disk is full under a hole, or it can't be read
};

class MappedWords {
 public:
  // Opens the file for reading and writing, makes it (mode 0640) if it isn't there, and grows it with zeros to
  // `bytes_min` on allocated blocks. The whole file is mapped as it is then. Errors: errno; EINVAL for an empty file,
  // no regular file, or more than 2^47 bytes.
  static int open(const std::string& path, uint64_t bytes_min, std::unique_ptr<MappedWords>* words);
  ~MappedWords();
  MappedWords(const MappedWords&) = delete;
  MappedWords& operator=(const MappedWords&) = delete;

  uint64_t bytes() const { return bytes_; }
  WordResult load(uint64_t offset, uint64_t* value);
  WordResult store(uint64_t offset, uint64_t value);
  // Adds modulo 2^64; `before` is what was there.
  WordResult add(uint64_t offset, uint64_t delta, uint64_t* before);
  // Stores `desired` if `expected` is there; `before` is what was there.
  WordResult compare_exchange(uint64_t offset, uint64_t expected, uint64_t desired, uint64_t* before);
  // Every store so far is on the disk. Blocks. Errors: errno.
  int sync();

 private:
  MappedWords(int fd, uint8_t* base, uint64_t bytes) : fd_(fd), base_(base), bytes_(bytes) {}
  // The word at `offset`, its page present and writable a moment ago.
  WordResult word(uint64_t offset, uint64_t** found);

  const int fd_;
  uint8_t* const base_;
  const uint64_t bytes_;
};

}  // namespace holdfast
