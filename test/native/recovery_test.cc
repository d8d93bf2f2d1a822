// recovery_test.cc - the decision table of recovery.h, all 128 combinations of its conditions.
//
// The expectation is written as the table's rows are, with "does not matter" where a row says so: a row that was missing
// or two rows that overlap would show here as a combination with no or two answers.
#include "../../native/recovery.h"

#include <string>

#include "check.h"

using namespace holdfast;

namespace {

// 'y', 'n' or '-' for: same boot and journal, same chain, counts sane, chain reaches committed, all applied and settled,
// closed in order, records missing.
struct Row {
  RecoveryRow row;
  const char* conditions;
};
constexpr Row kRows[] = {
    {RecoveryRow::A, "yyyyy--"}, {RecoveryRow::B, "yyyyn--"}, {RecoveryRow::C, "yyn----"},
    {RecoveryRow::C, "yyyn---"}, {RecoveryRow::C, "yn-n---"}, {RecoveryRow::C, "n-----y"},
    {RecoveryRow::D, "yn-y---"}, {RecoveryRow::E, "n----yn"}, {RecoveryRow::F, "n----nn"},
};

bool matches(const Row& row, int combination) {
  for (int i = 0; i < 7; i++) {
    const char want = row.conditions[i];
    if (want != '-' && (want == 'y') != ((combination >> i & 1) != 0)) return false;
  }
  return true;
}

RecoveryConditions conditions_of(int combination) {
  RecoveryConditions c;
  c.same_boot_and_journal = combination & 1;
  c.same_chain = combination & 2;
  c.counts_sane = combination & 4;
  c.chain_reaches_committed = combination & 8;
  c.all_applied_and_settled = combination & 16;
  c.closed_in_order = combination & 32;
  c.records_missing = combination & 64;
  return c;
}

}  // namespace

int main() {
  check::test("each of the 128 combinations has exactly one row, and the decision is that row", [] {
    for (int combination = 0; combination < 128; combination++) {
      check::context = "combination " + std::to_string(combination);
      int found = 0;
      for (const Row& row : kRows) {
        if (!matches(row, combination)) continue;
        found++;
        CHECK_EQ(static_cast<char>(decide_recovery(conditions_of(combination))), static_cast<char>(row.row));
      }
      CHECK_EQ(found, 1);
    }
  });
  check::test("nothing is redone or believed where the words contradict the chain", [] {
    // What must never happen, said without the table: a clean verdict over records that are missing, or unfinished.
    for (int combination = 0; combination < 128; combination++) {
      check::context = "combination " + std::to_string(combination);
      const RecoveryConditions c = conditions_of(combination);
      const RecoveryRow row = decide_recovery(c);
      const bool believes_words = row == RecoveryRow::A || row == RecoveryRow::B;
      if (believes_words) CHECK(c.same_boot_and_journal && c.same_chain && c.counts_sane && c.chain_reaches_committed);
      if (row == RecoveryRow::A) CHECK(c.all_applied_and_settled);
      if (row == RecoveryRow::E) CHECK(!c.same_boot_and_journal && c.closed_in_order);
      if (!c.same_boot_and_journal) CHECK_EQ(row == RecoveryRow::C, c.records_missing);
      if (!c.same_boot_and_journal && !c.records_missing) CHECK(row == RecoveryRow::E || row == RecoveryRow::F);
    }
  });
  return check::done();
}
