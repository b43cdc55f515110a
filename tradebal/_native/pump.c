/* Moves bytes between descriptors: receive, process, write, as long as there is something to do. */
#define _DEFAULT_SOURCE
#include "core.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>

/* While more is waiting to be received, small writes are saved up to this many received bytes. */
#define FLUSH_EVERY ((uint64_t)1 << 20)

static int receive(core *c, int fd, bool *drained, int *error)
{
    size_t size;
    u8 *space = core_space(c, &size);
    ssize_t count;
    do
        count = recv(fd, space, size, MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    if (count > 0) {
        core_received(c, (size_t)count);
        *drained = (size_t)count < size;
        return STATUS_INPUT;
    }
    if (!count)
        return STATUS_CLOSED;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        *drained = true;
        return STATUS_INPUT;
    }
    *error = errno;
    return STATUS_ERROR;
}

int pump(core *c, int fd, int64_t budget_ns, int *error)
{
    const uint64_t began = clock_ns(CLOCK_MONOTONIC);
    uint64_t flushed = c->total.bytes;
    bool drained = fd < 0, received = false;
    int status;
    c->writing = true;
    for (;;) {
        status = core_process(c);
        if (status != STATUS_INPUT || drained || c->closed)
            break;
        if (c->total.bytes - flushed >= FLUSH_EVERY) {
            shard_write_all(c);
            flushed = c->total.bytes;
        }
        if (received && (int64_t)(clock_ns(CLOCK_MONOTONIC) - began) > budget_ns) {
            status = STATUS_BUDGET;
            break;
        }
        status = receive(c, fd, &drained, error);
        if (status != STATUS_INPUT)
            break;
        received = true;
    }
    shard_write_all(c);
    c->writing = false;
    return status;
}
