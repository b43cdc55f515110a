/* The load: sends a prepared block of websocket frames over a connected socket, again and again, as fast as it is read.
 *
 *     blast FD BLOCK REPEATS
 *
 * Says "ready" when the block is in memory, sends after a line on stdin, and keeps the socket open until stdin ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Large enough that the sender's system calls are few, small enough that it wakes as soon as some space is free. */
enum { SEND_BYTES = 256 << 10 };

static void fail(const char *what)
{
    fprintf(stderr, "blast: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, data, size < SEND_BYTES ? size : SEND_BYTES, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            fail("send");
        }
        data += sent;
        size -= (size_t)sent;
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: blast FD BLOCK REPEATS\n");
        return 2;
    }
    int fd = atoi(argv[1]);
    long repeats = atol(argv[3]);
    int file = open(argv[2], O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0)
        fail(argv[2]);
    size_t size = (size_t)status.st_size;
    char *block = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (block == MAP_FAILED)
        fail("mmap");
    char line[16];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 0;
    for (long i = 0; i < repeats; i++)
        send_all(fd, block, size);
    puts("sent");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        ;
    return 0;
}
