/* What the rooms of the native router share: the state block's layout, and each room's functions.
 *
 * All state lies in one block of memory that the caller gives. What refers into it is an offset from its start, so
 * that the block may be mapped anywhere. Lengths are always explicit; nothing here relies on a terminator.
 */
#ifndef TRADEBAL_CORE_H
#define TRADEBAL_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAX_RECORD ((size_t)1 << 20)
#define MAX_DEPTH 1024
#define MAX_SHARDS 1024
#define BATCH_TRADES 8192
#define BATCHES_KEPT 1024
#define SAMPLE_SIZE ((size_t)8 << 10)

/* Staged bytes above which pump writes a shard before its turn comes, and the most that a shard holds. */
#define STAGE_THRESHOLD ((size_t)64 << 10)
#define STAGE_CAPACITY (STAGE_THRESHOLD + MAX_RECORD + ((size_t)4 << 10))

/* Receive buffer. */
#define RECEIVE_SIZE ((size_t)256 << 10)

/* Bytes behind each buffer that wide loads and stores may touch; their content means nothing. */
#define PADDING 256

/* Bytes of a message that are indexed at a time: with what is copied from them, they should stay in the L1 cache. */
#define WINDOW ((size_t)32 << 10)

#define BRACKETS_SPARE 16

/* Pinned symbols, and bytes of them all. */
#define MAX_PINS ((size_t)16384)
#define MAX_PINS_SIZE ((size_t)1 << 20)

#define MAX_PREFIXES 8
#define PREFIX_SIZE 32

typedef uint8_t u8;

typedef struct {
    const u8 *data;
    size_t size;
} bytes_in;

/* ---- frame.c: the header of a websocket frame (RFC 6455, section 5.2) ---- */

enum { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

enum { CLOSE_PROTOCOL_ERROR = 1002, CLOSE_NONE = 1005, CLOSE_INVALID_DATA = 1007, CLOSE_TOO_BIG = 1009 };

typedef struct {
    uint64_t length; /* of the payload */
    unsigned size;   /* of the header */
    u8 opcode;
    bool final;
} frame_header;

/* Read a header from the first bytes of `data`. `fragmented`: a fragmented message has begun and not ended.
 * Returns 0 when header is filled, 1 when more bytes are needed, or the negative of a REASON_… of a violation. */
int frame_parse(const u8 *data, size_t size, bool fragmented, frame_header *header);

bool frame_close_code_valid(unsigned code);

/* ---- utf8.c ---- */

bool utf8_valid(const u8 *data, size_t size);

/* ---- json.c: structure only; nothing is decoded ---- */

/* Where brackets stand outside of strings, in a stretch of text that begins outside of them. Some bytes that are no
 * brackets are among them; and a backslash outside of strings ends the index, since it escapes nothing there. */
typedef struct {
    size_t count;        /* of offsets written; BRACKETS_SPARE more may have been overwritten */
    size_t seen;         /* bytes looked at */
    size_t newline_at;   /* the first line feed; SIZE_MAX: there is none */
    size_t backslash_at; /* the first backslash, likewise */
    bool non_ascii;
} json_index;

/* Open brackets; all zeros at first. */
typedef struct {
    size_t depth;
    uint64_t curly[MAX_DEPTH / 64]; /* a bit for each, outermost first */
} json_nesting;

enum { NEST_OPEN, NEST_CLOSED, NEST_FAILED };

/* Take a byte outside of strings into account: NEST_CLOSED at the outermost bracket's end, NEST_FAILED with *reason. */
int json_nest(json_nesting *nested, u8 byte, int *reason);

typedef struct core core;

/* One implementation of the wide loops; all give the same results. */
typedef struct {
    const char *name;
    void (*index)(const u8 *text, size_t size, json_index *index, uint32_t *brackets);
    /* Length of the object or array at text[0], or 0 with *reason. */
    size_t (*span)(const u8 *text, size_t size, int *reason);
    /* Stage indexed trades while they are of the usual form; says in the core how far it came. */
    void (*run)(core *c, const u8 *message);
} json_variant;

extern const json_variant *json;

bool json_use_variant(const char *name);
/* Names of what this machine can run, best first; NULL at the end. */
const char *const *json_variants(void);

static inline bool json_space(u8 byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

static inline size_t json_skip(const u8 *text, size_t at, size_t size)
{
    while (at < size && json_space(text[at]))
        at++;
    return at;
}

/* Length of the string at text[0] with its quotes, or 0 if it doesn't end. */
size_t json_string(const u8 *text, size_t size);

/* Length of the scalar token at text[0]; 0 if there is none. */
size_t json_scalar(const u8 *text, size_t size);

/* Length of any value at text[0], or 0 with *reason. */
size_t json_value(const u8 *text, size_t size, int *reason);

typedef struct {
    const u8 *key; /* inside of the string */
    size_t key_size;
    const u8 *value; /* with quotes or brackets */
    size_t value_size;
} json_member;

/* Read the member behind *at in an object of known span, and move *at behind its value. Begin with *at = 0.
 * Returns 1, 0 at the object's end, -1 if it is malformed. */
int json_next_member(const u8 *object, size_t size, size_t *at, json_member *member);

/* Whether a line feed stands inside a string of a well-structured object. */
bool json_newline_in_string(const u8 *object, size_t size);

/* Undo the escapes of a string's inside, piece by piece. */
typedef struct {
    const u8 *at, *end;
} json_text;

/* Next run of the unescaped text: *piece of *size bytes (in the text itself, or in scratch).
 * Returns 1, 0 at the end, -1 if an escape is invalid. */
int json_unescape(json_text *text, u8 scratch[4], const u8 **piece, size_t *size);

/* Whether the inside of a string is, unescaped, these bytes. */
bool json_equals(const u8 *inside, size_t size, const u8 *bytes, size_t bytes_size);

/* ---- symbol.c: which shard a symbol belongs to ---- */

typedef struct {
    uint64_t hash;
    uint64_t offset; /* of the symbol's bytes in the block */
    uint32_t size;
    uint32_t shard_plus_1; /* 0: the slot is free */
} pin;

/* FNV-1a, 64 bits: Fowler, Noll, Vo, http://www.isthe.com/chongo/tech/comp/fnv/ */
#define FNV_OFFSET_BASIS UINT64_C(0xCBF29CE484222325)
#define FNV_PRIME UINT64_C(0x100000001B3)

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

/* Shard of the symbol whose string has this inside; -1 if it is empty or an escape in it is invalid. */
int symbol_shard(const core *c, const u8 *inside, size_t size);
/* Slots for that many pins. */
uint64_t symbol_pin_slots(size_t pins);
/* Pin these symbols to these shards, and no others. */
void symbol_set_pins(core *c, const bytes_in *symbols, const uint32_t *shards, size_t count);

/* ---- shard.c: what waits for a shard's output ---- */

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

/* Bytes of trades that were staged so far, with framing and without. */
uint64_t shard_staged(const core *c, uint32_t number);
uint64_t shard_bytes(const core *c, uint32_t number);

/* Where the shard's output goes, and whether that takes bytes. */
void shard_set_output(core *c, uint32_t number, int fd, bool stalled);

/* Make room for `size` more bytes behind tail, by writing (in pump) and moving; false if there is none. */
bool shard_room(core *c, uint32_t number, size_t size);
/* Stage a trade; the caller has made room. */
void shard_append(core *c, uint32_t number, const u8 *trade, size_t size);
/* Stage a record that is no trade, and isn't counted; false if there is no room. */
bool shard_inject(core *c, uint32_t number, const u8 *record, size_t size);
void shard_take(core *c, uint32_t number, size_t count);
/* Write what is staged if there is an output that isn't stalled. */
void shard_write(core *c, uint32_t number);
void shard_write_all(core *c);

/* ---- core.c: the state machine ---- */

enum { FRAMING_NDJSON, FRAMING_LENGTH32 };

/* As in tradebal.router.interface. */
enum { STATUS_INPUT, STATUS_EVENT, STATUS_BLOCKED, STATUS_BUDGET, STATUS_CLOSED, STATUS_ERROR };
enum { EVENT_MESSAGE, EVENT_PING, EVENT_PONG, EVENT_CLOSE, EVENT_REJECT, EVENT_VIOLATION };

enum {
    REASON_NONE,
    REASON_UNTERMINATED,
    REASON_MISMATCHED,
    REASON_TOO_DEEP,
    REASON_NO_VALUE,
    REASON_NO_COMMA,
    REASON_TEXT_AFTER,
    REASON_MALFORMED,
    REASON_NO_SYMBOL,
    REASON_RAW_NEWLINE,
    REASON_TOO_LONG,
    REASON_RESERVED_BITS,
    REASON_UNKNOWN_OPCODE,
    REASON_MASKED,
    REASON_CONTROL_FRAGMENTED,
    REASON_CONTROL_TOO_LONG,
    REASON_NO_START,
    REASON_INTERLEAVED,
    REASON_LENGTH_RANGE,
    REASON_MESSAGE_TOO_LONG,
    REASON_CLOSE_PAYLOAD,
    REASON_CLOSE_CODE,
    REASON_UTF8,
    REASONS
};

extern const char *const core_reasons[REASONS];

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
    uint64_t reads, bytes, frames, messages, trades, trade_bytes, rejects, writes, written;
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

/* What a router is made with; pointers are only read by core_size and core_init. */
typedef struct {
    uint32_t shards;
    int framing;
    uint64_t max_message;
    bool has_rule, has_container;
    bytes_in marker_key, symbol_key, container;
    const bytes_in *marker_values;
    size_t marker_values_count;
    const bytes_in *pin_symbols;
    const uint32_t *pin_shards;
    size_t pins_count;
} core_options;

#define NO_WINDOW UINT64_MAX

/* What may stand next in a message. */
enum { AT_FIRST_VALUE, AT_VALUE, AT_DELIMITER, AT_END };

struct core {
    /* as made */
    uint64_t size;
    uint64_t max_message;
    uint32_t shards;
    int32_t framing;
    bool has_rule, has_container;
    slice marker_key, symbol_key, container;
    uint64_t marker_values; /* slices */
    uint64_t marker_values_count;
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
};

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

/* ---- pump.c: the only room that receives ---- */

/* As Router.pump; *error is errno where it returns STATUS_ERROR. */
int pump(core *c, int fd, int64_t budget_ns, int wake, int *error);

uint64_t clock_ns(int clock);

#endif
