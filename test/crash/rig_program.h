// rig_program.h - what the stepping rigs have in common as programs: options, one core, directories of their own.
#pragma once

#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace holdfast::rig {

struct Settings {
  uint64_t seed = 0;
  // The program's own below those that are asked for; removed at the end, but for the first after a failure with `keep`.
  std::string directory = "/var/tmp", scratch = "/dev/shm";
  std::string only;
  bool keep = false;
};

struct Option {
  const char* name;
  int has_argument;  // as getopt_long has it
  std::function<void(const char* argument)> take;
};

// SIGTERM has come: a long run ends where it is, and tells what it has counted.
inline volatile sig_atomic_t enough = 0;

// Reads the options, those in `own` and those of every rig, and runs `run` where it finds all that `settings` says.
// Returns the program's status: 2 for an option that nobody knows, else what `run` returns.
inline int run_program(int argc, char** argv, const char* name, const char* help, Settings* settings,
                       std::vector<Option> own, const std::function<int()>& run) {
  settings->seed = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) % 1000000007;
  bool asked = false;
  own.push_back(
      {"seed", required_argument, [&](const char* text) { settings->seed = std::strtoull(text, nullptr, 10); }});
  own.push_back({"only", required_argument, [&](const char* text) { settings->only = text; }});
  own.push_back({"directory", required_argument, [&](const char* text) { settings->directory = text; }});
  own.push_back({"scratch", required_argument, [&](const char* text) { settings->scratch = text; }});
  own.push_back({"help", no_argument, [&](const char*) { asked = true; }});
  constexpr int kFirst = 256;  // no character, so none of them has a short name
  std::vector<option> options;
  for (const Option& one : own)
    options.push_back({one.name, one.has_argument, nullptr, kFirst + static_cast<int>(options.size())});
  options.push_back({nullptr, 0, nullptr, 0});
  bool known = true;
  for (int c; (c = getopt_long(argc, argv, "", options.data(), nullptr)) != -1;) {
    if (c < kFirst)
      known = false;
    else
      own[static_cast<size_t>(c - kFirst)].take(optarg);
  }
  if (asked || !known) {
    std::printf(
        "%s"
        "  --seed=N        repeats a run; SIGTERM ends it early, with its figures\n"
        "  --directory=D   where the victim's store is made; not on tmpfs, which refuses durable regions (/var/tmp)\n"
        "  --scratch=D     where states are judged; best on tmpfs (/dev/shm)\n",
        help);
    return known ? 0 : 2;
  }
  // One core: rig and victim take turns, and a switch between cores costs more than the step.
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(static_cast<size_t>(sched_getcpu()), &cores);
  sched_setaffinity(0, sizeof cores, &cores);
  std::printf("seed %llu\n", static_cast<unsigned long long>(settings->seed));
  signal(SIGTERM, [](int) { enough = 1; });
  const std::string below = std::string("/holdfast-") + name + "-" + std::to_string(getpid());
  settings->directory += below;
  settings->scratch += below;
  std::filesystem::create_directories(settings->directory);
  std::filesystem::create_directories(settings->scratch);
  const int status = run();
  if (settings->keep && status != 0)
    std::printf("kept in %s\n", settings->directory.c_str());
  else
    std::filesystem::remove_all(settings->directory);
  std::filesystem::remove_all(settings->scratch);
  return status;
}

}  // namespace holdfast::rig
