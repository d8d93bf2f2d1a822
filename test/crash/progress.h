// progress.h - tells on stderr, every half minute, how far a long run has come.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

namespace holdfast::rig {

class Progress {
 public:
  Progress(std::string what, uint64_t total) : what_(std::move(what)), total_(total) {}

  void at(uint64_t done) {
    const Clock::time_point now = Clock::now();
    if (done == 0 || now - told_ < std::chrono::seconds(30)) return;
    told_ = now;
    const double minutes = std::chrono::duration<double>(now - began_).count() / 60;
    const double left = done < total_ ? minutes * static_cast<double>(total_ - done) / static_cast<double>(done) : 0;
    std::fprintf(stderr, "%s: %llu of %llu, about %.0f min to go\n", what_.c_str(),
                 static_cast<unsigned long long>(done), static_cast<unsigned long long>(total_), std::ceil(left));
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  uint64_t total_;
  Clock::time_point began_ = Clock::now(), told_ = began_;
};

}  // namespace holdfast::rig
