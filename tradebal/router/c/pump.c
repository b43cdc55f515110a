/* Moves bytes between descriptors: receive, process, write, as long as there is something to do. */
#define _GNU_SOURCE
#include "pump.h"

#include "core.h"
#include "shard.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

/* While more is waiting to be received, small writes are saved up to this many received bytes. */
#define FLUSH_EVERY ((uint64_t)1 << 20)

typedef enum { RECEIVED_ALL, RECEIVED_LESS, RECEIVED_NOTHING } amount;

/* Receive what is there; RECEIVED_LESS than there was room for means that the socket had no more. */
static int receive(core *c, int fd, amount *received, int *error)
{
    size_t size;
    u8 *space = core_space(c, &size);
    ssize_t count;
    do
        count = recv(fd, space, size, MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    if (count > 0) {
        core_received(c, (size_t)count);
        *received = (size_t)count < size ? RECEIVED_LESS : RECEIVED_ALL;
        return STATUS_INPUT;
    }
    *received = RECEIVED_NOTHING;
    if (!count)
        return STATUS_CLOSED;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return STATUS_INPUT;
    *error = errno;
    return STATUS_ERROR;
}

/* Wait for more to receive; false when the time is used up, or `wake` is readable, or a signal came. */
static bool wait_for_more(int fd, int wake, int64_t ns)
{
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = wake, .events = POLLIN}};
    const struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    return ppoll(fds, 2, &timeout, NULL) > 0 && !fds[1].revents;
}

int pump(core *c, int fd, int64_t budget_ns, int wake, int *error)
{
    const uint64_t began = clock_ns(CLOCK_MONOTONIC);
    uint64_t flushed = c->total.bytes;
    amount received = RECEIVED_NOTHING;
    int status;
    c->writing = true;
    for (;;) {
        status = core_process(c);
        if (status != STATUS_INPUT || fd < 0 || c->closed)
            break;
        if (received == RECEIVED_LESS || c->total.bytes - flushed >= FLUSH_EVERY) {
            shard_write_all(c);
            flushed = c->total.bytes;
        }
        const int64_t left = budget_ns - (int64_t)(clock_ns(CLOCK_MONOTONIC) - began);
        if (received != RECEIVED_NOTHING && left < 0) {
            status = STATUS_BUDGET;
            break;
        }
        if (received == RECEIVED_LESS && wake >= 0 && (c->stall_seen || !wait_for_more(fd, wake, left)))
            break;
        status = receive(c, fd, &received, error);
        if (received == RECEIVED_NOTHING)
            break;
    }
    shard_write_all(c);
    c->writing = false;
    return status;
}
