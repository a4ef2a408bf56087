/* The yardstick of a device state's way: one process writes prepared random bytes into a pipe in pieces of CHUNK,
 * another reads them in pieces of CHUNK and writes them to /dev/null.
 *   pipe-copy TOTAL CHUNK WRITER-CPU READER-CPU PAGES
 * PAGES is "plain" for memory as malloc gives it, or "huge" for memory that asks for huge pages, from and to which the
 * kernel copies faster.
 * Prints the nanoseconds from the first read to the end of the stream. The writer starts when it has its bytes and
 * the reader asks for them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) < 0) fail("sched_setaffinity");
}

static void *allocate(size_t size, int huge) {
  const size_t huge_page = 2 << 20;
  if (!huge) return malloc(size);
  size_t whole = (size + huge_page - 1) / huge_page * huge_page;
  void *bytes = aligned_alloc(huge_page, whole);
  if (bytes != NULL) madvise(bytes, whole, MADV_HUGEPAGE);
  return bytes;
}

static void write_all(int fd, const char *bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t count = write(fd, bytes + done, size - done);
    if (count < 0) fail("write");
    done += (size_t)count;
  }
}

static void writer(int fd, int ready, int go, size_t total, size_t chunk, int huge) {
  uint64_t *words = allocate(total, huge), state = 88172645463325252u;
  if (words == NULL) fail("malloc");
  for (size_t i = 0; i < total / 8; i++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    words[i] = state;
  }
  char byte = 0;
  if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 1) fail("start");
  for (size_t at = 0; at < total; at += chunk) {
    write_all(fd, (char *)words + at, total - at < chunk ? total - at : chunk);
  }
  _exit(0);
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  int huge = strcmp(argv[5], "huge") == 0;
  size_t total = strtoull(argv[1], NULL, 10), chunk = strtoull(argv[2], NULL, 10);
  int data[2], ready[2], go[2];
  if (pipe2(data, O_CLOEXEC) < 0 || pipe(ready) < 0 || pipe(go) < 0) fail("pipe");
  fcntl(data[0], F_SETPIPE_SZ, 1 << 20);
  pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    pin(atoi(argv[3]));
    close(data[0]);
    writer(data[1], ready[1], go[0], total, chunk, huge);
  }
  pin(atoi(argv[4]));
  close(data[1]);
  char *buffer = allocate(chunk, huge), byte = 0;
  int target = open("/dev/null", O_WRONLY);
  if (buffer == NULL || target < 0 || read(ready[0], &byte, 1) != 1) fail("start");
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  if (write(go[1], &byte, 1) != 1) fail("start");
  size_t seen = 0;
  for (ssize_t count; (count = read(data[0], buffer, chunk)) != 0; seen += (size_t)count) {
    if (count < 0) fail("read");
    write_all(target, buffer, (size_t)count);
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  int status;
  if (waitpid(child, &status, 0) < 0 || status != 0 || seen != total) return 1;
  printf("%.0f\n", (end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec));
  return 0;
}
