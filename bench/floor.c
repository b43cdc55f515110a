/* The floor: what no balancer can undercut. recv() from a socket, write() the same bytes to N FIFOs, nothing else.
 *
 *     floor PORT DIRECTORY SHARDS PIPE_SIZE READ_SIZE split|rotate|copy
 *
 * split: each read's bytes are divided evenly over all FIFOs, one write each: the system calls of a balancer that reads
 * perfectly, and hands on at once. rotate: each read goes whole into the next FIFO: fewer writes than any balancer can
 * do that must not hold trades back. copy: each read is copied, in pieces as long as a trade and in turn, to where each
 * FIFO's bytes are gathered, which are written when there are enough or nothing more is there to be read: what anything
 * has to do that sorts, knowing by magic where each trade belongs.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes: of a trade, on average; and of one FIFO's that are worth a write while more comes. */
enum { TRADE = 105, ENOUGH = 64 << 10 };

static void fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t wrote = write(fd, data, size);
        if (wrote < 0) {
            if (errno == EINTR)
                continue;
            fail("write");
        }
        data += wrote;
        size -= (size_t)wrote;
    }
}

static void write_gathered(const int *fifos, char **gathered, size_t *sizes, int shards)
{
    for (int i = 0; i < shards; i++) {
        write_all(fifos[i], gathered[i], sizes[i]);
        sizes[i] = 0;
    }
}

static int copy(int fd, const int *fifos, int shards, char *buffer, size_t read_size)
{
    char **gathered = calloc((size_t)shards, sizeof *gathered);
    size_t *sizes = calloc((size_t)shards, sizeof *sizes);
    if (!gathered || !sizes)
        fail("calloc");
    for (int i = 0; i < shards; i++) {
        /* A read's rest may come on top of what is nearly enough, and then a trade. */
        if (!(gathered[i] = malloc(ENOUGH + 2 * TRADE)))
            fail("malloc");
        memset(gathered[i], 0, ENOUGH + 2 * TRADE);
    }
    int to = 0, more = 0;
    for (;;) {
        ssize_t got = recv(fd, buffer, read_size, more ? MSG_DONTWAIT : 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno != EAGAIN)
            fail("recv");
        size_t at = 0, left = got > 0 ? (size_t)got : 0;
        for (; left >= TRADE; at += TRADE, left -= TRADE) {
            memcpy(gathered[to] + sizes[to], buffer + at, TRADE);
            if ((sizes[to] += TRADE) >= ENOUGH) {
                write_all(fifos[to], gathered[to], sizes[to]);
                sizes[to] = 0;
            }
            to = to + 1 == shards ? 0 : to + 1;
        }
        memcpy(gathered[to] + sizes[to], buffer + at, left);
        sizes[to] += left;
        more = got == (ssize_t)read_size;
        if (!more)
            write_gathered(fifos, gathered, sizes, shards);
        if (!got)
            return 0;
    }
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: floor PORT DIRECTORY SHARDS PIPE_SIZE READ_SIZE split|rotate|copy\n");
        return 2;
    }
    int shards = atoi(argv[3]);
    size_t read_size = (size_t)atol(argv[5]);
    int split = !strcmp(argv[6], "split");
    int *fifos = calloc((size_t)shards, sizeof *fifos);
    char *buffer = malloc(read_size);
    if (!fifos || !buffer)
        fail("malloc");
    memset(buffer, 0, read_size);
    for (int i = 0; i < shards; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/shard-%d.fifo", argv[2], i);
        if (mkfifo(path, 0600) < 0)
            fail(path);
        fifos[i] = open(path, O_RDWR | O_CLOEXEC); /* both ways, so that it needs no reader yet */
        if (fifos[i] < 0)
            fail(path);
        (void)fcntl(fifos[i], F_SETPIPE_SZ, atoi(argv[4]));
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    if (!strcmp(argv[6], "copy"))
        return copy(fd, fifos, shards, buffer, read_size);
    for (unsigned next = 0;;) {
        ssize_t got = recv(fd, buffer, read_size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            fail("recv");
        if (!got)
            return 0;
        if (!split) {
            write_all(fifos[next], buffer, (size_t)got);
            next = (next + 1) % (unsigned)shards;
            continue;
        }
        size_t from = 0;
        for (int i = 0; i < shards; i++) {
            size_t until = (size_t)got * (size_t)(i + 1) / (size_t)shards;
            write_all(fifos[i], buffer + from, until - from);
            from = until;
        }
    }
}
