// live_files.h - the files of a store that a process has open, followed instruction by instruction: after each one they are
// what SIGKILL would leave.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "batches.h"
#include "store_files.h"

namespace holdfast::rig {

struct StateFile {
  std::string path;  // below the store's directory
  std::vector<uint8_t> bytes;
};
struct State {
  std::vector<std::string> directories;
  std::vector<StateFile> files;
};

// The live files of a store, and a copy of how they were when changed() was last asked.
class Watch {
 public:
  // `victim` is the process that has the store open.
  Watch(std::string directory, pid_t victim) : root_(std::move(directory)), victim_(victim) { after_system_call(); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() {
    for (Live& live : live_) drop(live);
  }

  const State& state() const { return state_; }

  // Only a system call can make, remove, rename or resize a file, write to a part of it that the victim has not mapped,
  // or change what is mapped: the next changed() looks at everything, those after it at what is mapped.
  void after_system_call() {
    State found;
    std::vector<Live> lives;
    walk("", &found, &lives);
    if (!same_shape(found, lives)) {
      for (size_t i = 0; i < found.files.size(); ++i) {
        found.files[i].bytes.assign(lives[i].bytes, lives[i].bytes + lives[i].size);
      }
      state_ = std::move(found);
      changed_ = true;
    }
    // Those that were taken over are null here.
    for (Live& live : live_) drop(live);
    live_ = std::move(lives);
    find_mapped();
    everything_ = true;
  }

  // True when anything differs from the last time; state() is up to date afterwards.
  bool changed() {
    bool any = changed_;
    changed_ = false;
    for (size_t i = 0; i < live_.size(); ++i) {
      if (everything_) {
        any |= update(i, 0, live_[i].size);
      } else {
        for (const auto& [from, to] : live_[i].mapped) any |= update(i, from, to);
      }
    }
    everything_ = false;
    return any;
  }

  const std::vector<uint8_t>* file(const std::string& path) const { return find(state_, path); }
  static const std::vector<uint8_t>* find(const State& state, const std::string& path) {
    for (const StateFile& file : state.files) {
      if (file.path == path) return &file.bytes;
    }
    return nullptr;
  }

 private:
  struct Live {
    const uint8_t* bytes = nullptr;
    size_t size = 0;
    ino_t inode = 0;
    std::vector<std::pair<size_t, size_t>> mapped;  // by the victim: from, to
  };

  static void drop(Live& live) {
    if (live.bytes != nullptr) munmap(const_cast<uint8_t*>(live.bytes), live.size);
    live.bytes = nullptr;
  }

  bool same_shape(const State& found, const std::vector<Live>& lives) const {
    if (found.directories != state_.directories || found.files.size() != state_.files.size()) return false;
    for (size_t i = 0; i < found.files.size(); ++i) {
      if (found.files[i].path != state_.files[i].path || lives[i].size != state_.files[i].bytes.size()) return false;
    }
    return true;
  }

  bool update(size_t index, size_t from, size_t to) {
    const uint8_t* live = live_[index].bytes;
    uint8_t* kept = state_.files[index].bytes.data();
    to = std::min(to, live_[index].size);
    if (from >= to || std::memcmp(live + from, kept + from, to - from) == 0) return false;
    std::memcpy(kept + from, live + from, to - from);
    return true;
  }

  void walk(const std::string& below, State* found, std::vector<Live>* lives) {
    const std::string directory = root_ + "/" + below;
    DIR* open_directory = opendir(directory.c_str());
    if (open_directory == nullptr) return;
    std::vector<std::string> names;
    while (const dirent* entry = readdir(open_directory)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    closedir(open_directory);
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      const std::string path = below.empty() ? name : below + "/" + name;
      struct stat facts {};
      if (lstat((root_ + "/" + path).c_str(), &facts) != 0) continue;
      if (S_ISDIR(facts.st_mode)) {
        found->directories.push_back(path);
        walk(path, found, lives);
      } else if (S_ISREG(facts.st_mode)) {
        lives->push_back(take(path, facts));
        found->files.push_back({path, {}});
      }
    }
  }

  // The mapping of a file, the one there is if it still shows that file.
  Live take(const std::string& path, const struct stat& facts) {
    const auto size = static_cast<size_t>(facts.st_size);
    for (Live& old : live_) {
      if (old.bytes == nullptr || old.inode != facts.st_ino || old.size != size) continue;
      Live live = old;
      old.bytes = nullptr;
      return live;
    }
    Live live;
    live.size = size;
    live.inode = facts.st_ino;
    if (size == 0) return live;
    const int fd = ::open((root_ + "/" + path).c_str(), O_RDONLY | O_CLOEXEC);
    void* mapped = fd < 0 ? MAP_FAILED : mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) die("can't map a file of the store");
    ::close(fd);
    live.bytes = static_cast<const uint8_t*>(mapped);
    return live;
  }

  void find_mapped() {
    for (Live& live : live_) live.mapped.clear();
    std::FILE* maps = std::fopen(("/proc/" + std::to_string(victim_) + "/maps").c_str(), "re");
    if (maps == nullptr) die("can't read what the victim has mapped");
    char line[4400];
    while (std::fgets(line, sizeof line, maps) != nullptr) {
      unsigned long long from = 0, to = 0, offset = 0, inode = 0;
      if (std::strstr(line, root_.c_str()) == nullptr ||
          std::sscanf(line, "%llx-%llx %*s %llx %*s %llu", &from, &to, &offset, &inode) != 4) {
        continue;
      }
      for (Live& live : live_) {
        const std::pair<size_t, size_t> range(offset, offset + (to - from));
        if (live.inode != inode || std::find(live.mapped.begin(), live.mapped.end(), range) != live.mapped.end())
          continue;
        live.mapped.push_back(range);
      }
    }
    std::fclose(maps);
  }

  std::string root_;
  pid_t victim_;
  std::vector<Live> live_;  // in the order of state_.files
  State state_;
  bool changed_ = true;
  bool everything_ = true;
};

// Makes `files` be exactly `state`.
inline void materialize(const State& state, StoreFiles* files) {
  std::vector<std::string_view> paths;
  for (const StateFile& file : state.files) paths.push_back(file.path);
  files->shape(state.directories, paths);
  for (const StateFile& file : state.files) {
    files->resize(file.path, file.bytes.size());
    for (size_t at = 0; at < file.bytes.size(); at += kPageBytes) files->set(at / kPageBytes, &file.bytes[at]);
  }
}

}  // namespace holdfast::rig
