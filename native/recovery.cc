// recovery.cc - the decision table of recovery.h.
#include "recovery.h"

namespace holdfast {

RecoveryRow decide_recovery(const RecoveryConditions& c) {
  if (!c.same_boot_and_journal && c.records_missing) return RecoveryRow::C;
  if (!c.same_boot_and_journal) return c.closed_in_order ? RecoveryRow::E : RecoveryRow::F;
  if (!c.same_chain) return c.chain_reaches_committed ? RecoveryRow::D : RecoveryRow::C;
  if (!c.counts_sane || !c.chain_reaches_committed) return RecoveryRow::C;
  return c.all_applied_and_settled ? RecoveryRow::A : RecoveryRow::B;
}

}  // namespace holdfast
