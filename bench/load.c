/* Both ends of a run: sends a block of websocket frames again and again, reads all FIFOs, and compares each byte with
 * what must come out of them.
 *
 *     load FD BLOCK DIRECTORY SHARDS REPEATS WINDOW EXPECTED     shard i must give its part of EXPECTED, REPEATS times
 *     load FD BLOCK DIRECTORY SHARDS REPEATS WINDOW -SUM         all together must give the bytes sent; SUM: a block's
 *
 * EXPECTED: SHARDS sizes of 8 bytes each in this machine's order, then the shards' bytes. A comparison byte by byte says
 * more than a count and a checksum would: nothing is missing, doubled, changed, out of order or in the wrong shard.
 *
 * One thread does both, and keeps what is under way below WINDOW bytes: so no FIFO fills up just because the scheduler
 * let the sender run and not the reader. How a full FIFO is dealt with is not what is measured here.
 *
 * Says "ready CAPACITY" (the smallest FIFO's), starts after a line on stdin, says "done BYTES NANOSECONDS READS" when
 * all has come; then, when stdin ends, looks whether more came. Ends with status 1 and a line about the first difference
 * if there is one.
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long ull;

enum { PIECE = 256 << 10, EVENTS = 1024, PATIENCE_MS = 20000 };

struct shard {
    int fd;
    const char *expected; /* one block's bytes */
    uint64_t block;       /* their number */
    uint64_t offset;      /* place in the block */
    uint64_t left;        /* bytes still to come over all blocks */
};

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static const char *map(const char *path, uint64_t *size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0)
        fail(path);
    *size = (uint64_t)status.st_size;
    const char *data = mmap(NULL, (size_t)*size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (data == MAP_FAILED)
        fail(path);
    return data;
}

static void show(const char *label, const char *data, uint64_t size)
{
    fprintf(stderr, "load:   %s %.*s\n", label, (int)(size < 160 ? size : 160), data);
}

static void compare(int number, struct shard *shard, const char *data, uint64_t size)
{
    if (size > shard->left) {
        fprintf(stderr, "load: shard %d: %llu bytes more than expected\n", number, (ull)(size - shard->left));
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
            fprintf(stderr, "load: shard %d: differs with %llu bytes still to come\n", number,
                    (ull)(shard->left + size - at));
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
    if (argc != 8) {
        fprintf(stderr, "usage: load FD BLOCK DIRECTORY SHARDS REPEATS WINDOW EXPECTED|-SUM\n");
        return 2;
    }
    const int upstream = atoi(argv[1]), count = atoi(argv[4]);
    const uint64_t repeats = strtoull(argv[5], NULL, 10), window = strtoull(argv[6], NULL, 10);
    uint64_t block_size, size;
    const char *block = map(argv[2], &block_size);
    struct shard *shards = calloc((size_t)count, sizeof *shards);
    char *buffer = malloc(PIECE);
    if (!shards || !buffer)
        fail("malloc");
    const int by_shard = argv[7][0] != '-';
    uint64_t block_out = block_size, sum = 0, sum_expected = 0;
    if (by_shard) {
        const char *data = map(argv[7], &size);
        block_out = 0;
        for (int i = 0; i < count; i++) {
            memcpy(&shards[i].block, data + i * 8, 8);
            shards[i].expected = data + count * 8 + block_out;
            shards[i].left = shards[i].block * repeats;
            block_out += shards[i].block;
        }
    } else {
        sum_expected = strtoull(argv[7] + 1, NULL, 10) * repeats;
    }
    int poller = epoll_create1(EPOLL_CLOEXEC), capacity = INT32_MAX;
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/shard-%d.fifo", argv[3], i);
        shards[i].fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        int got = shards[i].fd < 0 ? -1 : fcntl(shards[i].fd, F_GETPIPE_SZ);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (got < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, shards[i].fd, &event) < 0)
            fail(path);
        if (got < capacity)
            capacity = got;
    }
    struct epoll_event writable = {.events = EPOLLOUT | EPOLLET, .data.u32 = (uint32_t)count};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, upstream, &writable) < 0)
        fail("epoll_ctl");
    printf("ready %d\n", capacity);
    fflush(stdout);
    if (!fgets(buffer, PIECE, stdin))
        return 0;

    const uint64_t to_send = block_size * repeats, to_come = block_out * repeats;
    const uint64_t first = nanoseconds();
    uint64_t sent = 0, come = 0, reads = 0;
    struct epoll_event events[EVENTS];
    while (come < to_come) {
        int sending = 0;
        /* What came, in the measure of what was sent: the outputs' framing takes another number of bytes. */
        const uint64_t came = come / block_out * block_size + come % block_out * block_size / block_out;
        if (sent < to_send && sent < came + window) {
            uint64_t part = block_size - sent % block_size;
            ssize_t done = send(upstream, block + sent % block_size, part < PIECE ? part : PIECE,
                                MSG_DONTWAIT | MSG_NOSIGNAL);
            if (done > 0) {
                sent += (uint64_t)done;
                sending = 1;
            } else if (errno != EAGAIN && errno != EINTR)
                fail("send");
        }
        int ready = epoll_wait(poller, events, EVENTS, sending ? 0 : PATIENCE_MS);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        if (!ready && !sending) {
            fprintf(stderr, "load: nothing came for %d s; %llu bytes are missing\n", PATIENCE_MS / 1000,
                    (ull)(to_come - come));
            return 1;
        }
        for (int i = 0; i < ready; i++) {
            int number = (int)events[i].data.u32;
            if (number == count)
                continue;
            ssize_t got = read(shards[number].fd, buffer, PIECE);
            if (got < 0 && (errno == EAGAIN || errno == EINTR))
                continue;
            if (got < 0)
                fail("read");
            if (!got) {
                fprintf(stderr, "load: shard %d: the writer is gone; %llu bytes are missing\n", number,
                        (ull)(to_come - come));
                return 1;
            }
            if (by_shard)
                compare(number, &shards[number], buffer, (uint64_t)got);
            else
                sum += sum_of(buffer, (size_t)got);
            come += (uint64_t)got;
            reads++;
        }
    }
    const uint64_t last = nanoseconds();
    if (come != to_come || sum != sum_expected) {
        fprintf(stderr, "load: %llu bytes with sum %llu came, not %llu with sum %llu\n", (ull)come, (ull)sum,
                (ull)to_come, (ull)sum_expected);
        return 1;
    }
    printf("done %llu %llu %llu\n", (ull)come, (ull)(last - first), (ull)reads);
    fflush(stdout);
    while (fgets(buffer, PIECE, stdin))
        ;
    for (int i = 0; i < count; i++)
        if (read(shards[i].fd, buffer, PIECE) > 0) {
            fprintf(stderr, "load: shard %d: more came after the end\n", i);
            return 1;
        }
    return 0;
}
