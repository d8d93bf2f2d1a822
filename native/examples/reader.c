/* reader.c - maps a region beside the service and looks at it with nothing but holdfast.h.
 *
 *     cc -O2 -Inative -o reader native/examples/reader.c
 *     ./reader DATA CONTROL [--watch MILLISECONDS] OFFSET...
 *
 * Prints the 64-bit word at each OFFSET (a multiple of 8) of one consistent snapshot. With --watch it takes snapshots
 * for that long and expects all the words to be equal in each: the words of a batch that writes them together. It ends
 * with one line, `snapshots N settled M generations G torn T`, and status 1 if any snapshot was torn. It also ends, with
 * status 3, when what it maps is the region no more: that was deleted, or restored from a snapshot.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "holdfast.h"

enum { WORDS_MAX = 64 };

static const uint8_t* map_file(const char* path, size_t* length) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat facts;
  if (fd < 0 || fstat(fd, &facts) != 0) {
    perror(path);
    exit(2);
  }
  void* at = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    perror(path);
    exit(2);
  }
  close(fd);
  *length = (size_t)facts.st_size;
  return at;
}

static uint64_t milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* One consistent snapshot. Nonzero: a batch has been half applied for too long, its writer is gone. */
static int snapshot(const holdfast_control* control, const uint8_t* data, const size_t* offsets, int count,
                    uint64_t* words, uint64_t* generation) {
  uint64_t seen;
  do {
    if (holdfast_read_begin(control, 100000, &seen) != HOLDFAST_SETTLED) return 1;
    for (int i = 0; i < count; i++) words[i] = holdfast_load64(data + offsets[i]);
  } while (holdfast_read_retry(control, seen));
  *generation = seen >> 1;
  return 0;
}

/* Nonzero, and says so: these are the last bytes of files that have left their place. A program that goes on maps the
 * region's files anew. */
static int removed(const holdfast_control* control) {
  if (!holdfast_removed(control)) return 0;
  fprintf(stderr, "removed: the region was deleted or restored, what is mapped is its old file\n");
  return 1;
}

int main(int argc, char** argv) {
  size_t data_length, control_length;
  size_t offsets[WORDS_MAX];
  uint64_t words[WORDS_MAX];
  uint64_t watch = 0;
  int count = 0;
  if (argc < 4) {
    fprintf(stderr, "usage: %s DATA CONTROL [--watch MILLISECONDS] OFFSET...\n", argv[0]);
    return 2;
  }
  const uint8_t* data = map_file(argv[1], &data_length);
  const holdfast_control* control = (const holdfast_control*)map_file(argv[2], &control_length);
  if (control_length < sizeof *control || !holdfast_control_valid(control)) {
    fprintf(stderr, "%s is not a control page\n", argv[2]);
    return 2;
  }
  for (int i = 3; i < argc; i++) {
    if (strcmp(argv[i], "--watch") == 0 && i + 1 < argc) {
      watch = strtoull(argv[++i], NULL, 10);
      continue;
    }
    size_t offset = strtoull(argv[i], NULL, 10);
    if (offset % 8 != 0 || data_length < 8 || offset > data_length - 8 || count == WORDS_MAX) {
      fprintf(stderr, "%s is not the offset of a word in %s\n", argv[i], argv[1]);
      return 2;
    }
    offsets[count++] = offset;
  }

  uint64_t snapshots = 0, settled = 0, torn = 0, generations = 0, generation = 0, last = 0;
  uint64_t end = milliseconds() + watch;
  do {
    snapshots++;
    if (snapshot(control, data, offsets, count, words, &generation) != 0) continue;
    settled++;
    if (generation != last) generations++;
    last = generation;
    for (int i = 1; i < count && watch; i++) {
      if (words[i] == words[0]) continue;
      torn++;
      break;
    }
  } while (watch && milliseconds() < end && !holdfast_removed(control));
  if (!watch) {
    if (!settled) {
      fprintf(stderr, "unsettled: a writer ended inside a batch and nobody has recovered it yet\n");
      return 1;
    }
    for (int i = 0; i < count; i++) printf("%zu %016llx\n", offsets[i], (unsigned long long)words[i]);
    return removed(control) ? 3 : 0;
  }
  printf("snapshots %llu settled %llu generations %llu torn %llu\n", (unsigned long long)snapshots,
         (unsigned long long)settled, (unsigned long long)generations, (unsigned long long)torn);
  if (torn) return 1;
  return removed(control) ? 3 : 0;
}
