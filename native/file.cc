// file.cc - the storage system calls, see file.h.
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "failpoint.h"
#include "format.h"

namespace holdfast {

namespace {

int failed() { return errno ? errno : EIO; }

// Repeats a call that a signal interrupted: the service takes signals in any thread.
template <typename Call>
auto retried(Call call) {
  decltype(call()) result;
  do result = call();
  while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = other.fd_;
    other.fd_ = -1;
  }
  return *this;
}

void File::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    reset();
    address_ = other.address_;
    length_ = other.length_;
    other.address_ = nullptr;
  }
  return *this;
}

void Mapping::reset() {
  if (address_) ::munmap(address_, length_);
  address_ = nullptr;
  length_ = 0;
}

int Mapping::map(const File& file, uint64_t offset, uint64_t length) {
  reset();
  if (int injected = HOLDFAST_FAILPOINT("map")) return injected;
  void* at = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd(), static_cast<off_t>(offset));
  if (at == MAP_FAILED) return failed();
  address_ = static_cast<uint8_t*>(at);
  length_ = length;
  return 0;
}

int Mapping::map_twice(const File& file, uint64_t offset, uint64_t length) {
  reset();
  // Reserve first, so that no other thread's mapping can land in the second half.
  void* space = ::mmap(nullptr, length * 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) return failed();
  address_ = static_cast<uint8_t*>(space);
  length_ = length * 2;
  for (int half = 0; half < 2; half++) {
    if (::mmap(address_ + half * length, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file.fd(),
               static_cast<off_t>(offset)) == MAP_FAILED) {
      int error = failed();
      reset();
      return error;
    }
  }
  return 0;
}

Code file_code(int error) {
  switch (error) {
    case 0:
      return Code::ok;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Code::insufficient_storage;
    case EACCES:
    case EPERM:
    case EROFS:
      return Code::permission_denied;
    default:
      return Code::io_error;
  }
}

int open_directory(const std::string& path, bool create, File* out) {
  if (create && ::mkdir(path.c_str(), 0750) != 0 && errno != EEXIST) return failed();
  int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed();
  *out = File(fd);
  return 0;
}

int open_at(const File& directory, const std::string& name, int flags, File* out) {
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.mode = (flags & O_CREAT) ? 0640 : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  long fd = retried([&] { return ::syscall(SYS_openat2, directory.fd(), name.c_str(), &how, sizeof how); });
  // Containers with an old seccomp profile refuse openat2 itself: then one component without links is still safe.
  if (fd < 0 && (errno == ENOSYS || errno == EPERM) && name.find("..") == std::string::npos)
    fd = retried([&] { return ::openat(directory.fd(), name.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0640); });
  if (fd < 0) return failed();
  *out = File(static_cast<int>(fd));
  return 0;
}

int open_directory_at(const File& directory, const std::string& name, File* out) {
  return open_at(directory, name, O_RDONLY | O_DIRECTORY, out);
}

int make_directory_at(const File& directory, const std::string& name) {
  return ::mkdirat(directory.fd(), name.c_str(), 0750) == 0 ? 0 : failed();
}

int rename_at(const File& directory, const std::string& from, const std::string& to) {
  if (int injected = HOLDFAST_FAILPOINT("rename")) return injected;
  return ::renameat2(directory.fd(), from.c_str(), directory.fd(), to.c_str(), RENAME_NOREPLACE) == 0 ? 0 : failed();
}

int replace_at(const File& directory, const std::string& from, const std::string& to) {
  if (int injected = HOLDFAST_FAILPOINT("replace")) return injected;
  return ::renameat(directory.fd(), from.c_str(), directory.fd(), to.c_str()) == 0 ? 0 : failed();
}

int link_at(const File& directory, const std::string& from, const std::string& to) {
  return ::linkat(directory.fd(), from.c_str(), directory.fd(), to.c_str(), 0) == 0 ? 0 : failed();
}

int remove_file_at(const File& directory, const std::string& name) {
  return ::unlinkat(directory.fd(), name.c_str(), 0) == 0 || errno == ENOENT ? 0 : failed();
}

int remove_tree_at(const File& directory, const std::string& name) {
  File tree;
  if (int error = open_directory_at(directory, name, &tree)) return error == ENOENT ? 0 : error;
  std::vector<std::string> names;
  if (int error = list_directory(tree, &names)) return error;
  for (const std::string& entry : names) {
    int error = remove_file_at(tree, entry);
    // What Linux and what POSIX says of a directory.
    if (error == EISDIR || error == EPERM) error = remove_tree_at(tree, entry);
    if (error) return error;
  }
  if (::unlinkat(directory.fd(), name.c_str(), AT_REMOVEDIR) == 0) return 0;
  // A predecessor may be removing it as well, on its way out.
  const int error = failed();
  return error == ENOENT ? 0 : error;
}

bool exists_at(const File& directory, const std::string& name) {
  return ::faccessat(directory.fd(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int list_directory(const File& directory, std::vector<std::string>* names) {
  int fd = ::openat(directory.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed();
  DIR* stream = ::fdopendir(fd);
  if (!stream) {
    int error = failed();
    ::close(fd);
    return error;
  }
  names->clear();
  while (struct dirent* entry = ::readdir(stream))
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) names->emplace_back(entry->d_name);
  ::closedir(stream);
  std::sort(names->begin(), names->end());
  return 0;
}

int file_facts(const File& file, FileFacts* facts) {
  struct statx s;
  if (::statx(file.fd(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &s) != 0) return failed();
  facts->device = makedev(s.stx_dev_major, s.stx_dev_minor);
  facts->inode = s.stx_ino;
  facts->birth_ns = (s.stx_mask & STATX_BTIME) ? s.stx_btime.tv_sec * 1000000000ull + s.stx_btime.tv_nsec : 0;
  facts->size = s.stx_size;
  facts->regular = S_ISREG(s.stx_mode);
  return 0;
}

int sync_data(const File& file) {
  if (int injected = HOLDFAST_FAILPOINT("sync_data")) return injected;
  return retried([&] { return ::fdatasync(file.fd()); }) == 0 ? 0 : failed();
}

int sync_all(const File& file) {
  if (int injected = HOLDFAST_FAILPOINT("sync_all")) return injected;
  return retried([&] { return ::fsync(file.fd()); }) == 0 ? 0 : failed();
}

int truncate_to(const File& file, uint64_t size) {
  return retried([&] { return ::ftruncate(file.fd(), static_cast<off_t>(size)); }) == 0 ? 0 : failed();
}

namespace {

int allocate(const File& file, int mode, uint64_t offset, uint64_t length) {
  if (int injected = HOLDFAST_FAILPOINT("allocate")) return injected;
  const auto at = static_cast<off_t>(offset), bytes = static_cast<off_t>(length);
  // The plain system call: glibc's posix_fallocate falls back to writing a byte into every block.
  return retried([&] { return ::fallocate(file.fd(), mode, at, bytes); }) == 0 ? 0 : failed();
}

}  // namespace

int allocate_range(const File& file, uint64_t offset, uint64_t length) { return allocate(file, 0, offset, length); }

int allocate_inside(const File& file, uint64_t offset, uint64_t length) {
  return allocate(file, FALLOC_FL_KEEP_SIZE, offset, length);
}

int allocate_to(const File& file, uint64_t old_size, uint64_t size) {
  constexpr uint64_t kStep = uint64_t{1} << 30;
  for (uint64_t at = old_size; at < size;) {
    uint64_t step = std::min(kStep, size - at);
    if (int error = allocate_range(file, at, step)) {
      // A failed fallocate may leave the file partly grown.
      truncate_to(file, old_size);
      return error;
    }
    at += step;
  }
  return 0;
}

namespace {

int write_flagged(const File& file, std::span<const uint8_t> bytes, uint64_t offset, int flags) {
  while (!bytes.empty()) {
    struct iovec part = {const_cast<uint8_t*>(bytes.data()), bytes.size()};
    ssize_t n = retried([&] { return ::pwritev2(file.fd(), &part, 1, static_cast<off_t>(offset), flags); });
    if (n < 0) return failed();
    if (n == 0) return EIO;
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return 0;
}

}  // namespace

int write_all(const File& file, std::span<const uint8_t> bytes, uint64_t offset) {
  return write_flagged(file, bytes, offset, 0);
}

int write_all_synced(const File& file, std::span<const uint8_t> bytes, uint64_t offset) {
  if (int injected = HOLDFAST_FAILPOINT("write_synced")) return injected;
  int error = write_flagged(file, bytes, offset, RWF_DSYNC);
  if (error != EOPNOTSUPP && error != ENOSYS) return error;
  // A kernel or an emulation of one that can't do it in one step.
  error = write_flagged(file, bytes, offset, 0);
  return error ? error : sync_data(file);
}

int append_all(const File& file, std::span<const uint8_t> bytes) {
  off_t end = ::lseek(file.fd(), 0, SEEK_END);
  if (end < 0) return failed();
  return write_all(file, bytes, static_cast<uint64_t>(end));
}

int read_some(const File& file, std::span<uint8_t> into, uint64_t offset, bool cached_only, size_t* got) {
  *got = 0;
  if (int injected = cached_only ? HOLDFAST_FAILPOINT("read_cached") : 0) return injected;
  while (*got < into.size()) {
    struct iovec part = {into.data() + *got, into.size() - *got};
    ssize_t n = retried([&] {
      return ::preadv2(file.fd(), &part, 1, static_cast<off_t>(offset + *got), cached_only ? RWF_NOWAIT : 0);
    });
    if (n < 0) return errno == EOPNOTSUPP ? EAGAIN : failed();
    if (n == 0) break;
    *got += static_cast<size_t>(n);
  }
  return 0;
}

int read_whole(const File& file, size_t most, std::vector<uint8_t>* bytes) {
  FileFacts facts;
  if (int error = file_facts(file, &facts)) return error;
  if (facts.size > most) return EFBIG;
  bytes->resize(facts.size);
  size_t got = 0;
  if (int error = read_some(file, *bytes, 0, false, &got)) return error;
  bytes->resize(got);
  return 0;
}

namespace {

int clone_from(const File& from, const File& to, uint64_t offset) {
  if (int injected = HOLDFAST_FAILPOINT("clone")) return injected;
  struct file_clone_range range = {};
  range.src_fd = from.fd();
  range.src_offset = offset;  // up to the end
  if (retried([&] { return ::ioctl(to.fd(), FICLONERANGE, &range); }) == 0) return 0;
  const int error = failed();
  // Everything else means: not between these two files.
  return error == ENOSPC || error == EDQUOT || error == EIO ? error : ENOTSUP;
}

}  // namespace

int probe_clone(const File& from, const File& to) {
  FileFacts facts;
  if (int error = file_facts(from, &facts)) return error;
  // Nothing of a file, from its end on.
  return clone_from(from, to, facts.size);
}

int clone_file(const File& from, const File& to) { return clone_from(from, to, 0); }

void write_back(const File& file) {
  // The kernel tells an error to each open file once, so this needs one of its own. Without /proc nothing is lost but time.
  const File own(::open(("/proc/self/fd/" + std::to_string(file.fd())).c_str(), O_RDONLY | O_CLOEXEC));
  if (own.open()) (void)::fdatasync(own.fd());
}

int list_extents(const File& file, uint64_t offset, uint64_t end, size_t most, std::vector<Extent>* extents) {
  // The position that lseek moves is nobody's: everything else here names its own.
  const auto next = [&](int whence) {
    return retried([&] { return lseek(file.fd(), static_cast<off_t>(offset), whence); });
  };
  while (offset < end && extents->size() < most) {
    off_t data = next(SEEK_DATA);
    // ENXIO: nothing but a hole up to the end of the file.
    if (data < 0 && errno != ENXIO) return failed();
    uint64_t from = data < 0 ? end : std::min(end, static_cast<uint64_t>(data));
    if (from > offset) extents->push_back({offset, from - offset, false});
    offset = from;
    if (offset == end || extents->size() == most) break;
    off_t hole = next(SEEK_HOLE);
    if (hole < 0) return failed();
    uint64_t to = std::min(end, static_cast<uint64_t>(hole));
    extents->push_back({offset, to - offset, true});
    offset = to;
  }
  return 0;
}

int resident_bytes(const Mapping& mapping, uint64_t offset, uint64_t length, uint64_t* bytes) {
  if (offset % kPageBytes) return EINVAL;
  if (offset > mapping.size() || length > mapping.size() - offset) return ENOMEM;
  // Since Linux 5.2 every page seems to be there unless the caller owns the file or may write to it; whoever serves a region
  // may. The kernel takes 4,096 pages at a time and lets changes of the address space in between.
  uint8_t present[4096];
  *bytes = 0;
  for (uint64_t at = offset, end = offset + length; at < end;) {
    const uint64_t step = std::min<uint64_t>(end - at, sizeof present * kPageBytes);
    if (retried([&] { return ::mincore(mapping.data() + at, step, present); }) != 0) return failed();
    for (uint64_t page = 0; page * kPageBytes < step; page++)
      if (present[page] & 1) *bytes += std::min<uint64_t>(kPageBytes, step - page * kPageBytes);
    at += step;
  }
  return 0;
}

int populate_write(uint8_t* address, size_t length) {
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
  return retried([&] { return ::madvise(address, length, MADV_POPULATE_WRITE); }) == 0 ? 0 : failed();
}

int populate_read(uint8_t* address, size_t length) {
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
  return retried([&] { return ::madvise(address, length, MADV_POPULATE_READ); }) == 0 ? 0 : failed();
}

namespace {

struct flock whole_byte() {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0;
  lock.l_len = 1;
  return lock;
}

}  // namespace

int lease_try(const File& file) {
  if (HOLDFAST_MUTANT("lease_not_asked")) return 0;
  struct flock lock = whole_byte();
  if (::fcntl(file.fd(), F_OFD_SETLK, &lock) == 0) return 0;
  return errno == EACCES ? EAGAIN : failed();
}

int lease_wait(const File& file) {
  struct flock lock = whole_byte();
  return retried([&] { return ::fcntl(file.fd(), F_OFD_SETLKW, &lock); }) == 0 ? 0 : failed();
}

int file_system_of(const File& file, FileSystem* kind, std::string* name) {
  struct statfs s;
  if (::fstatfs(file.fd(), &s) != 0) return failed();
  struct Known {
    uint32_t magic;
    const char* name;
    FileSystem kind;
  };
  static constexpr Known known[] = {
      {EXT4_SUPER_MAGIC, "ext4", FileSystem::good},
      {0x58465342, "xfs", FileSystem::good},
      {BTRFS_SUPER_MAGIC, "btrfs", FileSystem::good},
      {TMPFS_MAGIC, "tmpfs", FileSystem::temporary},
      {OVERLAYFS_SUPER_MAGIC, "overlayfs", FileSystem::unsupported},
      {NFS_SUPER_MAGIC, "nfs", FileSystem::unsupported},
      {V9FS_MAGIC, "9p", FileSystem::unsupported},
      {0x65735546, "fuse or virtiofs", FileSystem::unsupported},
      {0xFF534D42, "cifs", FileSystem::unsupported},
      {0xFE534D42, "smb2", FileSystem::unsupported},
  };
  for (const Known& k : known) {
    if (static_cast<uint32_t>(s.f_type) == k.magic) {
      *kind = k.kind;
      *name = k.name;
      return 0;
    }
  }
  char text[32];
  snprintf(text, sizeof text, "type 0x%x", static_cast<uint32_t>(s.f_type));
  *kind = FileSystem::unsupported;
  *name = text;
  return 0;
}

int boot_identity(uint8_t out[16]) {
  int fd = ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed();
  char text[64] = {};
  ssize_t n = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  if (n < 36) return EIO;
  int digits = 0;
  memset(out, 0, 16);
  for (const char* c = text; *c && digits < 32; c++) {
    int value = *c >= '0' && *c <= '9' ? *c - '0' : *c >= 'a' && *c <= 'f' ? *c - 'a' + 10 : -1;
    if (value < 0) continue;
    out[digits / 2] = static_cast<uint8_t>(out[digits / 2] << 4 | value);
    digits++;
  }
  return digits == 32 ? 0 : EIO;
}

uint64_t now_us() {
  struct timespec t;
  ::clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

uint64_t monotonic_us() {
  struct timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

uint64_t random_u64() {
  uint64_t value = 0;
  if (::getrandom(&value, sizeof value, 0) != sizeof value) value = now_us() * 0x9E3779B97F4A7C15ull;
  return value;
}

}  // namespace holdfast
