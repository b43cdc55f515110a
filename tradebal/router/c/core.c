/* The router's state machine: received bytes to messages, messages to staged trades and events. */
#define _DEFAULT_SOURCE
#include "core.h"

#include "frame.h"
#include "json.h"
#include "reasons.h"
#include "shard.h"
#include "symbol.h"
#include "utf8.h"
#include "variants.h"

#include <sys/mman.h>
#include <time.h>

/* An assembled message that was longer than this gives its memory back. */
#define ASSEMBLY_KEPT ((uint64_t)1 << 20)

/* Longer rests of a frame are received right into the assembly buffer. */
#define RECEIVE_DIRECTLY ((uint64_t)64 << 10)

#define PAGE ((uint64_t)4096)

uint64_t clock_ns(int clock)
{
    struct timespec now;
    clock_gettime((clockid_t)clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- making ---- */

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* Staging areas begin at different cache sets, since all of them are filled at the same time. */
static uint64_t stage_stride(void)
{
    return round_up(STAGE_CAPACITY + PADDING, PAGE) + 5 * 64;
}

typedef struct {
    core *c; /* NULL: only measure */
    uint64_t end;
} layout;

static uint64_t place(layout *l, uint64_t size, uint64_t align)
{
    const uint64_t offset = round_up(l->end, align);
    l->end = offset + size;
    return offset;
}

static slice place_bytes(layout *l, bytes_in bytes)
{
    const slice placed = {place(l, bytes.size, 1), bytes.size};
    if (l->c && bytes.size)
        memcpy(at_offset(l->c, placed.offset), bytes.data, bytes.size);
    return placed;
}

/* Place the values and, before them, a slice for each; returns where the slices begin. */
static uint64_t place_values(layout *l, const bytes_in *values, size_t count)
{
    const uint64_t slices = place(l, count * sizeof(slice), 16);
    for (size_t i = 0; i < count; i++) {
        const slice value = place_bytes(l, values[i]);
        if (l->c)
            memcpy(at_offset(l->c, slices + i * sizeof value), &value, sizeof value);
    }
    return slices;
}

/* Lay everything out behind the struct, in *made too if there is a block to fill. Returns the size of it all. */
static uint64_t lay_out(core *made, const core_options *o)
{
    layout l = {made, sizeof(core)};
    core scratch;
    core *c = made ? made : &scratch;
    c->shard_table = place(&l, o->shards * sizeof(shard), 64);
    c->looked_up = place(&l, LOOKED_UP_SIZE, 64);
    c->brackets = place(&l, (WINDOW + BRACKETS_SPARE) * sizeof(uint32_t), 64);
    c->batches = place(&l, BATCHES_KEPT * sizeof(core_batch), 64);
    c->marker_key = place_bytes(&l, o->marker_key);
    c->symbol_key = place_bytes(&l, o->symbol_key);
    c->container = place_bytes(&l, o->container);
    c->marker_values = place_values(&l, o->marker_values, o->marker_values_count);
    c->notice_values = place_values(&l, o->notice_values, o->notice_values_count);
    c->pins = place(&l, symbol_pin_slots(MAX_PINS) * sizeof(pin), 64);
    c->pin_symbols = place(&l, MAX_PINS_SIZE, 1);
    c->receive = place(&l, RECEIVE_SIZE + PADDING, PAGE);
    const uint64_t stages = place(&l, o->shards * stage_stride(), PAGE);
    for (uint32_t i = 0; made && i < o->shards; i++) {
        shard *s = shard_at(c, i);
        s->base = s->head = s->tail = s->boundary = s->origin = stages + i * stage_stride();
        shard_set_output(c, i, -1, false);
    }
    c->assembly = place(&l, o->max_message + PADDING, PAGE);
    return round_up(l.end, PAGE);
}

static bool plain(bytes_in text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] < 0x20 || text.data[i] == '"' || text.data[i] == '\\')
            return false;
    return true;
}

static bytes_in literal(const char *text)
{
    return (bytes_in){(const u8 *)text, strlen(text)};
}

/* Add what a trade begins with if marker and symbol are its first members; too long or unusual ones are left out. */
static void add_prefix(core *c, const core_options *o, const bytes_in *marker, bool spaced)
{
    const bytes_in colon = literal(spaced ? "\": \"" : "\":\""), none = literal("");
    const bytes_in parts[] = {
        literal(marker ? "{\"" : "{"),
        marker ? o->marker_key : none,
        marker ? colon : none,
        marker ? *marker : none,
        literal(!marker ? "\"" : spaced ? "\", \"" : "\",\""),
        o->symbol_key,
        colon,
    };
    if (c->prefixes_count == MAX_PREFIXES)
        return;
    prefix *p = c->prefixes + c->prefixes_count;
    memset(p, 0, sizeof *p);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].size > PREFIX_SIZE - p->size)
            return;
        memcpy(p->bytes + p->size, parts[i].data, parts[i].size);
        p->size += parts[i].size;
    }
    memset(p->mask, 0xFF, p->size);
    c->prefixes_count++;
}

static void add_prefixes(core *c, const core_options *o)
{
    if (!o->has_rule || !plain(o->symbol_key))
        return;
    if (o->has_container) {
        add_prefix(c, o, NULL, false);
        add_prefix(c, o, NULL, true);
        return;
    }
    /* With the same key for both, its first value is the marker and the symbol. */
    const bool same = o->marker_key.size == o->symbol_key.size &&
                      !memcmp(o->marker_key.data, o->symbol_key.data, o->symbol_key.size);
    if (same || !plain(o->marker_key))
        return;
    for (size_t i = 0; i < o->marker_values_count; i++)
        if (plain(o->marker_values[i])) {
            add_prefix(c, o, &o->marker_values[i], false);
            add_prefix(c, o, &o->marker_values[i], true);
        }
}

uint64_t core_size(const core_options *options)
{
    return lay_out(NULL, options);
}

void core_init(core *c, uint64_t size, const core_options *options)
{
    c->size = size;
    c->max_message = options->max_message;
    c->shards = options->shards;
    c->framing = options->framing;
    c->has_rule = options->has_rule;
    c->has_container = options->has_container;
    c->has_notices = options->has_notices;
    c->marker_values_count = options->marker_values_count;
    c->notice_values_count = options->notice_values_count;
    lay_out(c, options);
    symbol_set_pins(c, options->pin_symbols, options->pin_shards, options->pins_count);
    add_prefixes(c, options);
    core_reset(c);
}

/* ---- batches ---- */

static void begin_batch(core *c, uint64_t now_ns)
{
    c->batch_left = BATCH_TRADES;
    c->batch_began_ns = now_ns;
    c->batch_reads = c->total.reads;
    c->batch_frames = c->total.frames;
    c->batch_bytes = c->total.bytes;
}

void core_close_batch(core *c)
{
    const uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    c->connection_trades += BATCH_TRADES;
    core_batch *const ring = (core_batch *)(void *)at_offset(c, c->batches);
    core_batch *batch = ring + (c->batches_first + c->batches_count) % BATCHES_KEPT;
    batch->time_ns = clock_ns(CLOCK_REALTIME);
    batch->elapsed_ns = now_ns > c->batch_began_ns ? now_ns - c->batch_began_ns : 1;
    batch->reads = c->total.reads - c->batch_reads;
    batch->frames = c->total.frames - c->batch_frames;
    batch->bytes = c->total.bytes - c->batch_bytes;
    batch->connection_trades = c->connection_trades;
    batch->total_trades = c->total.trades;
    batch->total_bytes = c->total.bytes;
    c->batches_count++;
    begin_batch(c, now_ns);
}

static bool batch_would_be_lost(const core *c)
{
    return c->batch_left == 1 && c->batches_count == BATCHES_KEPT;
}

/* ---- receiving ---- */

void core_reset(core *c)
{
    c->start = c->end = 0;
    c->assembled = c->awaited = 0;
    c->in_frame = c->closed = c->routing = false;
    c->opcode = 0;
    c->connection_trades = 0;
    begin_batch(c, clock_ns(CLOCK_MONOTONIC));
}

static bool receives_directly(const core *c)
{
    return c->in_frame && c->start == c->end && c->awaited >= RECEIVE_DIRECTLY && !c->routing && !c->closed;
}

u8 *core_space(core *c, size_t *size)
{
    if (receives_directly(c)) {
        *size = core_room(c);
        return at_offset(c, c->assembly + c->assembled);
    }
    u8 *const buffer = at_offset(c, c->receive);
    if (!c->routing) {
        if (c->start == c->end) {
            c->start = c->end = 0;
        } else if (c->start && c->end > RECEIVE_SIZE / 2) {
            memmove(buffer, buffer + c->start, (size_t)(c->end - c->start));
            c->end -= c->start;
            c->start = 0;
        }
    }
    *size = core_room(c);
    return buffer + c->end;
}

size_t core_room(const core *c)
{
    return (size_t)(receives_directly(c) ? c->awaited : RECEIVE_SIZE - c->end);
}

void core_received(core *c, size_t count)
{
    if (!count)
        return;
    c->total.reads++;
    c->total.bytes += count;
    if (c->closed)
        return;
    if (receives_directly(c)) {
        c->assembled += count;
        c->awaited -= count;
    } else {
        c->end += count;
    }
}

/* ---- outcomes: STATUS_…, or this ---- */

enum { GO_ON = -1 };

static int stop_at(core *c, int kind, uint64_t offset, uint64_t size, int code, int reason)
{
    c->event = (core_event){offset, size, kind, code, reason};
    if (kind == EVENT_REJECT)
        c->total.rejects++;
    if (kind == EVENT_CLOSE || kind == EVENT_VIOLATION)
        c->closed = true;
    return STATUS_EVENT;
}

static int violation(core *c, int code, int reason)
{
    return stop_at(c, EVENT_VIOLATION, 0, 0, code, reason);
}

/* ---- messages ---- */

static void forget_window(core *c)
{
    c->window = NO_WINDOW;
    c->brackets_next = c->brackets_count = c->brackets_usual = 0;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Index the message from `at` on. Returns how far it was seen to be ASCII; 0 if it isn't. */
static uint64_t make_window(core *c, const u8 *message)
{
    json_index made;
    uint32_t *brackets = (uint32_t *)(void *)at_offset(c, c->brackets);
    const uint64_t size = min64(c->limit - c->at, WINDOW);
    variant->index(message + c->at, (size_t)size, &made, brackets);
    c->window = c->at;
    c->brackets_next = 0;
    c->brackets_count = c->brackets_usual = made.count;
    /* The fast path reads up to four at once. */
    memset(brackets + made.count, 0, 4 * sizeof *brackets);
    /* It doesn't look at escapes, and a line feed must not come into a line. */
    const size_t usual = made.newline_at < made.backslash_at ? made.newline_at : made.backslash_at;
    while (c->brackets_usual && brackets[c->brackets_usual - 1] > usual)
        c->brackets_usual--;
    return made.non_ascii ? 0 : c->at + made.seen;
}

/* Bring the index to the object at `at`; false if it doesn't hold its beginning. */
static bool find_in_window(core *c, const u8 *message)
{
    const uint32_t *brackets = (const uint32_t *)(const void *)at_offset(c, c->brackets);
    while (c->brackets_next < c->brackets_count && c->window + brackets[c->brackets_next] < c->at)
        c->brackets_next++;
    if (c->brackets_next == c->brackets_count && c->window != c->at)
        make_window(c, message);
    return c->brackets_next < c->brackets_count && c->window + brackets[c->brackets_next] == c->at;
}

/* Length of the object at `at` by the index; 0 if that doesn't hold all of it, or it isn't well structured. */
static size_t indexed_size(const core *c, const u8 *message)
{
    const uint32_t *brackets = (const uint32_t *)(const void *)at_offset(c, c->brackets);
    json_nesting nested = {0};
    for (uint64_t i = c->brackets_next; i < c->brackets_count; i++) {
        const uint64_t place = c->window + brackets[i];
        int reason;
        const int state = json_nest(&nested, message[place], &reason);
        if (state != NEST_OPEN)
            return state == NEST_CLOSED ? (size_t)(place + 1 - c->at) : 0;
    }
    return 0;
}

static int begin_message(core *c, u8 opcode, uint64_t offset, uint64_t size)
{
    const u8 *const message = at_offset(c, offset);
    c->message = offset;
    c->message_size = c->limit = size;
    c->message_opcode = opcode;
    c->at = json_skip(message, 0, (size_t)size);
    c->inner = false;
    forget_window(c);
    const u8 first = c->has_rule && c->at < size ? message[c->at] : 0;
    const bool routable = first == '{' || first == '[';
    uint64_t ascii = 0;
    c->single = first == '{';
    c->expected = c->single ? AT_VALUE : AT_FIRST_VALUE;
    if (routable) {
        if (!c->single)
            c->at = json_skip(message, (size_t)c->at + 1, (size_t)size);
        ascii = make_window(c, message);
    }
    if (opcode == OP_TEXT && ascii < size && !utf8_valid(message, (size_t)size))
        return violation(c, CLOSE_INVALID_DATA, REASON_UTF8);
    c->total.messages++;
    c->routing = true;
    if (routable)
        return GO_ON;
    c->at = size;
    c->expected = AT_END;
    return stop_at(c, EVENT_MESSAGE, offset, size, opcode, REASON_NONE);
}

static void release_assembly(core *c, uint64_t used)
{
    if (used > ASSEMBLY_KEPT) /* that it can't be done is no harm */
        (void)madvise(at_offset(c, c->assembly), (size_t)round_up(used, PAGE), MADV_DONTNEED);
}

static void end_message(core *c)
{
    c->routing = false;
    c->sample.open = false;
    if (c->message == c->assembly) {
        release_assembly(c, c->assembled);
        c->assembled = 0;
    }
}

static void end_array(core *c)
{
    if (!c->inner) {
        c->expected = AT_END;
        return;
    }
    c->inner = false;
    c->at = c->limit;
    c->limit = c->message_size;
    c->expected = c->single ? AT_END : AT_DELIMITER;
    forget_window(c);
}

/* Give up on what follows, up to the message's or the envelope's end. */
static int reject_rest(core *c, int reason)
{
    const uint64_t at = c->at, limit = c->limit;
    c->at = limit;
    end_array(c);
    return stop_at(c, EVENT_REJECT, c->message + at, limit - at, 0, reason);
}

static void go_behind(core *c, size_t size)
{
    c->at += size;
    c->expected = c->single && !c->inner ? AT_END : AT_DELIMITER;
}

static int hand_out(core *c, size_t size, int kind, int reason)
{
    const uint64_t at = c->at;
    go_behind(c, size);
    return stop_at(c, kind, c->message + at, size, kind == EVENT_MESSAGE ? c->message_opcode : 0, reason);
}

static bool key_is(const core *c, const json_member *member, slice key)
{
    return json_equals(member->key, member->key_size, at_offset(c, key.offset), (size_t)key.size);
}

/* Whether a member's value is a string among these. */
static bool is_among(const core *c, const json_member *member, uint64_t slices, uint64_t count)
{
    const slice *values = (const slice *)(const void *)at_offset(c, slices);
    if (member->value[0] != '"')
        return false;
    for (uint64_t i = 0; i < count; i++)
        if (json_equals(member->value + 1, member->value_size - 2, at_offset(c, values[i].offset),
                        (size_t)values[i].size))
            return true;
    return false;
}

static bool is_marker(const core *c, const json_member *member)
{
    return is_among(c, member, c->marker_values, c->marker_values_count);
}

/* Hand out or skip the object at `at`, whose marker isn't a trade's. */
static int pass_over(core *c, const u8 *object, size_t size, const json_member *marker)
{
    if (!c->has_notices || marker->value[0] != '"' ||
        is_among(c, marker, c->notice_values, c->notice_values_count))
        return hand_out(c, size, EVENT_MESSAGE, REASON_NONE);
    c->total.skipped++;
    if (!c->skipped_size) {
        c->skipped_size = (uint32_t)min64(size, SKIPPED_SAMPLE_SIZE);
        memcpy(c->skipped_text, object, c->skipped_size);
    }
    go_behind(c, size);
    return GO_ON;
}

/* Add trades that were staged to the sample, as many whole ones as fit. `text` begins with one, and holds `size` bytes
 * of them with the commas between. */
static void extend_sample(core *c, const u8 *text, size_t size)
{
    core_sample *const sample = &c->sample;
    while (size) {
        int reason;
        const size_t trade = variant->span(text, size, &reason);
        if (1 + trade > SAMPLE_SIZE - sample->size) {
            sample->open = false;
            return;
        }
        sample->text[sample->size] = ',';
        memcpy(sample->text + sample->size + 1, text, trade);
        sample->size += (uint32_t)(1 + trade);
        text += trade;
        size -= trade;
        if (size) {
            text++;
            size--;
        }
    }
}

/* Keep a trade that is about to be staged in its shard, if it belongs into the sample. */
static void take_sample(core *c, uint32_t number, const u8 *trade, size_t size)
{
    core_sample *const sample = &c->sample;
    if (sample->size) {
        if (sample->open)
            extend_sample(c, trade, size);
    } else if (size <= SAMPLE_SIZE) {
        sample->time_ns = clock_ns(CLOCK_REALTIME);
        sample->shard = number;
        sample->offset = shard_staged(c, number);
        sample->size = (uint32_t)size;
        sample->open = true;
        memcpy(sample->text, trade, size);
    }
}

/* Stage the object at `at`, or say why not, looking no further into it than that takes. */
static int route_object(core *c, const u8 *object, size_t size)
{
    bool marked = c->inner, named = false;
    json_member member, symbol = {0};
    size_t behind = 0;
    int more = 1;
    while (!(marked && named) && (more = json_next_member(object, size, &behind, variant->span, &member)) > 0) {
        if (!marked && key_is(c, &member, c->marker_key)) {
            if (!is_marker(c, &member))
                return pass_over(c, object, size, &member);
            marked = true;
        }
        if (!named && key_is(c, &member, c->symbol_key)) {
            symbol = member;
            named = true;
        }
    }
    if (more < 0)
        return hand_out(c, size, EVENT_REJECT, REASON_MALFORMED);
    if (!marked)
        return hand_out(c, size, EVENT_MESSAGE, REASON_NONE);
    const int number = named && symbol.value[0] == '"' ? symbol_shard(c, symbol.value + 1, symbol.value_size - 2) : -1;
    if (number < 0)
        return hand_out(c, size, EVENT_REJECT, REASON_NO_SYMBOL);
    if (size > MAX_RECORD)
        return hand_out(c, size, EVENT_REJECT, REASON_TOO_LONG);
    const bool ndjson = c->framing == FRAMING_NDJSON;
    const bool newline = ndjson && memchr(object, '\n', size);
    if (newline && json_newline_in_string(object, size))
        return hand_out(c, size, EVENT_REJECT, REASON_RAW_NEWLINE);
    if (batch_would_be_lost(c))
        return STATUS_BUDGET;
    if (!shard_room(c, (uint32_t)number, size + framing_overhead(c))) {
        c->blocked = (uint32_t)number;
        return STATUS_BLOCKED;
    }
    take_sample(c, (uint32_t)number, object, size);
    shard *s = shard_at(c, (uint32_t)number);
    u8 *const staged = at_offset(c, s->tail);
    shard_append(c, (uint32_t)number, object, size);
    for (size_t i = 0; newline && i < size; i++)
        if (staged[i] == '\n')
            staged[i] = ' ';
    go_behind(c, size);
    core_count_trade(c, s, size);
    return GO_ON;
}

/* Go into the array of trades that an object holds, or say why not. */
static int enter_envelope(core *c, const u8 *object, size_t size)
{
    bool marked = false, found = false;
    const u8 *array = NULL;
    json_member member;
    size_t behind = 0;
    int more;
    while ((more = json_next_member(object, size, &behind, variant->span, &member)) > 0) {
        if (!marked && key_is(c, &member, c->marker_key)) {
            if (!is_marker(c, &member))
                return pass_over(c, object, size, &member);
            marked = true;
        }
        if (!found && key_is(c, &member, c->container)) {
            found = true;
            if (member.value[0] == '[')
                array = member.value;
        }
    }
    if (more < 0)
        return hand_out(c, size, EVENT_REJECT, REASON_MALFORMED);
    if (!marked || !array)
        return hand_out(c, size, EVENT_MESSAGE, REASON_NONE);
    c->inner = true;
    c->limit = c->at + size;
    c->at += (uint64_t)(array - object) + 1;
    c->expected = AT_FIRST_VALUE;
    forget_window(c);
    return GO_ON;
}

static int route_value(core *c, const u8 *message)
{
    const u8 *const value = message + c->at;
    const size_t left = (size_t)(c->limit - c->at);
    const bool object = left && value[0] == '{', envelope = c->has_container && !c->inner;
    size_t size = 0;
    if (object && find_in_window(c, message)) {
        /* A sample begins with a trade that takes the careful path, which knows all about it. */
        if (!envelope && c->prefixes_count && c->brackets_next < c->brackets_usual && c->sample.size) {
            const uint64_t at = c->at;
            variant->route(c, message);
            if (c->at != at) {
                if (c->sample.open)
                    extend_sample(c, value, (size_t)(c->at - at));
                return GO_ON;
            }
        }
        size = indexed_size(c, message);
    }
    int reason;
    if (!size && !(size = json_value(value, left, variant->span, &reason)))
        return reject_rest(c, reason);
    if (!object)
        return c->inner ? hand_out(c, size, EVENT_REJECT, REASON_MALFORMED)
                        : hand_out(c, size, EVENT_MESSAGE, REASON_NONE);
    return envelope ? enter_envelope(c, value, size) : route_object(c, value, size);
}

/* Go on in the message at hand; GO_ON at its end. */
static int route(core *c)
{
    const u8 *const message = at_offset(c, c->message);
    for (;;) {
        c->at = json_skip(message, (size_t)c->at, (size_t)c->limit);
        const u8 next = c->at < c->limit ? message[c->at] : 0;
        int status = GO_ON;
        switch (c->expected) {
        case AT_FIRST_VALUE:
            if (next == ']') {
                c->at++;
                end_array(c);
                break;
            }
            c->expected = AT_VALUE;
            /* fall through */
        case AT_VALUE:
            status = route_value(c, message);
            break;
        case AT_DELIMITER:
            if (next == ',') {
                c->at++;
                c->expected = AT_VALUE;
            } else if (next == ']') {
                c->at++;
                end_array(c);
            } else {
                status = reject_rest(c, REASON_NO_COMMA);
            }
            break;
        default:
            if (c->at == c->limit)
                return GO_ON;
            status = reject_rest(c, REASON_TEXT_AFTER);
        }
        if (status != GO_ON)
            return status;
    }
}

/* ---- frames ---- */

static int control_frame(core *c, u8 opcode, uint64_t offset, uint64_t size)
{
    if (opcode != OP_CLOSE)
        return stop_at(c, opcode == OP_PING ? EVENT_PING : EVENT_PONG, offset, size, 0, REASON_NONE);
    if (!size)
        return stop_at(c, EVENT_CLOSE, offset, 0, CLOSE_NONE, REASON_NONE);
    if (size == 1)
        return violation(c, CLOSE_PROTOCOL_ERROR, REASON_CLOSE_PAYLOAD);
    const u8 *payload = at_offset(c, offset);
    const int code = payload[0] << 8 | payload[1];
    if (!frame_close_code_valid((unsigned)code))
        return violation(c, CLOSE_PROTOCOL_ERROR, REASON_CLOSE_CODE);
    if (!utf8_valid(payload + 2, (size_t)size - 2))
        return violation(c, CLOSE_INVALID_DATA, REASON_UTF8);
    return stop_at(c, EVENT_CLOSE, offset + 2, size - 2, code, REASON_NONE);
}

/* Bring what was received of the data frame at hand to the message's other parts. */
static int assemble(core *c)
{
    const uint64_t count = min64(c->awaited, c->end - c->start);
    if (count)
        memcpy(at_offset(c, c->assembly + c->assembled), at_offset(c, c->receive + c->start), (size_t)count);
    c->start += count;
    c->assembled += count;
    c->awaited -= count;
    if (c->awaited)
        return STATUS_INPUT;
    c->in_frame = false;
    c->total.frames++;
    if (!c->frame_final)
        return GO_ON;
    const u8 opcode = c->opcode;
    c->opcode = 0;
    return begin_message(c, opcode, c->assembly, c->assembled);
}

static int take_frame(core *c)
{
    frame_header header;
    const uint64_t available = c->end - c->start;
    const int parsed = frame_parse(at_offset(c, c->receive + c->start), (size_t)available, c->opcode != 0, &header);
    if (parsed > 0)
        return STATUS_INPUT;
    if (parsed < 0)
        return violation(c, CLOSE_PROTOCOL_ERROR, -parsed);
    const bool control = header.opcode >= OP_CLOSE;
    if (!control && header.length > c->max_message - c->assembled)
        return violation(c, CLOSE_TOO_BIG, REASON_MESSAGE_TOO_LONG);
    const bool whole = header.final && header.opcode != OP_CONTINUATION;
    if (whole && header.size + header.length <= RECEIVE_SIZE) {
        if (available < header.size + header.length)
            return STATUS_INPUT;
        const uint64_t payload = c->receive + c->start + header.size;
        c->start += header.size + header.length;
        c->total.frames++;
        return control ? control_frame(c, header.opcode, payload, header.length)
                       : begin_message(c, header.opcode, payload, header.length);
    }
    if (header.opcode != OP_CONTINUATION)
        c->opcode = header.opcode;
    c->start += header.size;
    c->in_frame = true;
    c->frame_final = header.final;
    c->awaited = header.length;
    return GO_ON;
}

int core_process(core *c)
{
    for (;;) {
        int status;
        if (c->routing) {
            status = route(c);
            if (status == GO_ON)
                end_message(c);
        } else if (c->closed) {
            c->start = c->end = 0;
            return STATUS_INPUT;
        } else {
            status = c->in_frame ? assemble(c) : take_frame(c);
        }
        if (status != GO_ON)
            return status;
    }
}
