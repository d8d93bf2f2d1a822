// store_files.h - a directory that is made to hold the files of one killed store after another.
//
// Making and removing files costs more than the recovery that is judged in them, so those that are there are rewritten in
// place, and only where they differ.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "../../native/format.h"
#include "batches.h"

namespace holdfast::rig {

class StoreFiles {
 public:
  explicit StoreFiles(std::string directory) : root_(std::move(directory)) {}
  StoreFiles(const StoreFiles&) = delete;
  StoreFiles& operator=(const StoreFiles&) = delete;
  ~StoreFiles() {
    for (auto& [path, held] : files_) drop(&held);
  }

  const std::string& directory() const { return root_; }

  // Makes these directories and files be there and no others. Paths are below the directory, parents first.
  void shape(const std::vector<std::string>& directories, const std::vector<std::string_view>& files) {
    std::filesystem::create_directories(root_);
    remove_others("", directories, files);
    for (const std::string& path : directories) mkdir((root_ + "/" + path).c_str(), 0700);
    for (auto it = files_.begin(); it != files_.end();) {
      if (std::find(files.begin(), files.end(), it->first) != files.end()) {
        ++it;
        continue;
      }
      drop(&it->second);
      it = files_.erase(it);
    }
  }

  // Gives a file of shape() a size. What it has in its bytes is from before: every page is to be set().
  void resize(const std::string& path, uint64_t size) {
    current_ = &files_[path];
    const std::string name = root_ + "/" + path;
    struct stat facts {};
    // A recovery may have put another file in its place.
    if (current_->fd < 0 || stat(name.c_str(), &facts) != 0 || facts.st_ino != current_->inode) {
      drop(current_);
      current_->fd = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
      if (current_->fd < 0 || fstat(current_->fd, &facts) != 0) die("can't make a file of a killed store");
      current_->inode = facts.st_ino;
    }
    const bool resized = static_cast<uint64_t>(facts.st_size) != size;
    if (resized && ftruncate(current_->fd, static_cast<off_t>(size)) != 0) die("can't resize a file of a killed store");
    if (current_->size == size && (current_->bytes != nullptr || size == 0)) return;
    unmap(current_);
    current_->size = size;
    if (size == 0) return;
    void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, current_->fd, 0);
    if (mapped == MAP_FAILED) die("can't map a file of a killed store");
    current_->bytes = static_cast<uint8_t*>(mapped);
  }

  // The bytes of one page of the file that was resized last; what is beyond its end is left out. Null: zeros.
  void set(uint64_t page, const uint8_t* bytes) {
    static constexpr uint8_t kZeros[kPageBytes] = {};
    if (bytes == nullptr) bytes = kZeros;
    uint8_t* there = current_->bytes + page * kPageBytes;
    const size_t length = std::min<uint64_t>(kPageBytes, current_->size - page * kPageBytes);
    if (std::memcmp(there, bytes, length) != 0) std::memcpy(there, bytes, length);
  }

 private:
  struct Held {
    int fd = -1;
    ino_t inode = 0;  // stays this file's alone while it is open
    uint64_t size = 0;
    uint8_t* bytes = nullptr;
  };

  static void unmap(Held* held) {
    if (held->bytes != nullptr) munmap(held->bytes, held->size);
    held->bytes = nullptr;
  }
  static void drop(Held* held) {
    unmap(held);
    if (held->fd >= 0) ::close(held->fd);
    *held = Held{};
  }

  void remove_others(const std::string& below, const std::vector<std::string>& directories,
                     const std::vector<std::string_view>& files) {
    DIR* opened = opendir((root_ + "/" + below).c_str());
    if (opened == nullptr) return;
    std::vector<std::string> deeper, extra;
    while (const dirent* entry = readdir(opened)) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      const std::string path = below.empty() ? name : below + "/" + name;
      const bool directory = entry->d_type == DT_DIR;
      const bool wanted = directory ? std::find(directories.begin(), directories.end(), path) != directories.end()
                                    : std::find(files.begin(), files.end(), path) != files.end();
      if (!wanted)
        extra.push_back(path);
      else if (directory)
        deeper.push_back(path);
    }
    closedir(opened);
    for (const std::string& path : extra) std::filesystem::remove_all(root_ + "/" + path);
    for (const std::string& path : deeper) remove_others(path, directories, files);
  }

  std::string root_;
  std::map<std::string, Held, std::less<>> files_;
  Held* current_ = nullptr;
};

}  // namespace holdfast::rig
