// check_store.cc - `check_store [--killed] DIRECTORY`: verifies every invariant of a store that no process has open.
//
// Exit status 0: nothing is wrong; 1: it says what is; 2: it was not used right. --killed: the store's last process was
// killed, so what a recovery would finish may be unfinished.
#include <stdio.h>
#include <string.h>

#include "consistency.h"

int main(int argc, char** argv) {
  using holdfast::consistency::Checker;
  using holdfast::consistency::Ended;
  const bool killed = argc == 3 && strcmp(argv[1], "--killed") == 0;
  if (argc != 2 + killed) {
    fprintf(stderr, "usage: check_store [--killed] DIRECTORY\n");
    return 2;
  }
  Checker checker(argv[argc - 1], killed ? Ended::killed : Ended::closed);
  const std::vector<std::string> problems = checker.run();
  for (const std::string& problem : problems) fprintf(stderr, "%s\n", problem.c_str());
  if (problems.empty()) {
    printf("%zu regions, %llu records after the checkpoint: all is well\n", checker.regions(),
           static_cast<unsigned long long>(checker.records()));
  }
  return problems.empty() ? 0 : 1;
}
