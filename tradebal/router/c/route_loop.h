/* Routes trades of the usual form straight from the index. A variant's source includes this after its vector header. */
#include "state.h"
#include "symbol.h"

/* Shard of the symbol that begins here and has no escapes; -1 if it is empty, or doesn't end before `end`. */
static int symbol_look_up(const core *c, const u8 *symbol, const u8 *end)
{
    const u8 *quote = symbol < end ? memchr(symbol, '"', (size_t)(end - symbol)) : NULL;
    return quote ? symbol_shard(c, symbol, (size_t)(quote - symbol)) : -1;
}

/* The usual beginning that this object has; NULL if none. */
static const prefix *prefix_of(const core *c, const u8 *object, size_t size)
{
    for (uint64_t i = 0; i < c->prefixes_count; i++) {
        const prefix *p = c->prefixes + i;
        if (size > p->size && !memcmp(object, p->bytes, p->size))
            return p;
    }
    return NULL;
}

WIDE_TARGET static void route_usual(core *c, const u8 *message)
{
    const uint32_t *brackets = (const uint32_t *)(const void *)at_offset(c, c->brackets) + c->brackets_next;
    const uint32_t *const last = brackets + (c->brackets_usual - c->brackets_next);
    /* The one that completes a batch takes the careful path; so does what follows a message's one object. */
    const size_t left = (size_t)(c->batch_left - 1), most = c->single && !c->inner && left ? 1 : left;
    const u8 *const window = message + c->window, *const start = message + c->at;
    const bool length32 = c->framing == FRAMING_LENGTH32;
    const prefix *usual = c->prefixes;
    shard *const shards = shard_at(c, 0);
    const uint64_t shards_count = c->shards;
    uint64_t *const looked_up = (uint64_t *)(void *)at_offset(c, c->looked_up);
    const u8 *object = start, *behind = start;
    size_t count = 0;
    for (bool in_step = most > 0; in_step;) {
        /* {} or {[]}: what is nested otherwise takes the careful path. There are always four to be read. */
        const u8 first = window[brackets[1]];
        const unsigned differs = (unsigned)((first ^ '[') | (window[brackets[2]] ^ ']') | (window[brackets[3]] ^ '}'));
        unsigned nested = first != '}';
        /* Which one it is can't be foreseen, so the compiler must not make a branch of it. */
        __asm__("" : "+r"(nested));
        brackets += 2 + 2 * nested;
        if ((differs & (0 - nested)) || brackets > last)
            break;
        const u8 *const end = window + brackets[-1] + 1;
        const size_t size = (size_t)(end - object);
        if (!wide_begins(object, usual->bytes, usual->mask)) {
            const prefix *const other = prefix_of(c, object, size);
            if (!other)
                break;
            usual = other;
        }
        /* The prefix ended inside a string, which ends before the object does; more than that isn't known. */
        const u8 *const symbol = object + usual->size;
        const uint64_t word = load64(symbol), quote = bytes_equal(word, '"');
        /* With the quote, since a symbol may hold a byte of 0; if there is none, that is a word which is never added. */
        const uint64_t mixed = (word & (quote ^ (quote - 1))) * SYMBOL_MIX, rest = mixed << SYMBOL_SETS_BITS;
        uint64_t *const set = looked_up + (mixed >> (63 - SYMBOL_SETS_BITS) & ~UINT64_C(1));
        const uint64_t newer = set[0] ^ rest, older = set[1] ^ rest;
        uint64_t number = newer < older ? newer : older;
        if (__builtin_expect(number >= shards_count, 0)) {
            const int shard_number = symbol_look_up(c, symbol, end);
            if (shard_number < 0)
                break;
            number = (uint64_t)shard_number;
            if (quote) {
                set[1] = set[0];
                set[0] = rest | number;
            }
        }
        shard *const s = shards + number;
        const uint64_t tail = s->tail;
        if (tail > s->limit)
            break;
        u8 *to = at_offset(c, tail);
        if (length32) {
            store32(to, (uint32_t)size);
            to += 4;
        }
        /* Most trades are shorter, and what is copied beyond is overwritten by the next: no branch on the size. */
        wide_copy(to, object);
        wide_copy(to + 64, object + 64);
        wide_copy(to + 128, object + 128);
        for (size_t at = 192; __builtin_expect(at < size, 0); at += 64)
            wide_copy(to + at, object + at);
        if (!length32)
            to[size] = '\n';
        s->tail = tail + size + (length32 ? 4 : 1);
        s->trades++;
        count++;
        behind = end;
        object = end + 1;
        /* Of the last one, it isn't known what follows. */
        in_step = brackets < last && count < most && end[0] == ',' && end[1] == '{';
    }
    if (!count)
        return;
    c->at = (uint64_t)(behind - message);
    c->expected = c->single && !c->inner ? AT_END : AT_DELIMITER;
    c->batch_left -= count;
    c->total.trades += count;
    c->total.trade_bytes += (uint64_t)(behind - start) - (count - 1); /* commas */
}
