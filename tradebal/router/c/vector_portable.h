/* 64 bytes as eight words, for any processor. */
#ifndef TRADEBAL_VECTOR_PORTABLE_H
#define TRADEBAL_VECTOR_PORTABLE_H

#include "vector.h"

#define WIDE_TARGET
#define wide_sum uint64_t
#define wide_places places_one_by_one
#define wide_prefix_xor prefix_xor_shifts
#define wide_copy copy_64
#define wide_begins begins_by_words

static inline uint64_t byte_bits(uint64_t sevens)
{
    /* The multiplication gathers bit 7 of each byte in the uppermost one. */
    return (sevens >> 7) * UINT64_C(0x0102040810204080) >> 56;
}

static inline uint64_t exact_equal(uint64_t word, u8 value)
{
    const uint64_t differs = word ^ EACH_BYTE * value, low = EACH_BYTE * 0x7F;
    return byte_bits(~(((differs & low) + low) | differs | low));
}

typedef struct {
    uint64_t words[8];
} wide_block;

static inline wide_block wide_load(const u8 *text)
{
    wide_block block;
    for (size_t i = 0; i < 8; i++)
        block.words[i] = load64(text + 8 * i);
    return block;
}

static inline uint64_t equal(wide_block block, u8 value)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < 8; i++)
        bits |= exact_equal(block.words[i], value) << (8 * i);
    return bits;
}

static inline void wide_rare_masks(wide_block block, wide_rare_bits *bits)
{
    bits->backslash = equal(block, '\\');
    bits->newline = equal(block, '\n');
    bits->high = 0;
    for (size_t i = 0; i < 8; i++)
        bits->high |= byte_bits(block.words[i] & EACH_BYTE << 7) << (8 * i);
}

static inline uint64_t wide_brackets(wide_block block)
{
    for (size_t i = 0; i < 8; i++)
        block.words[i] |= EACH_BYTE * BRACKET_FOLD;
    return equal(block, 0x7F);
}

static inline uint64_t wide_quotes(wide_block block)
{
    return equal(block, '"');
}

static inline uint64_t wide_none(void)
{
    return 0;
}

static inline uint64_t wide_add(uint64_t sum, wide_block block)
{
    for (size_t i = 0; i < 8; i++) {
        const uint64_t word = block.words[i], backslash = word ^ EACH_BYTE * '\\';
        /* Bit 7 of a byte, at least of the lowest one that is below 0x20, or from 0x80 on, or a backslash. */
        sum |= ((word - EACH_BYTE * 0x20) & ~word) | word | ((backslash - EACH_BYTE) & ~backslash);
    }
    return sum;
}

static inline bool wide_plain(uint64_t sum)
{
    return !(sum & EACH_BYTE << 7);
}

static inline wide_block wide_load_tail(const u8 *text, size_t size)
{
    u8 padded[64];
    pad_tail(padded, text, size);
    return wide_load(padded);
}

#endif
