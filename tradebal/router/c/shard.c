/* Stages each shard's records until its output, or the caller, takes them. */
#include "shard.h"

#include <errno.h>
#include <unistd.h>

uint64_t shard_staged(const core *c, uint32_t number)
{
    const shard *s = shard_at(c, number);
    return s->tail - s->origin;
}

uint64_t shard_bytes(const core *c, uint32_t number)
{
    return shard_staged(c, number) - shard_at(c, number)->trades * framing_overhead(c);
}

void shard_set_output(core *c, uint32_t number, int fd, bool stalled)
{
    shard *s = shard_at(c, number);
    s->fd = fd;
    s->stalled = s->stall_unreported = stalled;
    if (stalled)
        c->stall_seen = true;
    /* One that can be written is looked at when it should be; one that can't may fill up, but for what one more trade
     * of the fast path may need. */
    s->limit = s->base + (fd >= 0 && !stalled ? STAGE_THRESHOLD : STAGE_CAPACITY - WINDOW - 4);
}

static void move_to_base(core *c, shard *s)
{
    const uint64_t by = s->head - s->base;
    memmove(at_offset(c, s->base), at_offset(c, s->head), (size_t)(s->tail - s->head));
    s->head -= by;
    s->tail -= by;
    s->boundary -= by;
    s->origin -= by;
}

bool shard_room(core *c, uint32_t number, size_t size)
{
    shard *s = shard_at(c, number);
    if (c->writing && s->tail - s->head + size > STAGE_THRESHOLD)
        shard_write(c, number);
    const size_t pending = (size_t)(s->tail - s->head);
    if (pending + size > STAGE_CAPACITY)
        return false;
    if (s->tail + size > s->base + STAGE_CAPACITY)
        move_to_base(c, s);
    return true;
}

static size_t read_length(const u8 *at)
{
    return (size_t)at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
}

void shard_append(core *c, uint32_t number, const u8 *trade, size_t size)
{
    shard *s = shard_at(c, number);
    u8 *to = at_offset(c, s->tail);
    if (c->framing == FRAMING_LENGTH32) {
        for (int i = 0; i < 4; i++)
            to[i] = (u8)(size >> (8 * i));
        memcpy(to + 4, trade, size);
        s->tail += size + 4;
    } else {
        memcpy(to, trade, size);
        to[size] = '\n';
        s->tail += size + 1;
    }
}

bool shard_inject(core *c, uint32_t number, const u8 *record, size_t size)
{
    const size_t framed = size + framing_overhead(c);
    if (!shard_room(c, number, framed))
        return false;
    shard_append(c, number, record, size);
    shard_at(c, number)->origin += framed;
    return true;
}

void shard_take(core *c, uint32_t number, size_t count)
{
    shard *s = shard_at(c, number);
    s->head += count;
    if (s->head == s->tail) {
        s->boundary = s->head;
        move_to_base(c, s);
        return;
    }
    if (c->framing == FRAMING_LENGTH32) {
        while (s->boundary < s->head)
            s->boundary += 4 + read_length(at_offset(c, s->boundary));
    } else if (s->boundary < s->head) {
        if (*at_offset(c, s->head - 1) == '\n') {
            s->boundary = s->head;
        } else {
            /* There is one: whole records are staged, and each ends with it. */
            const u8 *newline = memchr(at_offset(c, s->head), '\n', (size_t)(s->tail - s->head));
            s->boundary = newline ? (uint64_t)(newline + 1 - at_offset(c, 0)) : s->tail;
        }
    }
    /* Each byte that was taken pays for at most one that is moved; and a tail far from the base would keep the shard
     * on the careful path, however little waits. */
    if (s->head - s->base >= s->tail - s->head)
        move_to_base(c, s);
}

void shard_write(core *c, uint32_t number)
{
    shard *s = shard_at(c, number);
    const size_t pending = (size_t)(s->tail - s->head);
    if (!pending || s->fd < 0 || s->stalled)
        return;
    ssize_t count;
    do
        count = write(s->fd, at_offset(c, s->head), pending);
    while (count < 0 && errno == EINTR);
    if (count > 0) {
        c->total.writes++;
        c->total.written += (uint64_t)count;
        shard_take(c, number, (size_t)count);
    }
    if (count != (ssize_t)pending)
        shard_set_output(c, number, s->fd, true);
}

void shard_write_all(core *c)
{
    for (uint32_t i = 0; i < c->shards; i++)
        shard_write(c, i);
}
