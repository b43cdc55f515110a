/* What a trade's way costs without a balancer: socket -> FIFO -> reader, in C, with nothing in between.
 *
 *     relay send PORT FIFO         connects, and writes to FIFO what each recv gave
 *     relay read FIFO LOG          logs each read's time and bytes until SIGTERM
 *
 * LOG, as bench/handlers.py's Stamp writes it: for each read CLOCK_MONOTONIC in ns (8 bytes), the number of bytes (8),
 * and the bytes. It is kept in memory until the end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 256 << 10 };

static volatile sig_atomic_t stopping;

static void on_signal(int signal)
{
    (void)signal;
    stopping = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t wrote = write(fd, data, size);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            fail("write");
        data += wrote;
        size -= (size_t)wrote;
    }
}

static int relay(int port, const char *path)
{
    static char buffer[PIECE];
    if (mkfifo(path, 0600) < 0)
        fail(path);
    int fifo = open(path, O_RDWR | O_CLOEXEC);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fifo < 0 || fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    for (;;) {
        ssize_t got = recv(fd, buffer, PIECE, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            fail("recv");
        if (!got)
            return 0;
        write_all(fifo, buffer, (size_t)got);
    }
}

static int reader(const char *path, const char *log)
{
    size_t size = 0, room = 64 << 20;
    char *all = malloc(room);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    int fifo = open(path, O_RDONLY | O_CLOEXEC);
    if (fifo < 0 || !all)
        fail(path);
    memset(all, 0, room);
    while (!stopping) {
        if (room - size < 16 + PIECE && !(all = realloc(all, room *= 2)))
            fail("realloc");
        ssize_t got = read(fifo, all + size + 16, PIECE);
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            fail("read");
        if (!got)
            break;
        uint64_t head[2] = {(uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, (uint64_t)got};
        memcpy(all + size, head, 16);
        size += 16 + (size_t)got;
    }
    int out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0)
        fail(log);
    write_all(out, all, size);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "send"))
        return relay(atoi(argv[2]), argv[3]);
    if (argc == 4 && !strcmp(argv[1], "read"))
        return reader(argv[2], argv[3]);
    fprintf(stderr, "usage: relay send PORT FIFO | relay read FIFO LOG\n");
    return 2;
}
