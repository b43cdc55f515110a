/* 64 bytes in four registers of NEON, which every 64-bit ARM has. */
#ifndef TRADEBAL_VECTOR_NEON_H
#define TRADEBAL_VECTOR_NEON_H

#include "vector.h"

#include <arm_neon.h>

#define WIDE_TARGET
#define wide_sum uint8x16_t
#define wide_places places_one_by_one
#define wide_prefix_xor prefix_xor_shifts
#define wide_copy copy_64
#define wide_begins begins_by_words

typedef struct {
    uint8x16_t v[4];
} wide_block;

static inline wide_block wide_load(const u8 *text)
{
    wide_block block;
    for (size_t i = 0; i < 4; i++)
        block.v[i] = vld1q_u8(text + 16 * i);
    return block;
}

static inline wide_block wide_load_tail(const u8 *text, size_t size)
{
    u8 padded[64];
    pad_tail(padded, text, size);
    return wide_load(padded);
}

static inline uint64_t gather(wide_block flags)
{
    /* Each byte is 0 or 0xFF. Three pairwise additions bring a bit of each together. */
    static const u8 weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t weight = vld1q_u8(weights);
    const uint8x16_t low = vpaddq_u8(vandq_u8(flags.v[0], weight), vandq_u8(flags.v[1], weight));
    const uint8x16_t high = vpaddq_u8(vandq_u8(flags.v[2], weight), vandq_u8(flags.v[3], weight));
    const uint8x16_t four = vpaddq_u8(low, high);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(four, four)), 0);
}

static inline uint64_t equal(wide_block block, u8 value)
{
    for (size_t i = 0; i < 4; i++)
        block.v[i] = vceqq_u8(block.v[i], vdupq_n_u8(value));
    return gather(block);
}

static inline void wide_rare_masks(wide_block block, wide_rare_bits *bits)
{
    bits->backslash = equal(block, '\\');
    bits->newline = equal(block, '\n');
    for (size_t i = 0; i < 4; i++)
        block.v[i] = vtstq_u8(block.v[i], vdupq_n_u8(0x80));
    bits->high = gather(block);
}

static inline uint64_t wide_brackets(wide_block block)
{
    for (size_t i = 0; i < 4; i++)
        block.v[i] = vorrq_u8(block.v[i], vdupq_n_u8(BRACKET_FOLD));
    return equal(block, 0x7F);
}

static inline uint64_t wide_quotes(wide_block block)
{
    return equal(block, '"');
}

static inline uint8x16_t wide_none(void)
{
    return vdupq_n_u8(0);
}

static inline uint8x16_t wide_add(uint8x16_t sum, wide_block block)
{
    for (size_t i = 0; i < 4; i++) {
        /* Signed: control characters and bytes from 0x80 on. */
        sum = vorrq_u8(sum, vcltq_s8(vreinterpretq_s8_u8(block.v[i]), vdupq_n_s8(0x20)));
        sum = vorrq_u8(sum, vceqq_u8(block.v[i], vdupq_n_u8('\\')));
    }
    return sum;
}

static inline bool wide_plain(uint8x16_t sum)
{
    return !vmaxvq_u8(sum);
}

#endif
