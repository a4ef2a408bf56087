/*
 * Load for a vhost-user-blk back-end: libblkio's virtio-blk-vhost-user driver, one thread per queue, a fixed number of
 * requests in flight in each. Prints one JSON object. It knows nothing of the back-end that it measures.
 *
 *   blkio-load SOCKET [qd=1] [queues=1] [bs=4096] [rw=randread|randwrite|read|write] [seconds=2] [warmup=0.5] [span=BYTES] [seed=1]
 *
 * Latencies are taken from the call that queues a request to the return of the call that reaps it, in a histogram
 * whose steps are 1/32 of their value.
 */
#include <blkio.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_QD = 1024, MAX_QUEUES = 16, SUB_BUCKETS = 32, BUCKETS = 64 * SUB_BUCKETS };

static struct {
    const char *socket;
    const char *rw;
    unsigned qd, queues;
    uint64_t bs, span, seed;
    double seconds, warmup;
    bool is_random, is_write;
} options = {.rw = "randread", .qd = 1, .queues = 1, .bs = 4096, .seed = 1, .seconds = 2, .warmup = 0.5};

struct slot {
    uint64_t start_ns;
    char *buffer;
};

struct worker {
    pthread_t thread;
    struct blkioq *queue;
    struct slot slots[MAX_QD];
    uint64_t random;
    uint64_t next;
    uint64_t done;
    uint64_t histogram[BUCKETS];
};

static struct worker workers[MAX_QUEUES];
static uint64_t begin_ns, end_ns;
static atomic_ullong errors;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, blkio_get_error_msg());
    exit(1);
}

static void must(int result, const char *what)
{
    if (result < 0)
        die(what);
}

static unsigned bucket_of(uint64_t ns)
{
    if (ns < SUB_BUCKETS)
        return (unsigned)ns;
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - 5;
    return (shift + 1) * SUB_BUCKETS + (unsigned)((ns >> shift) & (SUB_BUCKETS - 1));
}

static double microseconds_of(unsigned bucket)
{
    if (bucket < SUB_BUCKETS)
        return bucket / 1000.0;
    unsigned shift = bucket / SUB_BUCKETS - 1;
    return (double)((uint64_t)(SUB_BUCKETS + bucket % SUB_BUCKETS) << shift) / 1000.0;
}

/* xorshift64 */
static uint64_t next_random(struct worker *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

static void issue(struct worker *w, struct slot *slot)
{
    uint64_t blocks = options.span / options.bs;
    uint64_t block = options.is_random ? next_random(w) % blocks : w->next++ % blocks;
    slot->start_ns = now_ns();
    if (options.is_write)
        blkioq_write(w->queue, block * options.bs, slot->buffer, options.bs, slot, 0);
    else
        blkioq_read(w->queue, block * options.bs, slot->buffer, options.bs, slot, 0);
}

static void *run(void *argument)
{
    struct worker *w = argument;
    struct blkio_completion completions[MAX_QD];
    unsigned in_flight = options.qd;
    for (unsigned i = 0; i < options.qd; i++)
        issue(w, &w->slots[i]);
    while (in_flight > 0) {
        int count = blkioq_do_io(w->queue, completions, 1, (int)options.qd, NULL);
        if (count == -EINTR)
            continue;
        must(count, "blkioq_do_io");
        uint64_t now = now_ns();
        bool is_over = now >= end_ns, counts = now >= begin_ns && !is_over;
        for (int i = 0; i < count; i++) {
            struct slot *slot = completions[i].user_data;
            if (completions[i].ret != 0)
                atomic_fetch_add(&errors, 1);
            if (counts) {
                w->histogram[bucket_of(now - slot->start_ns)]++;
                w->done++;
            }
            if (is_over)
                in_flight--;
            else
                issue(w, slot);
        }
    }
    return NULL;
}

static void parse(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: blkio-load SOCKET [name=value…]\n");
        exit(2);
    }
    options.socket = argv[1];
    for (int i = 2; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL) {
            fprintf(stderr, "not name=value: %s\n", argv[i]);
            exit(2);
        }
        *value++ = 0;
        if (!strcmp(argv[i], "qd")) options.qd = (unsigned)atoi(value);
        else if (!strcmp(argv[i], "queues")) options.queues = (unsigned)atoi(value);
        else if (!strcmp(argv[i], "bs")) options.bs = strtoull(value, NULL, 0);
        else if (!strcmp(argv[i], "span")) options.span = strtoull(value, NULL, 0);
        else if (!strcmp(argv[i], "seed")) options.seed = strtoull(value, NULL, 0);
        else if (!strcmp(argv[i], "rw")) options.rw = value;
        else if (!strcmp(argv[i], "seconds")) options.seconds = atof(value);
        else if (!strcmp(argv[i], "warmup")) options.warmup = atof(value);
        else {
            fprintf(stderr, "unknown option %s\n", argv[i]);
            exit(2);
        }
    }
    options.is_random = !strncmp(options.rw, "rand", 4);
    options.is_write = !strcmp(options.rw + (options.is_random ? 4 : 0), "write");
    if (options.qd < 1 || options.qd > MAX_QD || options.queues < 1 || options.queues > MAX_QUEUES) {
        fprintf(stderr, "qd is 1 to %d, queues 1 to %d\n", MAX_QD, MAX_QUEUES);
        exit(2);
    }
}

static double percentile(const uint64_t *histogram, uint64_t total, double share)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (total > 0 && (double)seen >= share * (double)total)
            return microseconds_of(i);
    }
    return 0;
}

static void report(void)
{
    static uint64_t histogram[BUCKETS];
    uint64_t total = 0;
    struct rusage usage;
    for (unsigned q = 0; q < options.queues; q++) {
        total += workers[q].done;
        for (unsigned i = 0; i < BUCKETS; i++)
            histogram[i] += workers[q].histogram[i];
    }
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"requests\":%llu,\"iops\":%.0f,\"p50Us\":%.2f,\"p99Us\":%.2f,\"megabytesPerSecond\":%.1f,"
           "\"errors\":%llu,\"clientCpuSeconds\":%.3f}\n",
           (unsigned long long)total, (double)total / options.seconds, percentile(histogram, total, 0.5),
           percentile(histogram, total, 0.99), (double)total * (double)options.bs / options.seconds / 1e6,
           (unsigned long long)errors, cpu);
}

int main(int argc, char **argv)
{
    struct blkio *b;
    struct blkio_mem_region region;
    parse(argc, argv);
    must(blkio_create("virtio-blk-vhost-user", &b), "blkio_create");
    must(blkio_set_str(b, "path", options.socket), "path");
    must(blkio_connect(b), "blkio_connect");
    must(blkio_set_int(b, "num-queues", (int)options.queues), "num-queues");
    must(blkio_start(b), "blkio_start");
    uint64_t capacity;
    must(blkio_get_uint64(b, "capacity", &capacity), "capacity");
    if (options.span == 0 || options.span > capacity)
        options.span = capacity;
    must(blkio_alloc_mem_region(b, &region, options.queues * options.qd * options.bs), "blkio_alloc_mem_region");
    must(blkio_map_mem_region(b, &region), "blkio_map_mem_region");
    memset(region.addr, 0x5a, region.len);
    begin_ns = now_ns() + (uint64_t)(options.warmup * 1e9);
    end_ns = begin_ns + (uint64_t)(options.seconds * 1e9);
    for (unsigned q = 0; q < options.queues; q++) {
        struct worker *w = &workers[q];
        w->queue = blkio_get_queue(b, (int)q);
        w->random = options.seed * 0x9e3779b97f4a7c15 + q + 1;
        w->next = q * (options.span / options.bs / options.queues);
        for (unsigned i = 0; i < options.qd; i++)
            w->slots[i].buffer = (char *)region.addr + (q * options.qd + i) * options.bs;
        if (pthread_create(&w->thread, NULL, run, w) != 0)
            die("pthread_create");
    }
    for (unsigned q = 0; q < options.queues; q++)
        pthread_join(workers[q].thread, NULL);
    report();
    blkio_destroy(&b);
    return errors == 0 ? 0 : 1;
}
