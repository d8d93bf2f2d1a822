// recovery.h - what to do with a store that is being opened: the decision, apart from the doing (store_open.cc).
//
// It is decided from what the files say, never from an errno or from how the last process ended.
//
//        same boot   same    counts   chain reaches  all applied,  closed    records |
//   row  and journal chain   sane     committed      settled       in order  missing | what is done
//   ---------------------------------------------------------------------------------------------------------------
//    A   yes         yes     yes      yes            yes           -         -       | nothing: every word still holds
//    B   yes         yes     yes      yes            no            -         -       | sync the journal, redo applied+1..
//                                                                                    | committed
//    C   yes         yes     otherwise               -             -         -       | corrupt: keep the journal, fault
//                                                                                    | every region
//    C   yes         no      -        no             -             -         -       | the same: a checkpoint that was
//                                                                                    | there is not
//    C   no          -       -        -              -             -         yes     | the same
//    D   yes         no      -        yes            -             -         -       | a recovery was killed: redo the
//                                                                                    | chain, new salt
//    E   no          -       -        -              -             yes       no      | the store was moved or the machine
//                                                                                    | restarted after an orderly end:
//                                                                                    | new salt
//    F   no          -       -        -              -             no        no      | power cut or kernel crash: redo
//                                                                                    | the chain, sync, new salt; fast
//                                                                                    | regions are unverified
//
//   same boot and journal: boot id, device, inode and birth time of the journal are those in the words
//   same chain:            the words' salt is the newest checkpoint's
//   chain reaches committed: its last record is the words' committed one, or (another chain) not before it
//   counts sane:           checkpoint <= applied <= committed
//   closed in order:       the newest checkpoint says so and no valid record follows it
//   records missing:       one slot holds no checkpoint, and beyond the chain lies a record that was written when a newer
//                          checkpoint than the other slot's counted. So that one was on the disk and is damaged; the ring
//                          may have been used again from where the older one's chain begins, and the data files are ahead
#pragma once

namespace holdfast {

struct RecoveryConditions {
  bool same_boot_and_journal = false;
  bool same_chain = false;
  bool counts_sane = false;
  bool chain_reaches_committed = false;
  bool all_applied_and_settled = false;
  bool closed_in_order = false;
  bool records_missing = false;
};

enum class RecoveryRow : char { A = 'A', B = 'B', C = 'C', D = 'D', E = 'E', F = 'F' };

RecoveryRow decide_recovery(const RecoveryConditions& c);

}  // namespace holdfast
