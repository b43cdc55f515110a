/* Reads an input as cases.py does. */
#include "case.h"

#include "frame.h"

#define MOST_CHUNKS 1024
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const uint32_t shard_counts[] = {4, 1, 2, 3, 7, 8, 20, 100};
static const uint64_t max_messages[] = {LARGEST_MESSAGE, 60, 300, 70000};
static const uint32_t chunk_limits[] = {4, 60, 1000, 70000};
static const size_t repeated_sizes[2][4] = {{1000, 4000, 10000, 70000}, {40000, 70000, 140000, 360000}};
static const size_t most_repeated[2][4] = {{100, 200, 400, 800}, {1000, 2000, 3000, 17000}};
static const size_t edges[] = {64, 192, 32 << 10, 64 << 10};
static const size_t long_counts[2][3] = {{3, 2, 1}, {2, 1, 1}};
static const size_t long_sizes[2][3] = {{300, 5000, 70000}, {600000, MAX_RECORD, MAX_RECORD + 1}};

#define TEXT(literal) {(const u8 *)(literal), sizeof(literal) - 1}

static const bytes_in coinbase_notices[] = {TEXT("error"), TEXT("\xC3\xA9")};

static const bytes_in stocks_values[] = {TEXT("T")}, kraken_values[] = {TEXT("trade")},
                      coinbase_values[] = {TEXT("match"), TEXT("last_match")}, same_values[] = {TEXT("T"), TEXT("Q")},
                      unusual_values[] = {TEXT("\n"), TEXT("\xC3\xA9\xF0\x9F\x98\x80")},
                      empty_values[] = {TEXT(""), TEXT("TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT")};

typedef struct {
    bytes_in marker_key;
    const bytes_in *values;
    size_t values_count;
    bytes_in symbol_key, container;
    bool has_notices;
    const bytes_in *notices;
    size_t notices_count;
} rule;

/* Number 0 is for what is made of the payload where the router has no rule. */
static const rule rules[] = {
    {TEXT("ev"), stocks_values, COUNT(stocks_values), TEXT("sym"), {0}, false, NULL, 0},
    {TEXT("ev"), stocks_values, COUNT(stocks_values), TEXT("sym"), {0}, false, NULL, 0},
    {TEXT("channel"), kraken_values, COUNT(kraken_values), TEXT("symbol"), TEXT("data"), false, NULL, 0},
    {TEXT("type"), coinbase_values, COUNT(coinbase_values), TEXT("product_id"), {0}, true, coinbase_notices,
     COUNT(coinbase_notices)},
    {TEXT("ev"), same_values, COUNT(same_values), TEXT("ev"), {0}, false, NULL, 0},
    {TEXT("k\"e\\y"), unusual_values, COUNT(unusual_values), TEXT("s\t\xC3\xA9"), {0}, false, NULL, 0},
    {TEXT("ev"), stocks_values, COUNT(stocks_values), TEXT("sym"), TEXT("sym"), true, NULL, 0},
    {TEXT(""), empty_values, COUNT(empty_values), TEXT("s"), {0}, false, NULL, 0},
};

static const bytes_in pin_symbols[PINS] = {TEXT("A"), TEXT("BRK.B"), TEXT("\xC3\xA9"), TEXT("LONGSYMBOL")};

uint32_t random_below(random_numbers *random, uint32_t limit)
{
    random->state = random->state * 1664525U + 1013904223U;
    return (random->state >> 8) % limit;
}

static void add_literal(bytes *to, const char *literal)
{
    bytes_add(to, literal, strlen(literal));
}

static void add_frame(bytes *to, unsigned opcode, bool final, const uint8_t *payload, size_t size)
{
    const unsigned length_size = size < 126 ? 0 : size < 65536 ? 2 : 8;
    uint8_t *head = bytes_grow(to, 2 + length_size);
    head[0] = (uint8_t)((final ? 0x80 : 0) | opcode);
    head[1] = (uint8_t)(length_size == 0 ? size : length_size == 2 ? 126 : 127);
    for (unsigned i = 0; i < length_size; i++)
        head[2 + i] = (uint8_t)(size >> (8 * (length_size - 1 - i)));
    bytes_add(to, payload, size);
}

static void add_fragments(bytes *to, const uint8_t *payload, size_t size, unsigned amount, random_numbers *random)
{
    size_t cuts[8] = {0};
    const unsigned count = random_below(random, 8);
    for (unsigned i = 0; i < count; i++) {
        const size_t cut = random_below(random, (uint32_t)size + 1);
        unsigned at = i;
        for (; at && cuts[at - 1] > cut; at--)
            cuts[at] = cuts[at - 1];
        cuts[at] = cut;
    }
    cuts[count] = size;
    for (unsigned i = 0; i <= count; i++) {
        const size_t begin = i ? cuts[i - 1] : 0;
        const unsigned opcode = i ? OP_CONTINUATION : amount & 1 ? OP_BINARY : OP_TEXT;
        add_frame(to, opcode, i == count, payload + begin, cuts[i] - begin);
        if (amount & 2)
            add_frame(to, OP_PING, true, (const uint8_t *)"ping", 4);
    }
}

/* A JSON string with its quotes. */
static void add_spelled(bytes *to, bytes_in text)
{
    add_literal(to, "\"");
    for (size_t i = 0; i < text.size; i++) {
        const u8 byte = text.data[i];
        if (byte == '"' || byte == '\\' || byte == '\n')
            add_literal(to, "\\");
        bytes_fill(to, byte == '\n' ? 'n' : byte, 1);
    }
    add_literal(to, "\"");
}

static void add_marker(bytes *to, const rule *of)
{
    add_spelled(to, of->marker_key);
    add_literal(to, ":");
    add_spelled(to, of->values[0]);
    add_literal(to, ",");
}

static void add_trade(bytes *to, const rule *of, size_t pad)
{
    add_literal(to, "{");
    if (!of->container.size)
        add_marker(to, of);
    add_spelled(to, of->symbol_key);
    add_literal(to, ":\"A\",\"pad\":\"");
    bytes_fill(to, 'x', pad);
    add_literal(to, "\"}");
}

static size_t trade_size(const rule *of)
{
    bytes made = {0};
    add_trade(&made, of, 0);
    const size_t size = made.size;
    bytes_free(&made);
    return size;
}

static size_t less(size_t from, size_t by)
{
    return from > by ? from - by : 0;
}

static void add_at_edge(bytes *to, const uint8_t *payload, size_t size, size_t edge, const rule *of)
{
    if (of->container.size) {
        add_literal(to, "{");
        add_marker(to, of);
        add_spelled(to, of->container);
        add_literal(to, ":[");
    } else {
        add_literal(to, "[");
    }
    const size_t usual = trade_size(of) + 60 + 1, shortest = trade_size(of) + 1;
    const size_t trades = less(less(edge, size / 2 + to->size) / usual, 1);
    for (size_t i = 0; i < trades; i++) {
        add_trade(to, of, 60);
        add_literal(to, ",");
    }
    const size_t room = less(edge, size / 2 + to->size);
    if (room >= shortest) {
        add_trade(to, of, room - shortest);
        add_literal(to, ",");
    } else {
        bytes_fill(to, ' ', room);
    }
    bytes_add(to, payload, size);
}

static void add_nested(bytes *to, const uint8_t *payload, size_t size, size_t unit)
{
    const size_t count = 1020 + (size > unit ? payload[unit] % 8 : 0);
    const size_t rest = less(size, unit + 1);
    for (size_t i = 0; i < count; i++)
        bytes_add(to, payload, unit < size ? unit : size);
    if (!rest)
        return;
    bytes_add(to, payload + unit + 1, rest - 1);
    bytes_fill(to, payload[size - 1], count);
}

static void add_long(bytes *to, const uint8_t *payload, size_t size, size_t wanted, const rule *of)
{
    const size_t shortest = trade_size(of) + 1 + size;
    add_trade(to, of, less(wanted, shortest));
    to->size--;
    add_literal(to, ",");
    bytes_add(to, payload, size);
    add_literal(to, "}");
}

static void make_connections(test_case *made, const uint8_t *payload, size_t size, unsigned shape, unsigned amount,
                             bool large, const rule *of)
{
    bytes *const stream = made->connections;
    bytes message = {0};
    unsigned opcode = OP_TEXT;
    made->connections_count = 1;
    switch (shape) {
    case 0:
        bytes_add(stream, payload, size);
        return;
    case 1:
    case 2:
        add_frame(stream, shape == 1 ? OP_TEXT : OP_BINARY, true, payload, size);
        return;
    case 3: {
        random_numbers random = {made->seed};
        add_fragments(stream, payload, size, amount, &random);
        return;
    }
    case 4: {
        size_t count = repeated_sizes[large][amount] / (size + 1) + 1;
        if (count > most_repeated[large][amount])
            count = most_repeated[large][amount];
        for (size_t i = 0; i < count; i++) {
            add_literal(&message, message.size ? "," : "[");
            bytes_add(&message, payload, size);
            if (amount == 2) {
                add_literal(&message, "]");
                add_frame(stream, OP_TEXT, true, message.data, message.size);
                message.size = 0;
            }
        }
        if (amount == 2) {
            bytes_free(&message);
            return;
        }
        add_literal(&message, "]");
        break;
    }
    case 5:
        add_at_edge(&message, payload, size, edges[amount], of);
        break;
    case 6:
        add_nested(&message, payload, size, 1 + 2 * amount);
        opcode = OP_BINARY;
        break;
    default:
        if (!amount) {
            made->connections_count = 2;
            bytes_add(stream, payload, size / 2);
            bytes_add(stream + 1, payload + size / 2, size - size / 2);
            return;
        }
        for (size_t i = 0; i < long_counts[large][amount - 1]; i++) {
            add_literal(&message, "[");
            add_long(&message, payload, size, long_sizes[large][amount - 1], of);
            add_literal(&message, "]");
            add_frame(stream, OP_TEXT, true, message.data, message.size);
            message.size = 0;
        }
        bytes_free(&message);
        return;
    }
    add_frame(stream, opcode, true, message.data, message.size);
    bytes_free(&message);
}

void case_read(test_case *made, const uint8_t *data, size_t size)
{
    const unsigned router = data[1], shape = data[2];
    const rule *of = rules + (router & 7);
    memset(made, 0, sizeof *made);
    made->chunking = data[0];
    made->seed = made->chunking << 8 | shape;
    core_options *o = &made->options;
    o->shards = shard_counts[shape >> 3 & 7];
    o->framing = router & 8 ? FRAMING_LENGTH32 : FRAMING_NDJSON;
    o->max_message = max_messages[router >> 5 & 3];
    if (router & 7) {
        o->has_rule = true;
        o->has_container = of->container.size != 0;
        o->marker_key = of->marker_key;
        o->symbol_key = of->symbol_key;
        o->container = of->container;
        o->marker_values = of->values;
        o->marker_values_count = of->values_count;
        o->has_notices = of->has_notices;
        o->notice_values = of->notices;
        o->notice_values_count = of->notices_count;
    }
    if (router & 16) {
        const uint32_t to[PINS] = {0, o->shards - 1, 0, o->shards / 2};
        memcpy(made->pin_shards, to, sizeof to);
        o->pin_symbols = pin_symbols;
        o->pin_shards = made->pin_shards;
        o->pins_count = PINS;
    }
    make_connections(made, data + HEADER, size - HEADER, shape & 7, shape >> 6, router >> 5 == 4, of);
}

void case_free(test_case *made)
{
    for (size_t i = 0; i < made->connections_count; i++)
        bytes_free(made->connections + i);
}

size_t case_chunk(const bytes *stream, size_t start, unsigned chunking, random_numbers *random)
{
    size_t size = stream->size;
    if (chunking >= 16)
        size = 1 + random_below(random, chunk_limits[chunking & 3]);
    else if (chunking)
        size = chunking;
    const size_t least = stream->size / MOST_CHUNKS + 1;
    if (size < least)
        size = least;
    return size < stream->size - start ? size : stream->size - start;
}
