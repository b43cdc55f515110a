/* The state machine: received bytes to messages, messages to staged trades and events. */
#ifndef TRADEBAL_CORE_H
#define TRADEBAL_CORE_H

#include "state.h"

/* What a router is made with; pointers are only read by core_size and core_init. */
typedef struct {
    uint32_t shards;
    int framing;
    uint64_t max_message;
    bool has_rule, has_container;
    bytes_in marker_key, symbol_key, container;
    const bytes_in *marker_values;
    size_t marker_values_count;
    bool has_notices;
    const bytes_in *notice_values;
    size_t notice_values_count;
    const bytes_in *pin_symbols;
    const uint32_t *pin_shards;
    size_t pins_count;
} core_options;

/* Bytes of memory that a router with these options needs; 0 if that can't be had. Most of it is never touched. */
uint64_t core_size(const core_options *options);
/* Make a router of zeroed memory. */
void core_init(core *c, uint64_t size, const core_options *options);
void core_reset(core *c);
/* Free part of a buffer that the next received bytes belong into; empty only while a message is being routed. */
u8 *core_space(core *c, size_t *size);
/* Size of what core_space would give now, if it moved nothing. */
size_t core_room(const core *c);
/* `count` is at most core_room. */
void core_received(core *c, size_t count);
int core_process(core *c);
/* A trade was staged that completed its batch. */
void core_close_batch(core *c);

static inline void core_count_trade(core *c, shard *s, size_t size)
{
    s->trades++;
    c->total.trades++;
    c->total.trade_bytes += size;
    if (!--c->batch_left)
        core_close_batch(c);
}

uint64_t clock_ns(int clock);

#endif
