/* What a vector header offers to the loops, and the parts of it that need no vectors.
 *
 * Each vector_….h is for one instruction set, and defines:
 *   WIDE_TARGET                     attribute that lets the compiler use its instructions
 *   wide_block                      64 bytes, loaded
 *   wide_load(text)                 load exactly 64 bytes
 *   wide_load_tail(text, n)         load n < 64 bytes, with spaces after them
 *   wide_quotes(block)              bit i: byte i is a quote
 *   wide_brackets(block)            bit i: byte i is a bracket, or differs from one only in the bits of BRACKET_FOLD
 *   wide_rare_masks(block, rare)    where backslashes, line feeds and bytes beyond ASCII are
 *   wide_sum, wide_none(), wide_add(sum, block), wide_plain(sum)
 *                                   whether blocks held neither backslashes nor control characters nor such bytes
 *   wide_prefix_xor(bits)           bit i of the result: xor of bits 0..i
 *   wide_places(to, at, bits)       write `at` + number for each of the bits, in order, and up to BRACKETS_SPARE more
 *   wide_copy(to, from)             copy 64 bytes
 *   wide_begins(text, bytes, mask)  whether PREFIX_SIZE bytes are equal where the mask is set
 */
#ifndef TRADEBAL_VECTOR_H
#define TRADEBAL_VECTOR_H

#include "words.h"
#include "sizes.h"

typedef struct {
    uint64_t backslash, newline, high;
} wide_rare_bits;

/* With these bits set, the four brackets are 0x7F; so are Y, _, y and DEL, but no JSON has these outside of strings. */
#define BRACKET_FOLD 0x26

/* Bits that a backslash before them takes the meaning from; *carry: the next block's first is one. */
static inline uint64_t escaped_bits(uint64_t backslash, uint64_t *carry)
{
    uint64_t escaped = *carry;
    *carry = 0;
    backslash &= ~escaped;
    while (backslash) {
        const uint64_t bit = backslash & (0 - backslash), next = bit << 1;
        if (!next)
            *carry = 1;
        escaped |= next;
        backslash &= ~(bit | next);
    }
    return escaped;
}

static inline unsigned lowest_bit(uint64_t bits)
{
    /* Of none, any answer will do. */
    return (unsigned)__builtin_ctzll(bits | UINT64_C(1) << 63);
}

static inline uint64_t prefix_xor_shifts(uint64_t bits)
{
    for (unsigned by = 1; by < 64; by *= 2)
        bits ^= bits << by;
    return bits;
}

/* As one word, since compilers that make a vector of the two spend more on that than it saves. */
static inline void store_pair(uint32_t *to, uint64_t first, uint64_t second)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    const uint64_t both = first << 32 | second;
#else
    const uint64_t both = second << 32 | first;
#endif
    memcpy(to, &both, sizeof both);
}

static inline uint32_t *places_one_by_one(uint32_t *to, uint32_t at, uint64_t bits)
{
    uint32_t *const end = to + __builtin_popcountll(bits);
    /* Four are written whether they are there or not, as in most blocks: how many there are can't be foreseen. */
    for (int pair = 0; pair < 2; pair++) {
        const uint64_t first = at + lowest_bit(bits);
        bits &= bits - 1;
        const uint64_t second = at + lowest_bit(bits);
        bits &= bits - 1;
        store_pair(to, first, second);
        to += 2;
    }
    for (; __builtin_expect(bits != 0, 0); bits &= bits - 1)
        *to++ = at + lowest_bit(bits);
    return end;
}

static inline bool begins_by_words(const u8 *text, const u8 *bytes, const u8 *mask)
{
    uint64_t differs = 0;
    for (size_t i = 0; i < PREFIX_SIZE; i += 8)
        differs |= (load64(text + i) ^ load64(bytes + i)) & load64(mask + i);
    return !differs;
}

static inline void copy_64(u8 *to, const u8 *from)
{
    memcpy(to, from, 64);
}

/* For instruction sets without masked loads. */
static inline void pad_tail(u8 padded[64], const u8 *text, size_t size)
{
    memset(padded, ' ', 64);
    memcpy(padded, text, size);
}

#endif
