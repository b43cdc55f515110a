/* What tradebal/router/native.py calls: the core's functions with arguments that ctypes can give, and no policy. */
#include "core.h"
#include "pump.h"
#include "reasons.h"
#include "shard.h"
#include "symbol.h"
#include "utf8.h"
#include "variants.h"

#define EXPORT __attribute__((visibility("default")))

/* Layout of the structs and meaning of the functions below; native.py refuses a library of another number. */
#define ABI 5

EXPORT uint32_t tb_abi(void);
EXPORT uint64_t tb_size(const core_options *options);
EXPORT void tb_init(core *c, uint64_t size, const core_options *options);
EXPORT void tb_reset(core *c);
EXPORT uint64_t tb_space(core *c, uint64_t *size);
EXPORT uint64_t tb_room(const core *c);
EXPORT void tb_received(core *c, uint64_t count);
EXPORT int tb_process(core *c);
EXPORT int tb_pump(core *c, int fd, int64_t budget_ns, int wake, int *error);
EXPORT uint32_t tb_blocked(const core *c);
EXPORT void tb_event(const core *c, core_event *event);
EXPORT const char *tb_reason(int reason);
EXPORT void tb_set_output(core *c, uint32_t number, int fd);
EXPORT void tb_set_pins(core *c, const bytes_in *symbols, const uint32_t *shards, size_t count);
EXPORT void tb_flush(core *c);
EXPORT uint32_t tb_stalled(core *c, uint32_t *numbers);
EXPORT uint64_t tb_pending(const core *c, uint32_t number, uint64_t *size);
EXPORT uint64_t tb_torn(const core *c, uint32_t number);
EXPORT void tb_sent(core *c, uint32_t number, uint64_t count);
EXPORT bool tb_inject(core *c, uint32_t number, const u8 *record, uint64_t size);
EXPORT void tb_counters(const core *c, core_counters *counters);
EXPORT void tb_shard_counters(const core *c, uint64_t *trades_and_bytes);
EXPORT uint32_t tb_batches(core *c, core_batch *batches);
EXPORT uint64_t tb_sample(core *c, uint64_t numbers[4]);
EXPORT uint64_t tb_skipped_sample(core *c, uint64_t *offset);
EXPORT const char *tb_variant(size_t number);
EXPORT const char *tb_variant_in_use(void);
EXPORT bool tb_use_variant(const char *name);
EXPORT uint64_t tb_scan(const u8 *text, uint64_t size, json_index *index, uint32_t *brackets, int *reason);
EXPORT bool tb_utf8_valid(const u8 *text, uint64_t size);

uint32_t tb_abi(void)
{
    return ABI;
}

uint64_t tb_size(const core_options *options)
{
    return core_size(options);
}

void tb_init(core *c, uint64_t size, const core_options *options)
{
    core_init(c, size, options);
}

void tb_reset(core *c)
{
    core_reset(c);
}

/* Offset in the block. */
uint64_t tb_space(core *c, uint64_t *size)
{
    size_t room;
    const u8 *space = core_space(c, &room);
    *size = room;
    return (uint64_t)(space - at_offset(c, 0));
}

uint64_t tb_room(const core *c)
{
    return core_room(c);
}

void tb_received(core *c, uint64_t count)
{
    core_received(c, (size_t)count);
}

int tb_process(core *c)
{
    return core_process(c);
}

int tb_pump(core *c, int fd, int64_t budget_ns, int wake, int *error)
{
    return pump(c, fd, budget_ns, wake, error);
}

uint32_t tb_blocked(const core *c)
{
    return c->blocked;
}

void tb_event(const core *c, core_event *event)
{
    *event = c->event;
}

const char *tb_reason(int reason)
{
    return reason_texts[reason];
}

void tb_set_output(core *c, uint32_t number, int fd)
{
    shard_set_output(c, number, fd, false);
}

void tb_set_pins(core *c, const bytes_in *symbols, const uint32_t *shards, size_t count)
{
    symbol_set_pins(c, symbols, shards, count);
}

void tb_flush(core *c)
{
    shard_write_all(c);
}

/* `numbers` has room for every shard. Returns how many there are. */
uint32_t tb_stalled(core *c, uint32_t *numbers)
{
    uint32_t count = 0;
    c->stall_seen = false;
    for (uint32_t i = 0; i < c->shards; i++)
        if (shard_at(c, i)->stall_unreported) {
            shard_at(c, i)->stall_unreported = false;
            numbers[count++] = i;
        }
    return count;
}

/* Offset in the block. */
uint64_t tb_pending(const core *c, uint32_t number, uint64_t *size)
{
    const shard *s = shard_at(c, number);
    *size = s->tail - s->head;
    return s->head;
}

uint64_t tb_torn(const core *c, uint32_t number)
{
    const shard *s = shard_at(c, number);
    return s->boundary - s->head;
}

void tb_sent(core *c, uint32_t number, uint64_t count)
{
    shard_take(c, number, (size_t)count);
}

bool tb_inject(core *c, uint32_t number, const u8 *record, uint64_t size)
{
    return shard_inject(c, number, record, (size_t)size);
}

void tb_counters(const core *c, core_counters *counters)
{
    *counters = c->total;
}

/* Two numbers a shard. */
void tb_shard_counters(const core *c, uint64_t *trades_and_bytes)
{
    for (uint32_t i = 0; i < c->shards; i++) {
        trades_and_bytes[2 * i] = shard_at(c, i)->trades;
        trades_and_bytes[2 * i + 1] = shard_bytes(c, i);
    }
}

/* `batches` has room for BATCHES_KEPT. Returns how many there are. */
uint32_t tb_batches(core *c, core_batch *batches)
{
    const uint32_t count = (uint32_t)c->batches_count;
    const core_batch *ring = (const core_batch *)(const void *)at_offset(c, c->batches);
    for (uint32_t i = 0; i < count; i++)
        batches[i] = ring[(c->batches_first + i) % BATCHES_KEPT];
    c->batches_first = (c->batches_first + count) % BATCHES_KEPT;
    c->batches_count = 0;
    return count;
}

/* Give time and shard of the sample, what was staged for that shard from it on, and where in the block its text is,
 * which the next call may overwrite.
 * Returns the text's size; 0 if there is no sample. */
uint64_t tb_sample(core *c, uint64_t numbers[4])
{
    core_sample *const sample = &c->sample;
    const uint64_t size = sample->size;
    numbers[0] = sample->time_ns;
    numbers[1] = sample->shard;
    numbers[2] = shard_staged(c, sample->shard) - sample->offset;
    numbers[3] = (uint64_t)(sample->text - at_offset(c, 0));
    sample->size = 0;
    sample->open = false;
    return size;
}

/* Give the place in the block of the first skipped object's beginning. Returns its size; 0 if none was skipped. */
uint64_t tb_skipped_sample(core *c, uint64_t *offset)
{
    const uint64_t size = c->skipped_size;
    *offset = (uint64_t)(c->skipped_text - at_offset(c, 0));
    c->skipped_size = 0;
    return size;
}

/* ---- for tests and fuzzing, which compare the variants ---- */

/* Names of what this machine can run, best first; NULL behind the last. */
const char *tb_variant(size_t number)
{
    const char *const *names = variant_names();
    for (size_t i = 0; i < number; i++)
        if (!names[i])
            return NULL;
    return names[number];
}

const char *tb_variant_in_use(void)
{
    return variant->name;
}

bool tb_use_variant(const char *name)
{
    return variant_use(name);
}

/* What the wide loops find in a text of up to WINDOW bytes; returns the span of the object or array at its start. */
uint64_t tb_scan(const u8 *text, uint64_t size, json_index *index, uint32_t *brackets, int *reason)
{
    *reason = REASON_NONE;
    variant->index(text, (size_t)size, index, brackets);
    return size && (text[0] == '{' || text[0] == '[') ? variant->span(text, (size_t)size, reason) : 0;
}

bool tb_utf8_valid(const u8 *text, uint64_t size)
{
    return utf8_valid(text, (size_t)size);
}
