// volatile_disk.h - a disk with a volatile write cache, for simulated power cuts under a real kernel file system.
//
// One file served over the kernel's FUSE protocol (no library), meant to carry a loop device. A write goes to a cache
// that keeps every version of a sector since the last flush; a flush (FSYNC on the file, which is what a loop device
// makes of a flush request) moves the last versions to the base. A power cut is a copy of the base with any part of the
// cached sectors, each in any of its versions: what a drive may have kept. The disk itself goes on, so one run of a
// writer gives as many cuts as one likes. Everything lives in memory and in /dev/shm. Needs root.
//
// Mounts are made in a mount namespace of the process's own (enter_own_mounts), so nothing outlives a crashed rig.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "batches.h"

namespace holdfast::rig {

inline std::string failed(const std::string& what) { return what + ": " + std::strerror(errno); }

// False with a reason when this process may not make mounts.
inline bool enter_own_mounts(std::string* why) {
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    *why = failed("a mount namespace");
    return false;
  }
  return true;
}

// A loop device on an open file; goes away with its last user.
class LoopDevice {
 public:
  LoopDevice() = default;
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  ~LoopDevice() { detach(); }

  bool attach(int file, std::string* why) {
    const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0) {
      *why = failed("/dev/loop-control");
      return false;
    }
    // Another process may take the free device between the two calls.
    for (int tries = 0; tries < 64 && fd_ < 0; ++tries) {
      const int number = ioctl(control, LOOP_CTL_GET_FREE);
      if (number < 0) break;
      path_ = "/dev/loop" + std::to_string(number);
      const int fd = open(path_.c_str(), O_RDWR | O_CLOEXEC);
      if (fd < 0) break;
      loop_config config{};
      config.fd = static_cast<uint32_t>(file);
      config.block_size = 512;
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (ioctl(fd, LOOP_CONFIGURE, &config) == 0) {
        fd_ = fd;
      } else {
        const int error = errno;
        close(fd);
        errno = error;
        if (error != EBUSY) break;
      }
    }
    if (fd_ < 0) *why = failed("a loop device");
    close(control);
    return fd_ >= 0;
  }
  const std::string& path() const { return path_; }
  void detach() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
  std::string path_;
};

class VolatileDisk {
 public:
  static constexpr size_t kSector = 512;
  static constexpr size_t kPage = 4096;

  VolatileDisk() = default;
  VolatileDisk(const VolatileDisk&) = delete;
  VolatileDisk& operator=(const VolatileDisk&) = delete;
  ~VolatileDisk() { stop(); }

  // Sectors that a cut tears apart nowhere: what a file system checks before it replays its journal, and can't do without.
  struct Whole {
    uint64_t sector = 0, count = 0;
  };

  // Serves the contents of `image` as the file `mount_point` (a regular file that is covered).
  bool start(int image, const std::string& mount_point, Whole whole, std::string* why) {
    whole_ = whole;
    struct stat facts {};
    if (fstat(image, &facts) != 0) {
      *why = failed("the image");
      return false;
    }
    bytes_ = static_cast<uint64_t>(facts.st_size);
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      *why = failed("memory for the disk");
      return false;
    }
    base_ = static_cast<uint8_t*>(memory);
    present_.assign(bytes_ / kPage, false);
    for (off_t at = 0; (at = lseek(image, at, SEEK_DATA)) >= 0;) {
      off_t end = lseek(image, at, SEEK_HOLE);
      for (off_t page = at / off_t{kPage} * off_t{kPage}; page < end; page += kPage) {
        if (pread(image, base_ + page, kPage, page) != static_cast<ssize_t>(kPage)) continue;
        present_[static_cast<size_t>(page) / kPage] = !zero(base_ + page, kPage);
      }
      at = end;
    }
    device_ = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (device_ < 0) {
      *why = failed("/dev/fuse");
      return false;
    }
    const std::string options = "fd=" + std::to_string(device_) + ",rootmode=100600,user_id=0,group_id=0";
    if (mount("holdfast-disk", mount_point.c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
      *why = failed("mounting the disk's file");
      return false;
    }
    mount_point_ = mount_point;
    server_ = std::thread([this] { serve(); });
    return true;
  }

  // The file system on top must be unmounted before, else its last requests fail (which is what a cut does too).
  void stop() {
    if (server_.joinable()) {
      umount2(mount_point_.c_str(), MNT_DETACH);
      server_.join();
    }
    if (device_ >= 0) close(device_);
    device_ = -1;
    if (base_ != nullptr) munmap(base_, bytes_);
    base_ = nullptr;
  }

  uint64_t bytes() const { return bytes_; }

  // Blocks until `count` write or flush requests have been served since the start, or the time is over.
  bool wait_requests(uint64_t count, std::chrono::milliseconds most) {
    std::unique_lock lock(mutex_);
    return served_changed_.wait_for(lock, most, [&] { return served_ >= count; });
  }
  uint64_t requests() {
    const std::lock_guard lock(mutex_);
    return served_;
  }
  uint64_t flushes() {
    const std::lock_guard lock(mutex_);
    return flushes_;
  }

  // Writes into the file `to` what a power cut at this moment may leave, keeping `percent` of the cached sectors.
  // Returns how many sectors were in the cache.
  size_t cut(Random& random, unsigned percent, int to) {
    const std::lock_guard lock(mutex_);
    if (ftruncate(to, 0) != 0 || ftruncate(to, static_cast<off_t>(bytes_)) != 0) die("can't size the image of a cut");
    for (size_t page = 0; page < present_.size();) {
      size_t end = page;
      while (end < present_.size() && present_[end]) ++end;
      if (end > page) put(to, base_ + page * kPage, (end - page) * kPage, page * kPage);
      page = end + 1;
    }
    const auto draw = [&] { return std::pair(random.chance(percent), random.next()); };
    const auto whole = draw();
    for (const auto& [sector, versions] : cache_) {
      const auto [kept, version] = sector - whole_.sector < whole_.count ? whole : draw();
      if (kept) put(to, versions[version % versions.size()].data(), kSector, sector * kSector);
    }
    return cache_.size();
  }

 private:
  using Sector = std::array<uint8_t, kSector>;

  static bool zero(const uint8_t* bytes, size_t length) {
    return bytes[0] == 0 && std::memcmp(bytes, bytes + 1, length - 1) == 0;
  }
  static void put(int to, const uint8_t* bytes, size_t length, uint64_t offset) {
    while (length > 0) {
      const ssize_t wrote = pwrite(to, bytes, length, static_cast<off_t>(offset));
      if (wrote <= 0) die("can't write the image of a cut (is /dev/shm full?)");
      bytes += wrote;
      length -= static_cast<size_t>(wrote);
      offset += static_cast<uint64_t>(wrote);
    }
  }

  void reply(uint64_t unique, int error, const void* body, size_t length) {
    fuse_out_header header{};
    header.len = static_cast<uint32_t>(sizeof header + length);
    header.error = -error;
    header.unique = unique;
    iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(body), length}};
    // Fails only when the connection is gone, which the next read tells.
    if (writev(device_, parts, length > 0 ? 2 : 1) < 0) return;
  }

  fuse_attr attributes() const {
    fuse_attr attr{};
    attr.ino = 1;
    attr.size = bytes_;
    attr.blocks = bytes_ / 512;
    attr.mode = S_IFREG | 0600;
    attr.nlink = 1;
    attr.blksize = kPage;
    return attr;
  }

  void serve() {
    std::vector<uint8_t> buffer((1 << 20) + 4096);
    std::vector<uint8_t> out(1 << 20);
    for (;;) {
      const ssize_t got = read(device_, buffer.data(), buffer.size());
      if (got < 0) {
        if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
        return;  // ENODEV: unmounted
      }
      const auto* in = reinterpret_cast<const fuse_in_header*>(buffer.data());
      const uint8_t* body = buffer.data() + sizeof(fuse_in_header);
      switch (in->opcode) {
        case FUSE_INIT: {
          const auto* init = reinterpret_cast<const fuse_init_in*>(body);
          fuse_init_out answer{};
          answer.major = FUSE_KERNEL_VERSION;
          answer.minor = FUSE_KERNEL_MINOR_VERSION;
          answer.max_readahead = init->max_readahead;
          // No writeback cache: the kernel hands over each write of the loop device before that write ends.
          answer.flags = init->flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES);
          answer.max_write = 1 << 19;
          answer.max_pages = (1 << 19) / kPage;
          answer.max_background = 16;
          answer.time_gran = 1;
          reply(in->unique, 0, &answer, sizeof answer);
          break;
        }
        case FUSE_GETATTR:
        case FUSE_SETATTR: {
          fuse_attr_out answer{};
          answer.attr_valid = 1 << 20;
          answer.attr = attributes();
          reply(in->unique, 0, &answer, sizeof answer);
          break;
        }
        case FUSE_OPEN: {
          fuse_open_out answer{};
          answer.open_flags = FOPEN_KEEP_CACHE;
          reply(in->unique, 0, &answer, sizeof answer);
          break;
        }
        case FUSE_READ: {
          const auto* read = reinterpret_cast<const fuse_read_in*>(body);
          const size_t length = read->offset >= bytes_ ? 0 : std::min<uint64_t>(read->size, bytes_ - read->offset);
          current(read->offset, length, out.data());
          reply(in->unique, 0, out.data(), length);
          break;
        }
        case FUSE_WRITE: {
          const auto* write = reinterpret_cast<const fuse_write_in*>(body);
          fuse_write_out answer{};
          answer.size = write->size;
          keep(write->offset, body + sizeof(fuse_write_in), write->size);
          reply(in->unique, 0, &answer, sizeof answer);
          break;
        }
        case FUSE_FSYNC:
          flush();
          reply(in->unique, 0, nullptr, 0);
          break;
        case FUSE_FLUSH:
        case FUSE_RELEASE:
        case FUSE_ACCESS:
          reply(in->unique, 0, nullptr, 0);
          break;
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT:
          break;
        case FUSE_DESTROY:
          reply(in->unique, 0, nullptr, 0);
          return;
        default:
          reply(in->unique, ENOSYS, nullptr, 0);
      }
    }
  }

  void current(uint64_t offset, size_t length, uint8_t* into) {
    const std::lock_guard lock(mutex_);
    std::memcpy(into, base_ + offset, length);
    if (cache_.empty()) return;
    for (size_t at = 0; at < length; at += kSector) {
      if (const auto found = cache_.find((offset + at) / kSector); found != cache_.end()) {
        std::memcpy(into + at, found->second.back().data(), kSector);
      }
    }
  }

  // The loop device writes whole sectors.
  void keep(uint64_t offset, const uint8_t* bytes, size_t length) {
    const std::lock_guard lock(mutex_);
    for (size_t at = 0; at + kSector <= length; at += kSector) {
      Sector sector;
      std::memcpy(sector.data(), bytes + at, kSector);
      cache_[(offset + at) / kSector].push_back(sector);
    }
    ++served_;
    served_changed_.notify_all();
  }

  void flush() {
    const std::lock_guard lock(mutex_);
    for (const auto& [sector, versions] : cache_) {
      std::memcpy(base_ + sector * kSector, versions.back().data(), kSector);
      present_[sector * kSector / kPage] = true;
    }
    cache_.clear();
    ++flushes_;
    ++served_;
    served_changed_.notify_all();
  }

  uint64_t bytes_ = 0;
  int device_ = -1;
  std::string mount_point_;
  std::thread server_;

  Whole whole_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable served_changed_;
  uint8_t* base_ = nullptr;
  std::vector<bool> present_;  // pages of the base that are not all zero
  std::unordered_map<uint64_t, std::vector<Sector>> cache_;
  uint64_t served_ = 0;
  uint64_t flushes_ = 0;
};

}  // namespace holdfast::rig
