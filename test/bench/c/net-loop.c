/* The yardstick of the network loop: a driver and a device, a thread and a core each, over two split rings in memory that
 * both have. The device copies each frame that the driver sends into a receive buffer; nothing sleeps, nobody is notified.
 *   net-loop FRAME_BYTES SECONDS DEVICE_CPU DRIVER_CPU     prints how many frames came back in a second */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { SIZE = 256, MASK = SIZE - 1, HEADER = 12, BUFFER = 69632 };

struct descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags, next;
};

struct ring {
  struct descriptor descriptors[SIZE];
  uint16_t available_flags;
  _Atomic uint16_t available_index;
  uint16_t available[SIZE];
  _Alignas(64) uint16_t used_flags;
  _Atomic uint16_t used_index;
  struct {
    uint32_t id, length;
  } used[SIZE];
};

struct memory {
  struct ring receive, transmit;
  _Alignas(4096) uint8_t received[SIZE][BUFFER];
  uint8_t sent[SIZE][BUFFER];
};

static struct memory *memory;
static atomic_int ended;

static void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) < 0) perror("sched_setaffinity"), exit(1);
}

static void complete(struct ring *ring, uint16_t at, uint16_t head, uint32_t length) {
  ring->used[at & MASK].id = head;
  ring->used[at & MASK].length = length;
  atomic_store_explicit(&ring->used_index, (uint16_t)(at + 1), memory_order_release);
}

static void *device(void *cpu) {
  pin(*(int *)cpu);
  struct ring *in = &memory->transmit, *out = &memory->receive;
  uint16_t taken = 0, given = 0;
  while (!atomic_load_explicit(&ended, memory_order_relaxed)) {
    if (atomic_load_explicit(&in->available_index, memory_order_acquire) == taken) continue;
    if (atomic_load_explicit(&out->available_index, memory_order_acquire) == given) continue;
    uint16_t from = in->available[taken & MASK], to = out->available[given & MASK];
    uint32_t length = in->descriptors[from].length;
    memcpy((void *)out->descriptors[to].address, (void *)in->descriptors[from].address, length);
    complete(out, given++, to, length);
    complete(in, taken++, from, 0);
  }
  return NULL;
}

static void offer(struct ring *ring, uint16_t *at, uint16_t head, uint32_t length) {
  ring->descriptors[head].length = length;
  ring->available[*at & MASK] = head;
  *at += 1;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int count, char **words) {
  if (count != 5) return 2;
  uint32_t length = (uint32_t)atoi(words[1]) + HEADER;
  int device_cpu = atoi(words[3]);
  memory = mmap(NULL, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED || length > BUFFER) return 1;
  struct ring *rings[] = {&memory->receive, &memory->transmit};
  uint16_t available[2] = {0, 0}, used[2] = {0, 0};
  for (uint16_t i = 0; i < SIZE; i++) {
    memory->receive.descriptors[i].address = (uint64_t)memory->received[i];
    memory->transmit.descriptors[i].address = (uint64_t)memory->sent[i];
    offer(rings[0], &available[0], i, BUFFER);
    offer(rings[1], &available[1], i, length);
  }
  for (int i = 0; i < 2; i++) atomic_store(&rings[i]->available_index, available[i]);
  pthread_t thread;
  if (pthread_create(&thread, NULL, device, &device_cpu) != 0) return 1;
  pin(atoi(words[4]));
  uint64_t frames = 0;
  double start = now(), end = start + atof(words[2]);
  for (unsigned turn = 0; (turn & 1023) != 0 || now() < end; turn++) {
    for (int i = 0; i < 2; i++) {
      struct ring *ring = rings[i];
      uint16_t seen = atomic_load_explicit(&ring->used_index, memory_order_acquire);
      if (seen == used[i]) continue;
      if (i == 0) frames += (uint16_t)(seen - used[i]);
      for (; used[i] != seen; used[i]++)
        offer(ring, &available[i], (uint16_t)ring->used[used[i] & MASK].id, i == 0 ? BUFFER : length);
      atomic_store_explicit(&ring->available_index, available[i], memory_order_release);
    }
  }
  double seconds = now() - start;
  atomic_store(&ended, 1);
  pthread_join(thread, NULL);
  printf("%.0f\n", (double)frames / seconds);
  return 0;
}
