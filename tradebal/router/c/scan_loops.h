/* Finds brackets 64 bytes at a time. A variant's source includes this after its vector header. */
#include "json.h"
#include "reasons.h"
#include "scan.h"

/* Index text that has nothing rare in it; false if it has. */
WIDE_TARGET static inline bool index_plain(const u8 *text, size_t size, json_index *index, uint32_t *brackets)
{
    uint64_t in_string = 0;
    uint32_t *to = brackets;
    wide_sum sum = wide_none();
    for (size_t at = 0; at < size; at += 64) {
        const wide_block block =
            __builtin_expect(size - at >= 64, 1) ? wide_load(text + at) : wide_load_tail(text + at, size - at);
        sum = wide_add(sum, block);
        const uint64_t string = wide_prefix_xor(wide_quotes(block)) ^ in_string;
        in_string = 0 - (string >> 63);
        to = wide_places(to, (uint32_t)at, wide_brackets(block) & ~string);
    }
    *index = (json_index){(size_t)(to - brackets), size, SIZE_MAX, SIZE_MAX, false};
    return wide_plain(sum);
}

WIDE_TARGET static void index_brackets(const u8 *text, size_t size, json_index *index, uint32_t *brackets)
{
    if (index_plain(text, size, index, brackets))
        return;
    uint64_t in_string = 0, escape = 0, high = 0;
    uint32_t *to = brackets;
    size_t at = 0, newline_at = SIZE_MAX, backslash_at = SIZE_MAX;
    for (; at < size; at += 64) {
        const wide_block block = size - at >= 64 ? wide_load(text + at) : wide_load_tail(text + at, size - at);
        wide_rare_bits rare;
        wide_rare_masks(block, &rare);
        high |= rare.high;
        if (rare.newline && newline_at == SIZE_MAX)
            newline_at = at + lowest_bit(rare.newline);
        if (rare.backslash && backslash_at == SIZE_MAX)
            backslash_at = at + lowest_bit(rare.backslash);
        const uint64_t quotes = wide_quotes(block) & ~escaped_bits(rare.backslash, &escape);
        const uint64_t string = wide_prefix_xor(quotes) ^ in_string, stray = rare.backslash & ~string;
        in_string = 0 - (string >> 63);
        uint64_t found = wide_brackets(block) & ~string;
        if (stray)
            found &= (stray & (0 - stray)) - 1;
        to = wide_places(to, (uint32_t)at, found);
        if (stray) {
            at += 64;
            break;
        }
    }
    *index = (json_index){(size_t)(to - brackets), at < size ? at : size, newline_at, backslash_at, high != 0};
}

WIDE_TARGET static size_t span_wide(const u8 *text, size_t size, int *reason)
{
    json_nesting nested = {0};
    uint64_t in_string = 0, escape = 0;
    for (size_t at = 0; at < size; at += 64) {
        const wide_block block = size - at >= 64 ? wide_load(text + at) : wide_load_tail(text + at, size - at);
        wide_rare_bits rare;
        wide_rare_masks(block, &rare);
        const uint64_t was_in_string = in_string, escape_before = escape;
        const uint64_t quotes = wide_quotes(block) & ~escaped_bits(rare.backslash, &escape);
        const uint64_t string = wide_prefix_xor(quotes) ^ in_string;
        if (rare.backslash & ~string)
            return json_span_bytewise(text, size, at, &nested, was_in_string != 0, escape_before != 0, reason);
        in_string = 0 - (string >> 63);
        for (uint64_t found = wide_brackets(block) & ~string; found; found &= found - 1) {
            const size_t place = at + lowest_bit(found);
            const int state = json_nest(&nested, text[place], reason);
            if (state != NEST_OPEN)
                return state == NEST_CLOSED ? place + 1 : 0;
        }
    }
    *reason = REASON_UNTERMINATED;
    return 0;
}
