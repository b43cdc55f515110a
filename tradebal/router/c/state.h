/* The router's state: one block of memory that the caller gives.
 *
 * What refers into the block is an offset from its start, so that it may be mapped anywhere. Lengths are always
 * explicit; nothing here relies on a terminator.
 */
#ifndef TRADEBAL_STATE_H
#define TRADEBAL_STATE_H

#include "words.h"
#include "sizes.h"

/* ---- symbols ---- */

typedef struct {
    uint64_t hash;
    uint64_t offset; /* of the symbol's bytes in the block */
    uint32_t size;
    uint32_t shard_plus_1; /* 0: the slot is free */
} pin;

/* Shards that were looked up are remembered, of symbols that fit into a word of 8 bytes with their closing quote. The
 * word's upper bits, mixed, choose a set of two entries, the newer one first. An entry is the rest of the mixed word,
 * moved up, with the shard below it: its xor with another word's rest is the shard if it is that word's entry, and
 * otherwise a number that no shard has. */
#define SYMBOL_SETS_BITS 13
#define SYMBOL_SETS ((size_t)1 << SYMBOL_SETS_BITS)
#define LOOKED_UP_SIZE (2 * SYMBOL_SETS * sizeof(uint64_t))
_Static_assert(MAX_SHARDS < SYMBOL_SETS, "a shard's number has room below the rest of a word");

/* Odd, so that different words stay different; its bits are as good as random. */
#define SYMBOL_MIX UINT64_C(0x9E3779B97F4A7C15)

/* ---- shards ---- */

typedef struct {
    uint64_t base; /* of its staging area; all five are offsets in the block */
    uint64_t head;
    uint64_t tail;
    uint64_t boundary; /* first beginning of a record at or behind head */
    uint64_t origin;   /* where the first trade would stand if bytes never moved, and nothing but trades were staged */
    uint64_t trades;
    int32_t fd;
    bool stalled;
    bool stall_unreported;
    uint64_t limit; /* with its tail behind it, the careful path is taken: to make room, or write, or be blocked */
} shard;

/* ---- events, counters, samples ---- */

enum { FRAMING_NDJSON, FRAMING_LENGTH32 };

/* As in tradebal.router.interface. */
enum { STATUS_INPUT, STATUS_EVENT, STATUS_BLOCKED, STATUS_BUDGET, STATUS_CLOSED, STATUS_ERROR };
enum { EVENT_MESSAGE, EVENT_PING, EVENT_PONG, EVENT_CLOSE, EVENT_REJECT, EVENT_VIOLATION };

typedef struct {
    uint64_t offset; /* in the block */
    uint64_t size;
    int kind;
    int code;
    int reason;
} core_event;

typedef struct {
    uint64_t time_ns, elapsed_ns, reads, frames, bytes, connection_trades, total_trades, total_bytes;
} core_batch;

typedef struct {
    uint64_t reads, bytes, frames, messages, trades, trade_bytes, rejects, writes, written, skipped;
} core_counters;

/* Some of the trades that were routed: see tradebal.router.interface.Sample. */
typedef struct {
    uint64_t time_ns, offset;
    uint32_t shard;
    uint32_t size;  /* of text; 0: there is no sample yet */
    bool open;      /* what follows in the message at hand still belongs to it */
    u8 text[SAMPLE_SIZE];
} core_sample;

typedef struct {
    uint64_t offset, size;
} slice;

/* The beginning of a trade as providers usually write it, up to and with the quote that opens the symbol. */
typedef struct {
    u8 bytes[PREFIX_SIZE];
    u8 mask[PREFIX_SIZE]; /* 0xFF where bytes count */
    uint64_t size;
} prefix;

/* ---- the whole ---- */

#define NO_WINDOW UINT64_MAX

/* What may stand next in a message. */
enum { AT_FIRST_VALUE, AT_VALUE, AT_DELIMITER, AT_END };

typedef struct core {
    /* as made */
    uint64_t size;
    uint64_t max_message;
    uint32_t shards;
    int32_t framing;
    bool has_rule, has_container, has_notices;
    slice marker_key, symbol_key, container;
    uint64_t marker_values; /* slices */
    uint64_t marker_values_count;
    uint64_t notice_values; /* likewise */
    uint64_t notice_values_count;
    uint64_t pins, pin_symbols; /* room for as many as there may be */
    uint64_t pin_slots;         /* a power of two; 0: no pins */
    uint64_t shard_table, looked_up, brackets, batches, receive, assembly;
    uint64_t prefixes_count;
    prefix prefixes[MAX_PREFIXES];

    /* connection */
    uint64_t start, end; /* received and not used yet: offsets in the receive buffer */
    uint64_t assembled;  /* bytes of a message in the assembly buffer */
    uint64_t awaited;    /* bytes that the data frame at hand still brings */
    bool in_frame;       /* such a frame is at hand */
    bool frame_final;
    bool closed;
    u8 opcode; /* of the fragmented message at hand; 0: none */

    /* the message at hand, if routing: offsets are relative to it, save `message` itself */
    bool routing;
    bool single;  /* one object, not an array */
    bool inner;   /* inside an envelope's array */
    int expected; /* AT_… */
    u8 message_opcode;
    uint64_t message, message_size;
    uint64_t at;
    uint64_t limit;        /* the end of what is walked: the message's, or the envelope's */
    uint64_t window;       /* where the index begins; NO_WINDOW: there is none */
    uint64_t brackets_next, brackets_count;
    uint64_t brackets_usual; /* of them, those before the first line feed or backslash */

    core_event event;
    uint32_t blocked;
    bool writing; /* in pump: shards may be written */
    bool stall_seen; /* an output stalled, and the caller doesn't know it yet */

    core_counters total;
    uint64_t connection_trades;
    uint64_t batch_left; /* trades until the batch is full */
    uint64_t batch_began_ns, batch_reads, batch_frames, batch_bytes;
    uint64_t batches_first, batches_count;
    core_sample sample;
    uint32_t skipped_size; /* of skipped_text; 0: nothing was skipped since it was handed out */
    u8 skipped_text[SKIPPED_SAMPLE_SIZE];
} core;

static inline u8 *at_offset(const core *c, uint64_t offset)
{
    return (u8 *)(uintptr_t)c + offset;
}

static inline shard *shard_at(const core *c, uint32_t number)
{
    return (shard *)(void *)at_offset(c, c->shard_table) + number;
}

/* Bytes that framing adds to a record. */
static inline size_t framing_overhead(const core *c)
{
    return c->framing == FRAMING_NDJSON ? 1 : 4;
}

#endif
