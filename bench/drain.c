/* The workers' side: reads all FIFOs of a directory and compares each byte with what must come out of it.
 *
 *     drain DIRECTORY SHARDS EXPECTED REPEATS       shard i must give its part of EXPECTED, REPEATS times, and no more
 *     drain DIRECTORY SHARDS -TOTAL SUM             all together must give TOTAL bytes whose values add up to SUM
 *
 * EXPECTED: SHARDS sizes of 8 bytes each in this machine's order, then the shards' bytes. A comparison byte by byte says
 * more than a count and a checksum would: nothing is missing, doubled, changed, out of order or in the wrong shard.
 *
 * Says "ready CAPACITY" (the smallest FIFO's) once all are open, "done BYTES NANOSECONDS WAKES" (from the first byte to
 * the last) when all has come; then, when stdin ends, looks whether more came. Ends with status 1 and a line about the
 * first difference if there is one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 256 << 10, EVENTS = 1024, PATIENCE_MS = 20000 };

struct shard {
    int fd;
    const char *expected; /* one block's bytes */
    uint64_t block;       /* their number */
    uint64_t offset;      /* place in the block */
    uint64_t left;        /* bytes still to come over all blocks */
};

static void fail(const char *what)
{
    fprintf(stderr, "drain: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void show(const char *label, const char *data, uint64_t size)
{
    fprintf(stderr, "drain:   %s %.*s\n", label, (int)(size < 160 ? size : 160), data);
}

static void compare(int number, struct shard *shard, const char *data, size_t size)
{
    if (size > shard->left) {
        fprintf(stderr, "drain: shard %d: %llu bytes more than expected\n", number,
                (unsigned long long)(size - shard->left));
        exit(1);
    }
    shard->left -= size;
    while (size) {
        uint64_t part = shard->block - shard->offset;
        if (part > size)
            part = size;
        if (memcmp(data, shard->expected + shard->offset, part)) {
            uint64_t at = 0;
            while (data[at] == shard->expected[shard->offset + at])
                at++;
            fprintf(stderr, "drain: shard %d: differs with %llu bytes still to come\n", number,
                    (unsigned long long)(shard->left + size - at));
            show("expected", shard->expected + shard->offset + at, part - at);
            show("found   ", data + at, part - at);
            exit(1);
        }
        data += part;
        size -= part;
        shard->offset = (shard->offset + part) % shard->block;
    }
}

static uint64_t sum_of(const char *data, size_t size)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += (unsigned char)data[i];
    return sum;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: drain DIRECTORY SHARDS EXPECTED REPEATS | drain DIRECTORY SHARDS -TOTAL SUM\n");
        return 2;
    }
    int count = atoi(argv[2]);
    struct shard *shards = calloc((size_t)count, sizeof *shards);
    char *buffer = malloc(READ_BYTES);
    if (!shards || !buffer)
        fail("malloc");
    uint64_t left = 0, sum = 0, sum_expected = 0;
    int by_shard = argv[3][0] != '-';
    if (by_shard) {
        uint64_t repeats = strtoull(argv[4], NULL, 10);
        int file = open(argv[3], O_RDONLY);
        struct stat status;
        if (file < 0 || fstat(file, &status) < 0)
            fail(argv[3]);
        const char *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
        if (data == MAP_FAILED)
            fail("mmap");
        uint64_t at = (uint64_t)count * 8;
        for (int i = 0; i < count; i++) {
            memcpy(&shards[i].block, data + i * 8, 8);
            shards[i].expected = data + at;
            at += shards[i].block;
            shards[i].left = shards[i].block * repeats;
            left += shards[i].left;
        }
    } else {
        left = strtoull(argv[3] + 1, NULL, 10);
        sum_expected = strtoull(argv[4], NULL, 10);
    }
    int poller = epoll_create1(EPOLL_CLOEXEC);
    int capacity = INT32_MAX;
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/shard-%d.fifo", argv[1], i);
        shards[i].fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (shards[i].fd < 0)
            fail(path);
        int got = fcntl(shards[i].fd, F_GETPIPE_SZ);
        if (got < capacity)
            capacity = got;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, shards[i].fd, &event) < 0)
            fail("epoll_ctl");
    }
    printf("ready %d\n", capacity);
    fflush(stdout);
    uint64_t bytes = 0, first = 0, wakes = 0;
    struct epoll_event events[EVENTS];
    while (left) {
        int ready = epoll_wait(poller, events, EVENTS, first ? PATIENCE_MS : -1);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0)
            fail("epoll_wait");
        if (!ready) {
            fprintf(stderr, "drain: nothing came for %d s; %llu bytes are missing\n", PATIENCE_MS / 1000,
                    (unsigned long long)left);
            return 1;
        }
        if (!first)
            first = nanoseconds();
        wakes++;
        for (int i = 0; i < ready; i++) {
            int number = (int)events[i].data.u32;
            struct shard *shard = &shards[number];
            ssize_t got = read(shard->fd, buffer, READ_BYTES);
            if (got < 0 && (errno == EAGAIN || errno == EINTR))
                continue;
            if (got < 0)
                fail("read");
            if (!got) {
                fprintf(stderr, "drain: shard %d: the writer is gone; %llu bytes are missing\n", number,
                        (unsigned long long)left);
                return 1;
            }
            if (by_shard)
                compare(number, shard, buffer, (size_t)got);
            else if ((uint64_t)got > left) {
                fprintf(stderr, "drain: more bytes than expected\n");
                return 1;
            } else
                sum += sum_of(buffer, (size_t)got);
            bytes += (uint64_t)got;
            left -= (uint64_t)got;
        }
    }
    uint64_t last = nanoseconds();
    if (!by_shard && sum != sum_expected) {
        fprintf(stderr, "drain: the bytes' sum is %llu, not %llu\n", (unsigned long long)sum,
                (unsigned long long)sum_expected);
        return 1;
    }
    printf("done %llu %llu %llu\n", (unsigned long long)bytes, (unsigned long long)(last - first),
           (unsigned long long)wakes);
    fflush(stdout);
    while (fgets(buffer, READ_BYTES, stdin))
        ;
    for (int i = 0; i < count; i++)
        if (read(shards[i].fd, buffer, READ_BYTES) > 0) {
            fprintf(stderr, "drain: shard %d: more came after the end\n", i);
            return 1;
        }
    return 0;
}
