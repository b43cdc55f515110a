/* 64 bytes in four registers of SSE2, which every x86-64 has. */
#ifndef TRADEBAL_VECTOR_SSE2_H
#define TRADEBAL_VECTOR_SSE2_H

#include "vector.h"

#include <immintrin.h>

#define WIDE_TARGET
#define wide_sum __m128i
#define wide_none _mm_setzero_si128
#define wide_places places_one_by_one
#define wide_prefix_xor prefix_xor_shifts
#define wide_copy copy_64

typedef struct {
    __m128i v[4];
} wide_block;

static inline wide_block wide_load(const u8 *text)
{
    wide_block block;
    for (size_t i = 0; i < 4; i++)
        block.v[i] = _mm_loadu_si128((const __m128i *)(const void *)(text + 16 * i));
    return block;
}

static inline wide_block wide_load_tail(const u8 *text, size_t size)
{
    u8 padded[64];
    pad_tail(padded, text, size);
    return wide_load(padded);
}

static inline uint64_t equal(wide_block block, char value)
{
    const __m128i wanted = _mm_set1_epi8(value);
    uint64_t bits = 0;
    for (unsigned i = 0; i < 4; i++)
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block.v[i], wanted)) << (16 * i);
    return bits;
}

static inline void wide_rare_masks(wide_block block, wide_rare_bits *bits)
{
    bits->backslash = equal(block, '\\');
    bits->newline = equal(block, '\n');
    bits->high = 0;
    for (unsigned i = 0; i < 4; i++)
        bits->high |= (uint64_t)(uint32_t)_mm_movemask_epi8(block.v[i]) << (16 * i);
}

static inline uint64_t wide_brackets(wide_block block)
{
    for (size_t i = 0; i < 4; i++)
        block.v[i] = _mm_or_si128(block.v[i], _mm_set1_epi8(BRACKET_FOLD));
    return equal(block, 0x7F);
}

static inline uint64_t wide_quotes(wide_block block)
{
    return equal(block, '"');
}

static inline __m128i wide_add(__m128i sum, wide_block block)
{
    for (size_t i = 0; i < 4; i++) {
        /* Signed: control characters and bytes from 0x80 on. */
        sum = _mm_or_si128(sum, _mm_cmplt_epi8(block.v[i], _mm_set1_epi8(0x20)));
        sum = _mm_or_si128(sum, _mm_cmpeq_epi8(block.v[i], _mm_set1_epi8('\\')));
    }
    return sum;
}

static inline bool wide_plain(__m128i sum)
{
    return !_mm_movemask_epi8(sum);
}

static inline bool wide_begins(const u8 *text, const u8 *bytes, const u8 *mask)
{
    __m128i differs = _mm_setzero_si128();
    for (size_t i = 0; i < PREFIX_SIZE; i += 16) {
        const __m128i t = _mm_loadu_si128((const __m128i *)(const void *)(text + i));
        const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(bytes + i));
        const __m128i m = _mm_loadu_si128((const __m128i *)(const void *)(mask + i));
        differs = _mm_or_si128(differs, _mm_and_si128(_mm_xor_si128(t, b), m));
    }
    return _mm_movemask_epi8(_mm_cmpeq_epi8(differs, _mm_setzero_si128())) == 0xFFFF;
}

#endif
