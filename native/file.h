// file.h - every system call that touches a store's files. Nothing else in the core calls the kernel about files.
//
// Functions return 0 or an errno value; file_code() turns one into a Code. None of them throws. Any thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "status.h"

namespace holdfast {

// Owns one descriptor.
class File {
 public:
  File() = default;
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  File& operator=(File&& other) noexcept;
  ~File() { close(); }
  int fd() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

// Owns one mapping.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept : address_(other.address_), length_(other.length_) { other.address_ = nullptr; }
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping() { reset(); }
  uint8_t* data() const { return address_; }
  size_t size() const { return length_; }
  void reset();
  // Shared, readable and writable.
  int map(const File& file, uint64_t offset, uint64_t length);
  // The same bytes twice in a row, so that what runs over the end continues at the start. `length`: whole pages.
  int map_twice(const File& file, uint64_t offset, uint64_t length);

 private:
  uint8_t* address_ = nullptr;
  size_t length_ = 0;
};

struct FileFacts {
  uint64_t device = 0, inode = 0, birth_ns = 0, size = 0;
  bool regular = false;
};

Code file_code(int error);

// Names are relative to `directory`; a link anywhere below it is refused (ELOOP), and so is a way out (EXDEV).
int open_directory(const std::string& path, bool create, File* out);
int open_directory_at(const File& directory, const std::string& name, File* out);
int open_at(const File& directory, const std::string& name, int flags, File* out);
int make_directory_at(const File& directory, const std::string& name);
int rename_at(const File& directory, const std::string& from, const std::string& to);  // EEXIST if `to` exists
int replace_at(const File& directory, const std::string& from, const std::string& to);
int link_at(const File& directory, const std::string& from, const std::string& to);  // a second name; EEXIST if taken
int remove_file_at(const File& directory, const std::string& name);                  // absent is fine
int remove_tree_at(const File& directory, const std::string& name);                  // a directory and all below it
bool exists_at(const File& directory, const std::string& name);
int list_directory(const File& directory, std::vector<std::string>* names);

int file_facts(const File& file, FileFacts* facts);
int sync_data(const File& file);
int sync_all(const File& file);
int truncate_to(const File& file, uint64_t size);
// Puts blocks behind a range. The first lets the file grow to the range's end, the second leaves its size as it is.
int allocate_range(const File& file, uint64_t offset, uint64_t length);
int allocate_inside(const File& file, uint64_t offset, uint64_t length);
// Grows to `size` with blocks behind every byte; on failure cuts back to `old_size`. Lets signals and other threads in between.
int allocate_to(const File& file, uint64_t old_size, uint64_t size);
int write_all(const File& file, std::span<const uint8_t> bytes, uint64_t offset);
// The same, and the bytes are durable when it returns; other dirty pages of the file are left alone.
int write_all_synced(const File& file, std::span<const uint8_t> bytes, uint64_t offset);
int append_all(const File& file, std::span<const uint8_t> bytes);
// Reads up to into.size() bytes; `got` < into.size() at the end of the file. `cached_only`: EAGAIN when it would wait for the disk.
int read_some(const File& file, std::span<uint8_t> into, uint64_t offset, bool cached_only, size_t* got);
int read_whole(const File& file, size_t most, std::vector<uint8_t>* bytes);

// Makes `to`, an empty file, share all blocks of `from`, as it is now. ENOTSUP: the file system can't. `probe_clone` shares
// nothing and only tells what clone_file would say.
int probe_clone(const File& from, const File& to);
int clone_file(const File& from, const File& to);
// Has the kernel write what is dirty of a file, and waits for it. An error stays to be told by the next sync of `file`.
void write_back(const File& file);

// A range of a file that holds data, or a hole, which reads as zeros.
struct Extent {
  uint64_t offset, length;
  bool data;
};
// Extents of [offset, end) in their order, at most `most`. Blocks that are reserved and were never written are a hole.
int list_extents(const File& file, uint64_t offset, uint64_t end, size_t most, std::vector<Extent>* extents);

// How many bytes of [offset, offset + length) of a mapping lie in pages that are in memory (the page cache), whoever brought
// them there. `offset`: at a page. What lies beyond the end of the file is not in memory. ENOMEM: beyond the mapping.
int resident_bytes(const Mapping& mapping, uint64_t offset, uint64_t length, uint64_t* bytes);

// Makes whole pages present and writable. EFAULT: beyond the end of the file, or no space for a hole.
int populate_write(uint8_t* address, size_t length);

// Reads whole pages of a mapped file in, without changing them. errno value.
int populate_read(uint8_t* address, size_t length);

// The writer's lease: an OFD lock, released by the kernel when the last descriptor of the open file goes.
int lease_try(const File& file);   // EAGAIN: another process holds it
int lease_wait(const File& file);  // blocks

enum class FileSystem { good, temporary, unsupported };
// By statfs. `name` is for messages: "ext4", "overlayfs", ...
int file_system_of(const File& file, FileSystem* kind, std::string* name);

// 16 bytes of /proc/sys/kernel/random/boot_id.
int boot_identity(uint8_t out[16]);
uint64_t now_us();  // since 1970
uint64_t monotonic_us();
uint64_t random_u64();

}  // namespace holdfast
