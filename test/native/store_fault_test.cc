// store_fault_test.cc - files that others cut, disks that are full or fail: what is refused, what goes on, what is redone.
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <fstream>
#include <utility>

#include "../../native/failpoint.h"
#include "../../native/fault_guard.h"
#include "../../native/holdfast.h"
#include "../../native/store.h"
#include "stores.h"

using namespace holdfast;
using namespace holdfast::frames;
using namespace holdfast::stores;

// ---- what the kernel says of a file that the disk fails on: of pages it could not write back, to each open file once ----

namespace {

struct Writeback {
  ino_t inode = 0;  // the file that is looked at; 0: none
  int errors = 0;
  std::map<int, int> told;  // by descriptor
};
Writeback writeback;
ino_t unreadable = 0;  // the file that can't be read; 0: none

// Whether a sync through this descriptor has to tell an error.
bool tells(int fd) {
  struct stat facts;
  if (!writeback.inode || fstat(fd, &facts) != 0 || facts.st_ino != writeback.inode) return false;
  return std::exchange(writeback.told[fd], writeback.errors) != writeback.errors;
}

}  // namespace

// In the place of libc's, for the whole program.
extern "C" int fdatasync(int fd) {
  if (!tells(fd)) return static_cast<int>(syscall(SYS_fdatasync, fd));
  errno = EIO;
  return -1;
}

extern "C" ssize_t preadv2(int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  struct stat facts;
  if (!unreadable || fstat(fd, &facts) != 0 || facts.st_ino != unreadable)
    return syscall(SYS_preadv2, fd, parts, count, offset, 0, flags);
  errno = EIO;
  return -1;
}

extern "C" ssize_t pwritev2(int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  const ssize_t written = syscall(SYS_pwritev2, fd, parts, count, offset, 0, flags);
  if (written < 0 || !(flags & RWF_DSYNC) || !tells(fd)) return written;
  errno = EIO;
  return -1;
}

namespace {

constexpr uint64_t kSize = 64 << 10;

// A region whose pages are all in use, and a second one that has nothing to do with it.
void make_two(Client& c, Durability mode) {
  CHECK_EQ(c.create("demo", kSize, mode), Code::ok);
  CHECK_EQ(c.create("other", kSize, mode), Code::ok);
  for (const char* name : {"demo", "other"})
    for (uint64_t at = 0; at < kSize; at += 4096) CHECK_EQ(c.write(name, at, "old"), Code::ok);
  CHECK_EQ(c.store->flush(""), Code::ok);
}

void cut(const Lives& lives, uint64_t size) {
  CHECK_EQ(truncate(lives.path("regions/demo/data").c_str(), static_cast<off_t>(size)), 0);
}

void written_back() {
  for (const bool before_checkpoint : {true, false})
    check::test(before_checkpoint
                    ? "a record that could not be written back is told to the flusher, not to the checkpoint"
                    : "a slot that could not be written back is told to the checkpoint and to the flusher",
                [before_checkpoint] {
                  // The kernel tells each open file once: the checkpoint's slot took the error of the ring's pages, and
                  // the next fdatasync of the ring said that the record was on the disk.
                  Lives lives;
                  lives.options.threads = false;
                  lives.killed_after([&](Client& c) {
                    make_two(c, Durability::durable);
                    struct stat facts;
                    CHECK_EQ(stat(lives.path("journal").c_str(), &facts), 0);
                    writeback.inode = facts.st_ino;
                    Answer answer;
                    const Bytes frame = make_frame(parts_of({"demo"}, {write_op(0, "new")}));
                    if (before_checkpoint) CHECK(!c.start(frame, 1, &answer));
                    writeback.errors++;
                    CHECK_EQ(c.store->checkpoint_step(), EIO);
                    if (!before_checkpoint) CHECK(!c.start(frame, 1, &answer));
                    CHECK(c.store->flush_step());
                    CHECK_EQ(c.wait(1).code(), Code::flush_failed);
                    CHECK_EQ(c.write("other", 0, "x"), Code::region_faulted);
                  });
                  CHECK_EQ(lives.open().read("demo", 0, 3), std::string("new"));
                });
}

void truncated() {
  for (const Durability mode : {Durability::fast, Durability::ordered, Durability::durable}) {
    const char* const names[] = {"", "fast", "ordered", "durable"};
    check::test(
        (std::string(
             "a file that is cut under a live mapping faults its region, and its batch is redone when the file is "
             "whole again: ") +
         names[static_cast<int>(mode)])
            .c_str(),
        [mode] {
          Lives lives;
          lives.options.threads = false;
          Client& c = lives.open();
          make_two(c, mode);
          const uint64_t before = c.info("demo").generation, caught = fault_guard_caught();
          const Bytes frame = make_frame(
              parts_of({"demo", "other"}, {write_op(0, "new"), write_op(40000, "new"), write_op(0, "new").in(1)}));
          Answer answer;
          // A fast batch is applied at once, the others when their record is on the disk.
          if (mode == Durability::fast) cut(lives, 4096);
          const bool at_once = c.start(frame, 1, &answer);
          CHECK_EQ(at_once, mode != Durability::durable);
          if (mode != Durability::fast) {
            cut(lives, 4096);
            CHECK(c.store->flush_step());
          }
          if (!at_once) answer = c.wait(1);
          CHECK_EQ(answer.code(), mode == Durability::ordered ? Code::ok : Code::region_faulted);
          CHECK(answer.header().flags & kAnswerCommitted);
          CHECK(fault_guard_caught() > caught);
          CHECK_EQ(c.write("demo", 0, "x"), Code::region_faulted);
          // Half of the batch is in the file: nobody is shown it, mapped or not.
          CHECK_EQ(c.read("demo", 0, 3), std::string("!region_faulted"));
          CHECK_EQ(c.run(parts_of({"demo"}, {read_op(0, 3)})).code(), Code::region_faulted);
          CHECK_EQ(control_of(lives, "demo").state, static_cast<uint32_t>(HOLDFAST_STATE_FAULTED));
          CHECK_EQ(control_of(lives, "demo").sequence & 1, 1u);
          // The other region of the same batch has it, and goes on.
          c.store->flush_step();
          CHECK_EQ(c.read("other", 0, 3), std::string("new"));
          CHECK_EQ(c.write("other", 8, "on"), Code::ok);
          CHECK_EQ(c.store->checkpoint_step(), 0);
          CHECK(std::filesystem::file_size(lives.path("regions/demo/redo")) > 0);
          // The ring goes round; what the region misses is in its redo file.
          for (int i = 0; i < 100; i++) CHECK_EQ(c.write("other", 100, std::string(4000, 'x')), Code::ok);
          lives.close();
          // Still cut at the next start: still faulted, nothing forgotten.
          Client& second = lives.open();
          CHECK_EQ(second.recovery().faulted.size(), 1u);
          CHECK_EQ(second.write("demo", 0, "x"), Code::region_faulted);
          CHECK_EQ(second.write("other", 8, "on"), Code::ok);
          CHECK_EQ(second.store->checkpoint_step(), 0);
          lives.close();
          CHECK(std::filesystem::file_size(lives.path("regions/demo/redo")) > 0);
          cut(lives, kSize);
          Client& third = lives.open();
          CHECK(third.recovery().faulted.empty());
          CHECK_EQ(third.read("demo", 40000, 3), std::string("new"));
          CHECK_EQ(third.read("demo", 0, 3), std::string("new"));
          CHECK_EQ(third.info("demo").generation, before + 1);
          CHECK(!std::filesystem::exists(lives.path("regions/demo/redo")));
          CHECK_EQ(third.write("demo", 0, "x"), Code::ok);
        });
  }

  check::test("a sparse region whose file was cut is faulted, not filled with zeros", [] {
    // Blocks for the next batch grew the file back to its length: all that was lost read as zeros, and nothing said so.
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 1 << 20, Durability::ordered, kMetaSparse), Code::ok);
    CHECK_EQ(c.write("demo", 0, "old"), Code::ok);
    CHECK_EQ(c.store->flush(""), Code::ok);
    cut(lives, 0);
    CHECK_EQ(c.write("demo", 500000, "x"), Code::region_faulted);
    CHECK_EQ(std::filesystem::file_size(lives.path("regions/demo/data")), 0u);
    CHECK(!c.info("demo").fault.empty());
    CHECK_EQ(c.read("demo", 0, 3), std::string("!region_faulted"));
  });

  check::test("a batch that reads or copies a page that is gone is refused with nothing written", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::ordered);
    CHECK_EQ(c.create("quick", kSize, Durability::fast), Code::ok);
    CHECK_EQ(c.write("quick", 0, "old"), Code::ok);
    const uint64_t committed = c.store->status().committed;
    cut(lives, 4096);
    // One region's page is copied to be written over; then the other's can't be. Had the first copy stayed, the next
    // batch of several modes would have been laid over bytes of now.
    CHECK_EQ(c.run(parts_of({"quick", "demo"}, {write_op(0, "new"), write_op(40000, "new").in(1)})).code(),
             Code::region_faulted);
    CHECK_EQ(c.store->status().committed, committed);
    CHECK_EQ(c.write("quick", 8, "first"), Code::ok);
    Answer answer;
    CHECK(c.start(make_frame(parts_of({"quick", "other"}, {write_op(16, "second"), write_op(0, "new").in(1)})), 1,
                  &answer));
    CHECK(c.start(make_frame(parts_of({"quick"}, {read_op(8, 14)})), 2, &answer));
    CHECK_EQ(answer.data(), std::string("first\0\0\0second", 14));
    c.store->flush_step();
    CHECK_EQ(c.read("quick", 8, 14), std::string("first\0\0\0second", 14));
  });

  for (const bool opens : {true, false})
    check::test(opens ? "a redo file that can't be read keeps its region from being read and stored to, and stays whole"
                      : "a redo file that can't be opened keeps its region from being read and stored to",
                [opens] {
                  // The torn data was shown as whole, and newer records were stored, over which the file's older ones came later.
                  Lives lives;
                  lives.options.threads = false;
                  const std::string redo = lives.path("regions/demo/redo"), aside = lives.directory / "redo";
                  lives.killed_after([&](Client& c) {
                    make_two(c, Durability::ordered);
                    CHECK_EQ(c.run(parts_of({"demo"}, {write_op(0, "new"), write_op(40000, "new")})).code(), Code::ok);
                    cut(lives, 4096);
                    c.store->flush_step();
                    CHECK_EQ(c.store->checkpoint_step(), 0);
                    CHECK_EQ(c.write("other", 0, "on"), Code::ok);
                  });
                  cut(lives, kSize);
                  struct stat facts;
                  CHECK_EQ(stat(redo.c_str(), &facts), 0);
                  if (opens) {
                    unreadable = facts.st_ino;
                  } else {
                    std::filesystem::rename(redo, aside);
                    std::filesystem::create_directory(redo);
                  }
                  const auto faulted = [](Client& c) {
                    return c.recovery().faulted == std::vector<std::string>{"demo"};
                  };
                  lives.killed_after(
                      [&](Client& c) {
                        CHECK_EQ(c.recovery().row, RecoveryRow::B);
                        CHECK(faulted(c));
                        CHECK_EQ(c.read("demo", 0, 3), std::string("!region_faulted"));
                        CHECK_EQ(control_of(lives, "demo").sequence & 1, 1u);
                        MetaChange labels;
                        labels.labels = "{}";
                        CHECK_EQ(c.update("demo", labels), Code::ok);
                        CHECK_EQ(c.write("other", 0, "and on"), Code::ok);
                      },
                      !opens);
                  // The change of the labels names the region: its record must not hold the journal's words behind the checkpoint.
                  lives.killed_after(
                      [&](Client& c) {
                        CHECK(c.recovery().row != RecoveryRow::C);
                        CHECK(faulted(c));
                      },
                      !opens);
                  unreadable = 0;
                  if (!opens) {
                    std::filesystem::remove(redo);
                    std::filesystem::rename(aside, redo);
                  }
                  Client& c = lives.open();
                  CHECK(c.recovery().row != RecoveryRow::C);
                  CHECK(c.recovery().faulted.empty());
                  CHECK_EQ(c.read("demo", 0, 3), std::string("new"));
                  CHECK_EQ(c.read("demo", 40000, 3), std::string("new"));
                  CHECK_EQ(c.read("other", 0, 6), std::string("and on"));
                });

  check::test("a redo file with a damaged record faults its region and is kept", [] {
    // It was read up to there and unlinked: the records behind were nowhere any more.
    for (const uint64_t damaged : {0, 1}) {
      check::context = "record " + std::to_string(damaged);
      Lives lives;
      lives.options.threads = false;
      Client& c = lives.open();
      make_two(c, Durability::ordered);
      for (const char* text : {"one", "two"}) CHECK_EQ(c.write("demo", 40000, text), Code::ok);
      cut(lives, 4096);
      c.store->flush_step();
      CHECK_EQ(c.store->checkpoint_step(), 0);
      lives.close();
      cut(lives, kSize);
      const std::string redo = lives.path("regions/demo/redo");
      const Bytes whole = file_bytes(redo);
      const uint64_t at = damaged * reinterpret_cast<const RecordHeader*>(whole.data())->total_bytes + 100;
      const uint8_t flipped = whole[at] ^ 1;
      patch_file(redo, at, &flipped, 1);
      CHECK(lives.open().recovery().faulted == std::vector<std::string>{"demo"});
      lives.close(Ended::killed);
      if (!CHECK(std::filesystem::exists(redo))) continue;
      patch_file(redo, at, &whole[at], 1);
      CHECK(file_bytes(redo) == whole);
      Client& again = lives.open();
      CHECK(again.recovery().faulted.empty());
      CHECK_EQ(again.read("demo", 40000, 3), std::string("two"));
    }
  });

  check::test("a process that is killed with a faulted region loses none of its batches", [] {
    for (const bool checkpointed : {false, true}) {
      check::context = checkpointed ? "after a checkpoint" : "before a checkpoint";
      Lives lives;
      lives.options.threads = false;
      lives.killed_after([&](Client& c) {
        make_two(c, Durability::ordered);
        CHECK_EQ(c.store->checkpoint_step(), 0);
        for (const char* text : {"one", "two"})
          CHECK_EQ(c.run(parts_of({"demo", "other"}, {write_op(40000, text), write_op(0, text).in(1)})).code(),
                   Code::ok);
        cut(lives, 4096);
        c.store->flush_step();
        CHECK_EQ(c.write("other", 8, "on"), Code::ok);
        c.store->flush_step();
        if (checkpointed) CHECK_EQ(c.store->checkpoint_step(), 0);
        CHECK_EQ(c.write("other", 8, "and on"), Code::ok);
      });
      Client& second = lives.open();
      CHECK_EQ(second.recovery().faulted.size(), 1u);
      CHECK_EQ(second.read("other", 8, 6), std::string("and on"));
      lives.close();
      cut(lives, kSize);
      Client& third = lives.open();
      CHECK_EQ(third.read("demo", 40000, 3), std::string("two"));
      CHECK_EQ(third.info("demo").generation, 18u);
    }
  });

  check::test("a faulted region can be removed, and one that is only read is not touched", [] {
    Lives lives;
    Client& c = lives.open();
    make_two(c, Durability::fast);
    cut(lives, 4096);
    CHECK_EQ(c.read("demo", 0, 3), std::string("old"));
    CHECK_EQ(c.read("demo", 40000, 3), std::string("!region_faulted"));
    CHECK_EQ(c.store->flush("demo"), Code::region_faulted);
    CHECK_EQ(c.store->flush(""), Code::ok);
    CHECK_EQ(c.resize("demo", 2 * kSize), Code::region_faulted);
    CHECK_EQ(c.remove("demo"), Code::ok);
    CHECK_EQ(c.create("demo", kSize, Durability::fast), Code::ok);
    CHECK_EQ(c.write("demo", 40000, "new"), Code::ok);
  });
}

bool mount_tmpfs(const std::string& at, const char* options) {
  return mount("tmpfs", at.c_str(), "tmpfs", 0, options) == 0;
}

// 64 MiB in memory, which can share blocks between files. Smaller than xfs likes it: the variables are its own tests'.
bool mount_xfs(const std::string& at) {
  const std::string image = at + "/image";
  return mount_tmpfs(at, "size=80m") && truncate(std::ofstream(image) ? image.c_str() : "", 64 << 20) == 0 &&
         std::system(("TEST_DIR=/ TEST_DEV=/ QA_CHECK_FS=1 mkfs.xfs -q -m reflink=1 -l size=8m " + image +
                      " && mount -t xfs -o loop " + image + " " + at + " 2>/dev/null")
                         .c_str()) == 0;
}

// Runs `body` on a file system that `mounts` mounts there and that goes away with it.
void mounting(const char* name, const char* needs, const std::function<bool(const std::string&)>& mounts,
              const std::function<void(const std::string&)>& body) {
  constexpr int kUnable = 93;
  const auto mounted = [&](const std::string& at) {
    return unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 && mounts(at);
  };
  Directory directory;
  const int able = Lives::in_process([&] { _exit(mounted(directory.path()) ? 0 : kUnable); });
  if (!WIFEXITED(able) || WEXITSTATUS(able) != 0) return check::skip(name, needs);
  check::test(name, [&] {
    const int status = Lives::in_process([&] {
      CHECK(mounted(directory.path()));
      body(directory.path());
      fflush(stdout);
    });
    CHECK_EQ(status, 0);
  });
}

void mounting(const char* name, const std::function<void(const std::string&)>& body) {
  mounting(
      name, "needs root, to mount a file system",
      [](const std::string& at) { return mount_tmpfs(at, "size=4m,mode=0755"); }, body);
}

// Takes all the space that is left, down to single blocks.
void fill(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  off_t end = 0;
  for (off_t step = 16 << 20; step >= 4096;) {
    if (fallocate(fd, 0, end, step) == 0)
      end += step;
    else
      step /= 2;
  }
  close(fd);
}

void file_systems() {
  mounting("a file system that is full refuses a creation, growth and a batch on a hole, with nothing written",
           [](const std::string& base) {
             Lives lives(base);
             lives.options.threads = false;
             Client& c = lives.open();
             CHECK_EQ(c.create("big", 3 << 20, Durability::ordered), Code::insufficient_storage);
             CHECK(c.store->names().empty());
             CHECK_EQ(c.create("demo", 256 << 10, Durability::ordered), Code::ok);
             CHECK_EQ(c.write("demo", 5000, "old"), Code::ok);
             CHECK_EQ(c.resize("demo", 4 << 20), Code::insufficient_storage);
             CHECK_EQ(c.info("demo").meta.size, uint64_t{256} << 10);
             CHECK_EQ(std::filesystem::file_size(lives.path("regions/demo/data")), uint64_t{256} << 10);

             constexpr uint64_t kSparse = 8 << 20;
             CHECK_EQ(c.create("sparse", kSparse, Durability::ordered, kMetaSparse), Code::ok);
             uint64_t at = 0;
             Code code = Code::ok;
             uint64_t committed = 0;
             for (; at < kSparse; at += 4096) {
               committed = c.store->status().committed;
               code = c.run(parts_of({"sparse", "demo"}, {write_op(at, "full"), write_op(0, "with").in(1)})).code();
               c.store->flush_step();
               if (code != Code::ok) break;
               CHECK_EQ(c.store->checkpoint_step(), 0);
             }
             CHECK_EQ(code, Code::insufficient_storage);
             CHECK(at > 0);
             CHECK_EQ(c.store->status().committed, committed);
             CHECK_EQ(c.info("demo").generation, 1 + at / 4096);
             CHECK(c.info("sparse").fault.empty());
             CHECK_EQ(c.read("sparse", at - 4096, 4), std::string("full"));
             // What has its blocks goes on.
             CHECK_EQ(c.write("demo", 100000, "on"), Code::ok);
             c.store->flush_step();
             CHECK_EQ(c.read("demo", 100000, 2), std::string("on"));
             CHECK_EQ(c.remove("demo"), Code::ok);
             CHECK_EQ(c.write("sparse", at, "room"), Code::ok);
             lives.close();
             CHECK_EQ(lives.open().read("sparse", at, 4), std::string("room"));
           });

  mounting("a batch that finds no room for blocks that a snapshot shares is refused, with nothing written",
           "needs root, mkfs.xfs and a loop device", mount_xfs, [](const std::string& base) {
             constexpr uint64_t kPages = 64, kSize = kPages * 4096;
             Lives lives(base);
             lives.options.threads = false;
             Client* c = &lives.open();
             uint64_t generation = 0;
             // Each page by a batch of its own, until one is refused; which one that is, or kPages.
             const auto write_pages = [&](const char* bytes) {
               for (uint64_t page = 0; page < kPages; ++page) {
                 const uint64_t committed = c->store->status().committed;
                 const Code code = c->write("demo", page * 4096, bytes);
                 c->store->flush_step();
                 CHECK(c->info("demo").fault.empty());
                 if (code == Code::ok) {
                   CHECK_EQ(c->store->checkpoint_step(), 0);
                   ++generation;
                   continue;
                 }
                 CHECK_EQ(code, Code::insufficient_storage);
                 CHECK_EQ(c->store->status().committed, committed);
                 CHECK_EQ(c->info("demo").generation, generation);
                 return page;
               }
               return kPages;
             };
             CHECK_EQ(c->create("demo", kSize, Durability::ordered), Code::ok);
             CHECK_EQ(write_pages("one"), kPages);
             MetaResult made;
             std::string detail;
             CHECK_EQ(c->store->make_snapshot("demo", Conditions{}, &made, &detail), Code::ok);
             fill(base + "/filler");
             const uint64_t refused = write_pages("two");
             CHECK(refused < kPages);
             CHECK_EQ(c->read("demo", refused * 4096, 3), std::string("one"));
             remove((base + "/filler").c_str());
             CHECK_EQ(write_pages("two"), kPages);

             // And those that a restore shares.
             MetaResult restored;
             Conditions any;
             any.if_match = any.if_match_any = true;
             CHECK_EQ(c->store->restore("demo", made.snapshot.id, any, &restored, &detail), Code::ok);
             ++generation;
             fill(base + "/filler");
             CHECK(write_pages("new") < kPages);
             remove((base + "/filler").c_str());
             CHECK_EQ(write_pages("new"), kPages);
             lives.close();
             CHECK_EQ(lives.open().read("demo", kSize - 4096, 3), std::string("new"));
           });

  mounting("a store on a file system that is read-only is refused, and is whole when it can be written again",
           [](const std::string& base) {
             Lives lives(base);
             Client& c = lives.open();
             CHECK_EQ(c.create("demo", 8192, Durability::ordered), Code::ok);
             CHECK_EQ(c.write("demo", 4094, "here"), Code::ok);
             lives.close();
             CHECK_EQ(mount(nullptr, base.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
             CHECK(lives.refused() != Code::ok);
             CHECK(lives.detail.find("Read-only file system") != std::string::npos);
             CHECK_EQ(mount(nullptr, base.c_str(), nullptr, MS_REMOUNT, nullptr), 0);
             CHECK_EQ(lives.open().read("demo", 4094, 4), std::string("here"));
           });

  mounting("a store of another user is refused, and nothing of it is touched", [](const std::string& base) {
    constexpr uid_t kNobody = 65534;
    Lives lives(base);
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 8192, Durability::ordered), Code::ok);
    CHECK_EQ(c.write("demo", 4094, "here"), Code::ok);
    lives.close();
    const Bytes before = file_bytes(lives.path("journal"));
    // It may enter the folders, and no file.
    for (const auto& entry : std::filesystem::recursive_directory_iterator(base))
      if (entry.is_directory()) CHECK_EQ(chmod(entry.path().c_str(), 0755), 0);
    const int status = Lives::in_process([&] {
      CHECK_EQ(setresuid(kNobody, kNobody, kNobody), 0);
      CHECK(lives.refused() != Code::ok);
      CHECK(lives.detail.find("store.lock: Permission denied") != std::string::npos);
      fflush(stdout);
    });
    CHECK_EQ(status, 0);
    CHECK(file_bytes(lives.path("journal")) == before);
    CHECK_EQ(lives.open().read("demo", 4094, 4), std::string("here"));
  });
}

// A process that is the first of a PID namespace, as one in a container is. -1: this machine doesn't let us.
pid_t in_pid_namespace(const std::function<void()>& body) {
  fflush(stdout);
  const auto child = static_cast<pid_t>(syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0));
  if (child != 0) return child;
  check::failures_here = 0;
  body();
  fflush(stdout);
  _exit(check::failures_here == 0 ? 0 : 91);
}

int ended(pid_t pid) {
  int status = -1;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

void pid_namespaces() {
  const char* name =
      "a standby that is killed in another PID namespace takes nothing from the writer, whose end hands over";
  const pid_t able = in_pid_namespace([] {});
  if (able < 0) return check::skip(name, "needs root, to make PID namespaces");
  ended(able);
  check::test(name, [] {
    // A robust mutex fails here: both are thread 1 of their namespaces, and the kernel takes the one for the other.
    Lives lives;
    int told[2];
    CHECK_EQ(pipe2(told, O_CLOEXEC), 0);
    const auto tell = [&](char what) { CHECK_EQ(write(told[1], &what, 1), ssize_t{1}); };
    const auto hear = [&] {
      char what = 0;
      struct pollfd ready = {told[0], POLLIN, 0};
      return poll(&ready, 1, 20000) == 1 && read(told[0], &what, 1) == 1 ? what : '-';
    };
    const pid_t writer = in_pid_namespace([&] {
      auto* c = new Client(lives.options);
      CHECK_EQ(c->create("demo", 8192, Durability::durable), Code::ok);
      for (uint64_t batch = 1;; batch++) {
        if (c->run(parts_of({"demo"}, {add_op(0, ValueType::u64, 1), add_op(5000, ValueType::u64, 1)})).code() !=
            Code::ok)
          _exit(92);
        if (batch == 10) tell('w');
      }
    });
    const auto standby = [&] {
      return in_pid_namespace([&] {
        StoreOptions options = lives.options;
        options.standby = true;
        options.on_standby = [&] { tell('s'); };
        Client c(options);
        CHECK_EQ(c.code, Code::ok);
        CHECK(c.recovery().faulted.empty());
        uint64_t low = 0, high = 0;
        memcpy(&low, c.read("demo", 0, 8).data(), 8);
        memcpy(&high, c.read("demo", 5000, 8).data(), 8);
        CHECK(low >= 10);
        CHECK_EQ(low, high);
        CHECK_EQ(low, c.info("demo").generation);
        CHECK_EQ(c.write("demo", 100, "mine"), Code::ok);
      });
    };
    CHECK_EQ(hear(), 'w');
    for (int i = 0; i < 5; i++) {
      const pid_t killed = standby();
      CHECK_EQ(hear(), 's');
      kill(killed, SIGKILL);
      CHECK(WIFSIGNALED(ended(killed)));
      CHECK_EQ(lives.refused(), Code::lease_held);
    }
    CHECK_EQ(waitpid(writer, nullptr, WNOHANG), 0);
    const pid_t heir = standby();
    CHECK_EQ(hear(), 's');
    kill(writer, SIGKILL);
    CHECK(WIFSIGNALED(ended(writer)));
    CHECK_EQ(ended(heir), 0);
    close(told[0]);
    close(told[1]);
    lives.check(Ended::closed);
    CHECK_EQ(lives.open().read("demo", 100, 4), std::string("mine"));
  });
}

void control_pages() {
  check::test("a control page of another boot, of another file or of nothing is made anew by an opening", [] {
    Lives lives;
    Client& c = lives.open();
    for (const char* name : {"demo", "other"}) CHECK_EQ(c.create(name, 8192, Durability::ordered), Code::ok);
    for (const char* name : {"demo", "other", "other"}) CHECK_EQ(c.write(name, 0, "bytes"), Code::ok);
    lives.close();
    const holdfast_control good = control_of(lives, "demo");
    holdfast_control boot = good, file = control_of(lives, "other"), nothing;
    memset(boot.boot_id, 0x5a, sizeof boot.boot_id);
    boot.sequence += 41;  // as if a batch had been under way when the machine stopped
    memset(&nothing, 0xff, sizeof nothing);
    const std::pair<const char*, const holdfast_control*> wrongs[] = {
        {"another boot", &boot}, {"another file", &file}, {"nothing", &nothing}};
    for (const auto& [name, wrong] : wrongs) {
      check::context = name;
      patch_file(lives.path("regions/demo/control"), 0, wrong, sizeof *wrong);
      Client& again = lives.open();
      const holdfast_control page = control_of(lives, "demo");
      CHECK(holdfast_control_valid(&page));
      CHECK_EQ(memcmp(page.boot_id, good.boot_id, sizeof page.boot_id), 0);
      CHECK_EQ(page.data_inode, good.data_inode);
      CHECK_EQ(page.incarnation, good.incarnation);
      CHECK_EQ(holdfast_generation(&page), 1u);
      uint64_t seen = 0;
      CHECK_EQ(holdfast_read_begin(&page, 1, &seen), static_cast<int>(HOLDFAST_SETTLED));
      CHECK_EQ(again.read("demo", 0, 5), std::string("bytes"));
      CHECK_EQ(again.info("demo").generation, 1u);
      lives.close();
    }
  });
}

#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG

void disarm() { failpoint::arm("", nullptr); }

void failing_syncs() {
  check::test("a journal that can't be made durable: promises end, nothing is retried, a restart finds all of it", [] {
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      make_two(c, Durability::durable);
      CHECK_EQ(c.create("order", kSize, Durability::ordered), Code::ok);
      CHECK_EQ(c.create("quick", kSize, Durability::fast), Code::ok);
      CHECK_EQ(c.create("mixed", kSize, Durability::fast), Code::ok);
      Answer answer;
      CHECK_EQ(c.write("order", 0, "said"), Code::ok);
      CHECK(!c.start(make_frame(parts_of({"demo", "mixed"}, {write_op(0, "unknown"), write_op(0, "unknown").in(1)})), 1,
                     &answer));
      failpoint::arm("sync_data=eio@1", nullptr);
      CHECK(c.store->flush_step());
      disarm();
      const Answer failed = c.wait(1);
      CHECK_EQ(failed.code(), Code::flush_failed);
      CHECK(failed.header().flags & kAnswerCommitted);
      // The next fdatasync would say success without the pages: it is not asked.
      CHECK(!c.store->flush_step());
      CHECK(c.store->checkpoint_step() != 0);
      for (const char* name : {"demo", "other", "order", "mixed"}) {
        check::context = name;
        CHECK_EQ(c.write(name, 0, "x"), Code::region_faulted);
        CHECK(!c.info(name).fault.empty());
      }
      check::context.clear();
      CHECK_EQ(c.store->flush(""), Code::flush_failed);
      CHECK_EQ(c.create("more", kSize, Durability::fast), Code::flush_failed);
      CHECK_EQ(c.remove("other"), Code::flush_failed);
      // What was applied is read; what was answered and never will be applied is neither hidden nor shown.
      CHECK_EQ(c.read("other", 0, 3), std::string("old"));
      CHECK_EQ(c.read("demo", 4096, 3), std::string("old"));
      CHECK_EQ(c.read("order", 0, 4), std::string("!region_faulted"));
      CHECK_EQ(c.run(parts_of({"demo"}, {read_op(0, 3)})).code(), Code::region_faulted);
      // A fast region asks nothing of the disk.
      CHECK_EQ(c.write("quick", 0, "quick"), Code::ok);
      CHECK_EQ(c.read("quick", 0, 5), std::string("quick"));
    });
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::B);
    CHECK(c.recovery().faulted.empty());
    CHECK_EQ(c.read("order", 0, 4), std::string("said"));
    CHECK_EQ(c.read("demo", 0, 7), std::string("unknown"));
    CHECK_EQ(c.read("mixed", 0, 7), std::string("unknown"));
    CHECK_EQ(c.read("quick", 0, 5), std::string("quick"));
    CHECK_EQ(c.write("demo", 0, "x"), Code::ok);
  });

  check::test("a data file that can't be made durable faults its region, which keeps its records", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::ordered);
    CHECK_EQ(c.store->checkpoint_step(), 0);
    for (const char* name : {"demo", "other"}) CHECK_EQ(c.write(name, 4094, "last"), Code::ok);
    c.store->flush_step();
    failpoint::arm("sync_data=eio@1", nullptr);  // the regions come in the order of their names
    CHECK_EQ(c.store->checkpoint_step(), 0);
    disarm();
    CHECK(!c.info("demo").fault.empty());
    CHECK(c.info("other").fault.empty());
    CHECK_EQ(c.write("demo", 0, "x"), Code::region_faulted);
    CHECK_EQ(c.write("other", 0, "x"), Code::ok);
    CHECK(std::filesystem::exists(lives.path("regions/demo/redo")));
    lives.close();
    // As if the kernel had dropped the page that it could not write.
    patch_file(lives.path("regions/demo/data"), 4094, "\0\0\0\0", 4);
    Client& again = lives.open();
    CHECK(again.recovery().faulted.empty());
    CHECK_EQ(again.read("demo", 4094, 4), std::string("last"));
  });

  check::test("growing a region tells of a page that could not be written back", [] {
    // The kernel tells such an error once: the growth took it, and the next checkpoint freed that page's records.
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::durable);
    CHECK_EQ(c.store->checkpoint_step(), 0);
    CHECK_EQ(c.write("demo", 4094, "last"), Code::ok);
    failpoint::arm("sync_all=eio@1", nullptr);
    CHECK_EQ(c.resize("demo", 2 * kSize), Code::flush_failed);
    disarm();
    CHECK(!c.info("demo").fault.empty());
    CHECK_EQ(c.info("demo").meta.size, kSize);
    CHECK_EQ(std::filesystem::file_size(lives.path("regions/demo/data")), kSize);
    CHECK_EQ(c.write("demo", 0, "x"), Code::region_faulted);
    CHECK_EQ(c.write("other", 0, "x"), Code::ok);
    CHECK_EQ(c.store->checkpoint_step(), 0);
    CHECK(std::filesystem::exists(lives.path("regions/demo/redo")));
    lives.close();
    patch_file(lives.path("regions/demo/data"), 4094, "\0\0\0\0", 4);
    Client& again = lives.open();
    CHECK(again.recovery().faulted.empty());
    CHECK_EQ(again.read("demo", 4094, 4), std::string("last"));
    CHECK_EQ(again.resize("demo", 2 * kSize), Code::ok);
  });

  check::test("a region becomes fast when what it promised before is on the disk", [] {
    // Checkpoints pass over it from then on: a power cut lost batches that had been acknowledged as durable.
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::durable);
    CHECK_EQ(c.store->checkpoint_step(), 0);
    CHECK_EQ(c.write("demo", 4094, "last"), Code::ok);
    MetaChange softer;
    softer.durability = Durability::fast;
    failpoint::arm("sync_data=eio@1", nullptr);
    CHECK_EQ(c.update("demo", softer), Code::flush_failed);
    disarm();
    CHECK(!c.info("demo").fault.empty());
    CHECK(c.info("demo").meta.durability == Durability::durable);
    CHECK_EQ(c.write("other", 0, "x"), Code::ok);
    lives.close();
    patch_file(lives.path("regions/demo/data"), 4094, "\0\0\0\0", 4);
    Client& again = lives.open();
    CHECK_EQ(again.read("demo", 4094, 4), std::string("last"));
    CHECK_EQ(again.update("demo", softer), Code::ok);
    CHECK_EQ(again.info("demo").durable_generation, again.info("demo").generation);
  });

  check::test("a region that is hardened while a checkpoint is written does not hold the journal's words back", [] {
    // Its failed sync asked for records that the checkpoint had just freed: `applied` fell behind the checkpoint, which
    // the next start took for corruption.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([&](Client& c) {
      make_two(c, Durability::fast);
      failpoint::arm("write_synced=sleep:400@1,sync_data=eio@1", nullptr);
      std::thread checkpoint([&] { CHECK_EQ(c.store->checkpoint_step(), 0); });
      const auto doing = [&] {
        StoreWords words;
        memcpy(&words, file_bytes(lives.path("store.lock")).data(), sizeof words);
        return words.doing;
      };
      while (!(doing() & kDoingCheckpoint)) usleep(1000);
      usleep(100000);
      MetaChange harder;
      harder.durability = Durability::ordered;
      CHECK_EQ(c.update("demo", harder), Code::flush_failed);
      checkpoint.join();
      disarm();
      CHECK_EQ(c.write("other", 0, "on"), Code::ok);
    });
    Client& c = lives.open();
    CHECK(c.recovery().row != RecoveryRow::C);
    CHECK_EQ(c.read("other", 0, 2), std::string("on"));
  });

  check::test("a fast region whose data can't be made durable is unverified from then on", [] {
    // Checkpoints free its records without a sync: what the kernel dropped was in no redo file, and nothing said so.
    for (const char* way : {"flush", "harden", "close"}) {
      check::context = way;
      Lives lives;
      lives.options.threads = false;
      Client& c = lives.open();
      make_two(c, Durability::fast);
      CHECK_EQ(c.write("demo", 0, "new"), Code::ok);
      CHECK_EQ(c.store->checkpoint_step(), 0);
      failpoint::arm("sync_data=eio@1", nullptr);
      if (way == std::string("flush")) CHECK_EQ(c.store->flush("demo"), Code::flush_failed);
      MetaChange harder;
      harder.durability = Durability::durable;
      if (way == std::string("harden")) CHECK_EQ(c.update("demo", harder), Code::flush_failed);
      if (way != std::string("close")) CHECK(c.info("demo").meta.flags & kMetaUnverified);
      lives.close(Ended::killed);
      disarm();
      Client& again = lives.open();
      CHECK(again.recovery().unverified == std::vector<std::string>{"demo"});
      CHECK_EQ(again.info("demo").durable_generation, 0u);
      CHECK_EQ(again.update("demo", harder), Code::ok);
      CHECK(again.info("demo").meta.flags & kMetaUnverified);
    }
  });

  check::test("what a killed process left of a fast region in memory is synced by the next orderly end", [] {
    // Its records were given up by a checkpoint, so that nothing said of its pages that they are not on the disk: the end was
    // called clean without them, and a power cut after it lost them without a word.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      make_two(c, Durability::fast);
      CHECK_EQ(c.write("demo", 0, "new"), Code::ok);
      CHECK_EQ(c.store->checkpoint_step(), 0);
    });
    CHECK_EQ(lives.open().recovery().row, RecoveryRow::A);
    failpoint::arm("sync_data=eio@1", nullptr);
    lives.close(Ended::killed);
    disarm();
    CHECK_EQ(lives.open().recovery().unverified.size(), 1u);
  });

  check::test("a fast region that can't be marked unverified is so after a restart of the machine", [] {
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::fast);
    failpoint::arm("sync_data=eio@1,replace=eio", nullptr);
    CHECK_EQ(c.store->flush("demo"), Code::flush_failed);
    disarm();
    lives.close(Ended::killed);
    lives.other_boot();
    Client& again = lives.open();
    CHECK_EQ(again.recovery().row, RecoveryRow::F);
    CHECK(again.info("demo").meta.flags & kMetaUnverified);
  });

  check::test("a redo file that was redone does not come back with a power cut", [] {
    // Its unlink was never synced: back again, its records were laid over newer ones, which the ring had given up.
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::ordered);
    CHECK_EQ(c.write("demo", 40000, "new"), Code::ok);
    cut(lives, 4096);
    c.store->flush_step();
    CHECK_EQ(c.store->checkpoint_step(), 0);
    lives.close();
    cut(lives, kSize);
    failpoint::arm("sync_all=eio@2", nullptr);  // after the one of the outcomes files' names
    Client& again = lives.open();
    disarm();
    CHECK(again.recovery().faulted == std::vector<std::string>{"demo"});
    CHECK_EQ(again.write("demo", 40000, "newer"), Code::region_faulted);
    CHECK_EQ(again.write("other", 0, "on"), Code::ok);
    lives.close();
    Client& third = lives.open();
    CHECK(third.recovery().faulted.empty());
    CHECK_EQ(third.read("demo", 40000, 3), std::string("new"));
    CHECK_EQ(third.write("demo", 40000, "newer"), Code::ok);
  });

  check::test("a recovery that is killed after it faulted a region leaves that region's record to the next one", [] {
    // `applied` went past the record, and the file was whole again: nothing redid it.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([&](Client& c) {
      make_two(c, Durability::ordered);
      CHECK_EQ(c.store->checkpoint_step(), 0);
      CHECK_EQ(c.run(parts_of({"demo"}, {write_op(0, "new"), write_op(40000, "new")})).code(), Code::ok);
      for (int i = 0; i < 2; i++) CHECK_EQ(c.write("other", 0, "on"), Code::ok);
    });
    cut(lives, 4096);
    CHECK(WIFSIGNALED(Lives::in_process([&] {
      failpoint::arm("recovery_record_redone=kill@2", nullptr);
      Client c(lives.options);
    })));
    cut(lives, kSize);
    Client& c = lives.open();
    CHECK_EQ(c.recovery().row, RecoveryRow::B);
    CHECK(c.recovery().faulted.empty());
    CHECK_EQ(c.read("demo", 0, 3), std::string("new"));
    CHECK_EQ(c.read("demo", 40000, 3), std::string("new"));
    CHECK_EQ(c.read("other", 0, 2), std::string("on"));
  });

  check::test("a fast region whose sync failed long ago does not hold the journal's words back", [] {
    // It took nothing since: with no record to save, its redo file was never said to be complete, and `applied` stayed
    // behind the checkpoint, which the next start took for corruption.
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      make_two(c, Durability::fast);
      CHECK_EQ(c.store->checkpoint_step(), 0);
      failpoint::arm("sync_data=eio@1", nullptr);
      CHECK_EQ(c.store->flush("demo"), Code::flush_failed);
      disarm();
      for (int i = 0; i < 3; i++) {
        CHECK_EQ(c.write("other", 0, "x"), Code::ok);
        CHECK_EQ(c.store->checkpoint_step(), 0);
      }
      CHECK_EQ(c.write("other", 0, "y"), Code::ok);
    });
    CHECK(lives.open().recovery().row != RecoveryRow::C);
  });

  check::test("a checkpoint that can't be written frees nothing and loses nothing", [] {
    for (const char* point : {"write_synced=eio", "write_synced=enospc"}) {
      check::context = point;
      Lives lives;
      lives.options.threads = false;
      Client& c = lives.open();
      make_two(c, Durability::ordered);
      failpoint::arm(point, nullptr);
      const uint64_t used = c.store->status().journal_used_bytes;
      CHECK(c.store->checkpoint_step() != 0);
      CHECK_EQ(c.store->status().journal_used_bytes, used);
      CHECK_EQ(c.write("demo", 0, "new"), Code::ok);
      // The ring fills: batches are refused, none is half there.
      Code code = Code::ok;
      int written = 0;
      for (; written < 100 && code == Code::ok; written++) code = c.write("other", 0, std::string(8000, 'x'));
      CHECK_EQ(code, Code::overloaded);
      disarm();
      CHECK_EQ(c.write("other", 0, "after"), Code::ok);
      CHECK_EQ(c.read("demo", 0, 3), std::string("new"));
      lives.close();
      CHECK_EQ(lives.open().read("other", 0, 6), std::string("afterx"));
    }
  });

  check::test("a full ring makes a batch wait for its checkpoint, and then refuses it", [] {
    Lives lives;
    lives.options.full_wait_ms_max = 50;
    lives.options.journal_bytes = 64 << 10;
    Lives::in_process([&] {
      // Each checkpoint takes longer than anybody waits.
      failpoint::arm("checkpoint_data_synced=sleep:400", nullptr);
      Client& c = lives.open();
      make_two(c, Durability::fast);
      int overloaded = 0, would_block = 0;
      for (int i = 0; i < 40; i++) {
        Bytes answer;
        const Bytes frame = make_frame(parts_of({"demo"}, {write_op(0, std::string(8000, 'x'))}));
        if (c.store->commit(frame, Store::Patience::never_block, 1, &answer) != Store::Progress::would_block) continue;
        would_block++;
        const Code code = c.run(frame).code();
        CHECK(code == Code::ok || code == Code::overloaded);
        if (code == Code::overloaded) overloaded++;
      }
      CHECK(would_block > 0);
      CHECK(overloaded > 0);
      lives.close();
    });
    CHECK_EQ(lives.open().write("demo", 0, "x"), Code::ok);
  });
}

void waiters() {
  check::test("a durable batch that is committed while a flush syncs is not answered by that flush", [] {
    for (const char* during : {"flush_before_sync", "flush_synced"}) {
      Lives lives;
      lives.options.threads = false;
      Client& c = lives.open();
      make_two(c, Durability::durable);
      Answer answer;
      CHECK(!c.start(make_frame(parts_of({"demo"}, {write_op(0, "first")})), 1, &answer));
      failpoint::arm((std::string(during) + "=sleep:400").c_str(), nullptr);
      std::thread flusher([&] { c.store->flush_step(); });
      usleep(150000);
      CHECK(!c.start(make_frame(parts_of({"demo"}, {write_op(0, "other")})), 2, &answer));
      CHECK(!c.answered(1));
      flusher.join();
      disarm();
      CHECK(c.answered(1));
      CHECK(!c.answered(2));
      CHECK_EQ(c.info("demo").durable_generation, c.info("demo").generation - 1);
      CHECK_EQ(c.read("demo", 0, 5), std::string("first"));
      c.store->flush_step();
      CHECK(c.answered(2));
      CHECK_EQ(c.read("demo", 0, 5), std::string("other"));
    }
  });

  check::test("a batch that looks at what waits for a sync is answered by that sync, whatever was committed since", [] {
    // It waited for the newest record, which nothing had to be synced for: when a change came first and its sync failed,
    // it was never answered.
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::durable);
    CHECK_EQ(c.create("quick", kSize, Durability::fast), Code::ok);
    CHECK_EQ(c.write("quick", 0, "old"), Code::ok);
    Answer answer;
    CHECK(!c.start(make_frame(parts_of({"demo"}, {write_op(0, "new")})), 1, &answer));
    failpoint::arm("flush_before_sync=sleep:400", nullptr);
    std::thread flusher([&] { c.store->flush_step(); });
    usleep(150000);
    CHECK_EQ(c.write("quick", 0, "new"), Code::ok);
    CHECK(!c.start(make_frame(parts_of({"demo"}, {read_op(0, 3)})), 2, &answer));
    flusher.join();
    failpoint::arm("sync_data=eio@1", nullptr);
    CHECK_EQ(c.create("made", kSize, Durability::fast), Code::unfinished);
    disarm();
    c.store->flush_step();
    if (CHECK(c.answered(2))) {
      const Answer read = c.wait(2);
      CHECK_EQ(read.code(), Code::ok);
      CHECK_EQ(read.data(), std::string("new"));
    }
    lives.close(Ended::killed);
  });
}

void cold_reads() {
  check::test("a read from the disk that a fault of its region overtakes is refused", [] {
    // It asked for the generation alone, which stays when a batch can't be stored as a whole: half of one was told.
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    make_two(c, Durability::fast);
    failpoint::arm("read_cached=errno:11,read_cold=sleep:400", nullptr);
    std::string got;
    std::thread reader([&] { got = c.read("demo", 0, 3); });
    usleep(150000);
    cut(lives, 4096);
    CHECK_EQ(c.run(parts_of({"demo"}, {write_op(0, "new"), write_op(40000, "new")})).code(), Code::region_faulted);
    reader.join();
    disarm();
    CHECK_EQ(got, std::string("!region_faulted"));
    cut(lives, kSize);
  });
}

void full_disks() {
  check::test("a full disk refuses a creation, and leaves nothing of it", [] {
    Lives lives;
    lives.options.threads = false;  // fail points are changed while no thread can meet one
    Client& c = lives.open();
    for (const char* point : {"allocate=enospc@1", "allocate=enospc@2"}) {
      check::context = point;
      failpoint::arm(point, nullptr);
      CHECK_EQ(c.create("demo", kSize, Durability::durable), Code::insufficient_storage);
      disarm();
      CHECK(c.store->names().empty());
      for (const auto& entry : std::filesystem::directory_iterator(lives.options.directory))
        CHECK(!entry.path().filename().string().starts_with(".new-"));
    }
    CHECK_EQ(c.create("demo", kSize, Durability::durable), Code::ok);
  });

  check::test("a full disk refuses growth, and the region is as it was", [] {
    Lives lives;
    lives.options.threads = false;  // fail points are changed while no thread can meet one
    Client& c = lives.open();
    make_two(c, Durability::durable);
    const uint64_t generation = c.info("demo").generation;
    failpoint::arm("allocate=enospc", nullptr);
    CHECK_EQ(c.resize("demo", 4 * kSize), Code::insufficient_storage);
    disarm();
    CHECK_EQ(c.info("demo").meta.size, kSize);
    CHECK_EQ(c.info("demo").meta.meta_generation, 1u);
    CHECK_EQ(c.info("demo").generation, generation);
    CHECK_EQ(std::filesystem::file_size(lives.path("regions/demo/data")), kSize);
    CHECK_EQ(c.write("demo", kSize - 3, "end"), Code::ok);
    CHECK_EQ(c.resize("demo", 2 * kSize), Code::ok);
  });

  check::test("a full disk under a hole of a sparse region refuses the batch, with nothing written", [] {
    Lives lives;
    lives.options.threads = false;  // fail points are changed while no thread can meet one
    Client& c = lives.open();
    CHECK_EQ(c.create("demo", 1 << 20, Durability::ordered, kMetaSparse), Code::ok);
    const uint64_t committed = c.store->status().committed;
    failpoint::arm("allocate=enospc", nullptr);
    CHECK_EQ(c.write("demo", 500000, "x"), Code::insufficient_storage);
    disarm();
    CHECK_EQ(c.store->status().committed, committed);
    CHECK(c.info("demo").fault.empty());
    CHECK_EQ(c.write("demo", 500000, "x"), Code::ok);
  });

  check::test("a change that was committed and can't be finished is finished by the next start", [] {
    // The checkpoint went past it, or its files were cleaned up: it was in the journal and then nowhere.
    struct Case {
      const char* point;
      std::function<Code(Client&)> change;
      std::function<bool(Client&)> done;
    };
    const Case cases[] = {
        {"rename=eio@1", [](Client& c) { return c.create("made", kSize, Durability::ordered); },
         [](Client& c) { return c.info("made").meta.size == kSize && c.write("made", 9, "x") == Code::ok; }},
        {"replace=eio@1", [](Client& c) { return c.resize("demo", 2 * kSize); },
         [](Client& c) {
           return c.info("demo").meta.size == 2 * kSize && c.write("demo", 2 * kSize - 1, "x") == Code::ok;
         }},
        {"replace=eio@1", [](Client& c) { return c.resize("demo", 100); },
         [](Client& c) { return c.info("demo").meta.size == 100 && c.read("demo", 0, 3) == "old"; }},
        {"rename=eio@1", [](Client& c) { return c.remove("demo"); }, [](Client& c) { return !c.store->info("demo"); }},
    };
    for (const Case& one : cases) {
      for (const bool killed : {false, true}) {
        check::context = std::string(one.point) + (killed ? ", killed" : ", closed");
        Lives lives;
        lives.options.threads = false;
        const auto life = [&](Client& c) {
          make_two(c, Durability::ordered);
          failpoint::arm(one.point, nullptr);
          CHECK_EQ(one.change(c), Code::unfinished);
          CHECK(c.detail.find("next start") != std::string::npos);
          disarm();
          CHECK_EQ(c.create("more", kSize, Durability::fast), Code::flush_failed);
          CHECK_EQ(c.write("other", 1, "goes on"), Code::ok);
          c.store->flush_step();
          CHECK_EQ(c.store->checkpoint_step(), 0);
          CHECK_EQ(c.read("other", 1, 7), std::string("goes on"));
        };
        if (killed) {
          lives.killed_after(life);
        } else {
          life(lives.open());
          lives.close(Ended::killed);
        }
        Client& c = lives.open();
        CHECK(one.done(c));
        CHECK_EQ(c.read("other", 1, 7), std::string("goes on"));
        CHECK_EQ(c.create("more", kSize, Durability::fast), Code::ok);
      }
    }
  });

  check::test("a region whose new size can't be mapped is read on, and has it after the next start", [] {
    // Which of its pages had been in use was known of the old size, and asked of the new one: memory of somebody else.
    constexpr uint64_t kHuge = uint64_t{1} << 38;
    Lives lives;
    lives.options.threads = false;
    lives.killed_after([](Client& c) {
      CHECK_EQ(c.create("demo", kSize, Durability::ordered, kMetaSparse), Code::ok);
      CHECK_EQ(c.write("demo", 0, "old"), Code::ok);
      c.store->flush_step();
      failpoint::arm("map=errno:12@1", nullptr);
      CHECK_EQ(c.resize("demo", kHuge), Code::unfinished);
      disarm();
      CHECK_EQ(c.write("demo", kHuge - 4, "x"), Code::region_faulted);
      CHECK_EQ(c.run(parts_of({"demo"}, {read_op(kHuge - 4, 4)})).data(), std::string(4, '\0'));
      CHECK_EQ(c.run(parts_of({"demo"}, {read_op(0, 3)})).data(), std::string("old"));
      CHECK_EQ(c.read("demo", kHuge - 4, 4), std::string(4, '\0'));
    });
    Client& c = lives.open();
    CHECK_EQ(c.info("demo").meta.size, kHuge);
    CHECK_EQ(c.write("demo", kHuge - 4, "last"), Code::ok);
    CHECK_EQ(c.read("demo", 0, 3), std::string("old"));
  });

  check::test("a page that no blocks were asked for is not taken for one that has them", [] {
    // Of a batch on two regions, the first found the disk full and had another size by then. The second had not been
    // tried, and counted as backed: on a full disk its store would have faulted behind the commit point.
    Lives lives;
    lives.options.threads = false;
    Client& c = lives.open();
    for (const char* name : {"demo", "other"})
      CHECK_EQ(c.create(name, 1 << 20, Durability::ordered, kMetaSparse), Code::ok);
    const Bytes frame = make_frame(parts_of({"demo", "other"}, {write_op(5000, "x"), write_op(5000, "x").in(1)}));
    failpoint::arm("allocate=sleep:400@1,allocate=enospc@1,allocate=enospc@3", nullptr);
    Code code = Code::ok;
    std::thread writer([&] { code = c.run(frame).code(); });
    usleep(150000);
    CHECK_EQ(c.resize("demo", 2 << 20), Code::ok);
    const uint64_t committed = c.store->status().committed;
    writer.join();
    disarm();
    CHECK_EQ(code, Code::insufficient_storage);
    CHECK_EQ(c.store->status().committed, committed);
    CHECK_EQ(c.run(frame).code(), Code::ok);
  });

  check::test("a change whose record can't be made durable is finished by the next start", [] {
    // The next batch of a fast region passed for the last one that was not applied: a change that was told to be committed
    // never happened, and what the region took since, the change would have undone.
    using Change = std::function<Code(Store&, const Conditions&, MetaResult*, std::string*)>;
    const auto resize = [](uint64_t size) {
      return [size](Store& s, const Conditions& conditions, MetaResult* result, std::string* why) {
        MetaChange change;
        change.size = size;
        return s.update("demo", change, conditions, result, why);
      };
    };
    const auto only_snapshot = [](Store& s) {
      std::vector<Snapshot> list;
      s.snapshots("demo", &list);
      return list.size() == 1 ? list[0].id : 0;
    };
    struct Case {
      const char* name;
      bool stops;  // batches of the region
      Change change;
      std::function<bool(Client&)> done;
    };
    const Case cases[] = {
        {"create", false,
         [](Store& s, const Conditions& conditions, MetaResult* result, std::string* why) {
           RegionMeta meta;
           meta.name = "made";
           meta.size = kSize;
           Conditions keyed = conditions;
           keyed.if_match = keyed.if_match_any = false;
           return s.create(meta, keyed, result, why);
         },
         [](Client& c) { return c.info("made").meta.size == kSize && c.write("made", 9, "x") == Code::ok; }},
        {"growth", true, resize(2 * kSize), [](Client& c) { return c.info("demo").meta.size == 2 * kSize; }},
        {"shrinking", true, resize(100), [](Client& c) { return c.info("demo").meta.size == 100; }},
        {"removal", true,
         [](Store& s, const Conditions& conditions, MetaResult* result, std::string* why) {
           return s.remove("demo", conditions, result, why);
         },
         [](Client& c) { return !c.store->info("demo"); }},
        {"restore", true,
         [&](Store& s, const Conditions& conditions, MetaResult* result, std::string* why) {
           return s.restore("demo", only_snapshot(s), conditions, result, why);
         },
         [](Client& c) { return c.read("demo", 0, 3) == "old"; }},
        {"snapshot", false,
         [](Store& s, const Conditions& conditions, MetaResult* result, std::string* why) {
           return s.make_snapshot("demo", conditions, result, why);
         },
         [](Client& c) {
           std::vector<Snapshot> list;
           return c.store->snapshots("demo", &list) == Code::ok && list.size() == 2;
         }},
        {"removal of a snapshot", false,
         [&](Store& s, const Conditions& conditions, MetaResult* result, std::string* why) {
           return s.remove_snapshot("demo", only_snapshot(s), conditions, result, why);
         },
         [](Client& c) {
           std::vector<Snapshot> list;
           return c.store->snapshots("demo", &list) == Code::ok && list.empty();
         }},
    };
    Conditions conditions;
    conditions.if_match = conditions.if_match_any = conditions.has_key = true;
    for (const Case& one : cases) {
      check::context = one.name;
      Lives lives;
      lives.options.threads = false;
      lives.killed_after([&](Client& c) {
        MetaResult result;
        std::string why;
        make_two(c, Durability::fast);
        CHECK_EQ(c.store->make_snapshot("demo", Conditions{}, &result, &why), Code::ok);
        CHECK_EQ(c.write("demo", 0, "new"), Code::ok);
        failpoint::arm("sync_data=eio@1", nullptr);
        CHECK_EQ(one.change(*c.store, conditions, &result, &why), Code::unfinished);
        disarm();
        CHECK(why.find("next start") != std::string::npos);
        CHECK_EQ(one.change(*c.store, conditions, &result, &why), Code::idempotency_in_progress);
        CHECK_EQ(c.write("demo", 50, "x"), one.stops ? Code::region_faulted : Code::ok);
        CHECK_EQ(c.write("other", 0, "goes on"), Code::ok);
        CHECK_EQ(c.create("more", kSize, Durability::fast), Code::flush_failed);
      });
      Client& c = lives.open();
      CHECK_EQ(c.recovery().row, RecoveryRow::B);
      CHECK(one.done(c));
      CHECK_EQ(c.read("other", 0, 7), std::string("goes on"));
      MetaResult result;
      std::string why;
      CHECK_EQ(one.change(*c.store, conditions, &result, &why), Code::ok);
      CHECK(result.replayed);
    }
  });

  check::test("of two changes that wait side by side, the second is refused when the first can't be finished", [] {
    // It asked again and again whether the store was quiet, with the lock held: nothing was answered any more.
    Lives lives;
    lives.killed_after([](Client& c) {
      alarm(20);
      make_two(c, Durability::ordered);
      failpoint::arm("flush_before_sync=sleep:500,rename=eio@1", nullptr);
      CHECK_EQ(c.write("demo", 0, "new"), Code::ok);
      Code codes[2];
      std::thread changes[2];
      for (size_t i = 0; i < 2; i++)
        changes[i] = std::thread([&, i] {
          RegionMeta meta;
          meta.name = i ? "one" : "two";
          meta.size = kSize;
          MetaResult result;
          std::string why;
          codes[i] = c.store->create(meta, Conditions{}, &result, &why);
        });
      for (std::thread& change : changes) change.join();
      const bool in_order = codes[0] == Code::unfinished;
      CHECK_EQ(codes[in_order ? 0 : 1], Code::unfinished);
      CHECK_EQ(codes[in_order ? 1 : 0], Code::flush_failed);
      CHECK_EQ(c.write("other", 1, "goes on"), Code::ok);
      CHECK_EQ(c.read("other", 1, 7), std::string("goes on"));
    });
    Client& c = lives.open();
    CHECK_EQ(c.store->names().size(), 3u);
    CHECK_EQ(c.read("demo", 0, 3), std::string("new"));
    CHECK_EQ(c.read("other", 1, 7), std::string("goes on"));
  });
}

#endif

}  // namespace

int main() {
  written_back();
  truncated();
  file_systems();
  pid_namespaces();
  control_pages();
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
  failing_syncs();
  cold_reads();
  waiters();
  full_disks();
#endif
  return check::done();
}
