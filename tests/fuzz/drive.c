/* The calls that balancer and module make, without Python; see cases.py. */
#define _GNU_SOURCE
#include "drive.h"

#include "pump.h"
#include "reasons.h"
#include "shard.h"
#include "symbol.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)

typedef struct {
    core *c;
    bytes *lines;
    bytes batches;
    bytes *shards;
    bool pumping;
    u8 *poisoned; /* from here to the receive buffer's end */
} run;

/* Zeroed memory that ends where reading on is a segmentation fault; always the same, since mapping it takes long. */
static u8 *block_of(size_t size)
{
    static u8 *end;
    static size_t mapped, used;
    if (size > mapped) {
        mapped = used = size;
        u8 *memory = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory + size, PAGE, PROT_NONE))
            abort();
        end = memory + size;
    }
    if (madvise(end - used, used, MADV_DONTNEED))
        abort();
    used = size;
    return end - size;
}

static core *make(const core_options *options)
{
    const uint64_t size = core_size(options);
    core *c = (core *)(void *)block_of(size);
    core_init(c, size, options);
    return c;
}

/* Bytes that were not received, beyond what wide loads may touch, are not to be looked at; not even where earlier ones
 * were. */
static void poison_from(run *r, u8 *from)
{
    u8 *const end = at_offset(r->c, r->c->receive + RECEIVE_SIZE + PADDING);
    if (!r->poisoned)
        r->poisoned = end;
    if (from < r->poisoned)
        ASAN_POISON_MEMORY_REGION(from, (size_t)(r->poisoned - from));
    else
        ASAN_UNPOISON_MEMORY_REGION(r->poisoned, (size_t)(from - r->poisoned));
    r->poisoned = from;
}

static void take(run *r, uint32_t number, size_t count)
{
    shard *s = shard_at(r->c, number);
    bytes_add(r->shards + number, at_offset(r->c, s->head), count);
    shard_take(r->c, number, count);
}

static size_t pending(run *r, uint32_t number)
{
    const shard *s = shard_at(r->c, number);
    return (size_t)(s->tail - s->head);
}

static void write_event(run *r)
{
    const core *c = r->c;
    const core_event *e = &c->event;
    bytes_print(r->lines, "event %d code %d %s, after %llu trades %llu frames %llu messages, %llu bytes:\n", e->kind,
                e->code, reason_texts[e->reason], (unsigned long long)c->total.trades,
                (unsigned long long)c->total.frames, (unsigned long long)c->total.messages,
                (unsigned long long)e->size);
    bytes_add(r->lines, at_offset(c, e->offset), (size_t)e->size);
    bytes_add(r->lines, "\n", 1);
}

static void process(run *r)
{
    core *c = r->c;
    int status, error = 0;
    while ((status = r->pumping ? pump(c, -1, 0, -1, &error) : core_process(c)) != STATUS_INPUT) {
        if (status == STATUS_EVENT) {
            write_event(r);
        } else {
            if (status != STATUS_BLOCKED || !pending(r, c->blocked))
                abort();
            take(r, c->blocked, pending(r, c->blocked));
        }
    }
    const core_batch *ring = (const core_batch *)(const void *)at_offset(c, c->batches);
    for (; c->batches_count; c->batches_count--) {
        const core_batch *b = ring + c->batches_first;
        bytes_print(&r->batches, "batch of %llu frames at trade %llu, %llu\n", (unsigned long long)b->frames,
                    (unsigned long long)b->connection_trades, (unsigned long long)b->total_trades);
        c->batches_first = (c->batches_first + 1) % BATCHES_KEPT;
    }
}

static void receive(run *r, const uint8_t *data, size_t size, uint8_t garbage)
{
    core *c = r->c;
    while (size) {
        size_t space_size;
        u8 *space = core_space(c, &space_size);
        if (!space_size)
            abort();
        const size_t count = size < space_size ? size : space_size;
        const u8 *receive = at_offset(c, c->receive);
        if (space >= receive && space < receive + RECEIVE_SIZE)
            poison_from(r, space + count + PADDING);
        memcpy(space, data, count);
        memset(space + count, garbage, PADDING < space_size - count ? PADDING : space_size - count);
        core_received(c, count);
        process(r);
        data += count;
        size -= count;
    }
}

static void call(run *r, random_numbers *random)
{
    core *c = r->c;
    const uint32_t what = random_below(random, 8), number = random_below(random, c->shards);
    const shard *s = shard_at(c, number);
    if (what == 0) {
        take(r, number, random_below(random, (uint32_t)pending(r, number) + 1));
        bytes_print(r->lines, "torn %llu of %zu\n", (unsigned long long)(s->boundary - s->head), pending(r, number));
    } else if (what == 1) {
        char record[32];
        const size_t size = (size_t)snprintf(record, sizeof record, "{\"gap\":%u}", random_below(random, 1 << 20));
        const bool room = shard_inject(c, number, (const u8 *)record, size);
        bytes_print(r->lines, "injected %d\n", room);
    } else if (what == 2) {
        r->pumping = !r->pumping;
    } else if (what == 3 && !random_below(random, 4)) {
        core_reset(c);
        bytes_print(r->lines, "reset\n");
    }
}

uint64_t drive(const test_case *of, unsigned chunking, uint8_t garbage, bytes *result)
{
    bytes shards[MAX_SHARDS] = {0};
    run r = {make(&of->options), result, {0}, shards, false, NULL};
    const core_counters *t = &r.c->total;
    random_numbers random = {of->seed};
    poison_from(&r, at_offset(r.c, r.c->receive + PADDING));
    for (size_t i = 0; i < of->connections_count; i++) {
        const bytes *stream = of->connections + i;
        if (i)
            core_reset(r.c);
        for (size_t at = 0, size; at < stream->size; at += size) {
            size = case_chunk(stream, at, chunking, &random);
            receive(&r, stream->data + at, size, garbage);
            if (of->chunking >= FIRST_WITH_CALLS)
                call(&r, &random);
        }
    }
    bytes_add(result, r.batches.data, r.batches.size);
    bytes_free(&r.batches);
    bytes_print(result, "%llu bytes %llu frames %llu messages %llu trades of %llu bytes %llu rejects %llu skipped:\n",
                (unsigned long long)t->bytes, (unsigned long long)t->frames, (unsigned long long)t->messages,
                (unsigned long long)t->trades, (unsigned long long)t->trade_bytes, (unsigned long long)t->rejects,
                (unsigned long long)t->skipped);
    bytes_add(result, r.c->skipped_text, r.c->skipped_size);
    bytes_add(result, "\n", 1);
    for (uint32_t i = 0; i < of->options.shards; i++) {
        const shard *s = shard_at(r.c, i);
        take(&r, i, pending(&r, i));
        bytes_print(result, "shard %u: %llu trades of %llu bytes, in %zu bytes:\n", i, (unsigned long long)s->trades,
                    (unsigned long long)shard_bytes(r.c, i), shards[i].size);
        bytes_add(result, shards[i].data, shards[i].size);
        bytes_add(result, "\n", 1);
        bytes_free(shards + i);
    }
    poison_from(&r, at_offset(r.c, r.c->receive + RECEIVE_SIZE + PADDING));
    return t->reads;
}
