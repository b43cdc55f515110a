/* 64 bytes in two registers of AVX2, with the bit instructions that such processors have. */
#ifndef TRADEBAL_VECTOR_AVX2_H
#define TRADEBAL_VECTOR_AVX2_H

#include "vector.h"

#include <immintrin.h>

#define WIDE_TARGET __attribute__((target("avx2,bmi,bmi2,popcnt,pclmul")))

typedef struct {
    __m256i low, high;
} wide_block;

WIDE_TARGET static inline wide_block wide_load(const u8 *text)
{
    const wide_block block = {_mm256_loadu_si256((const __m256i *)(const void *)text),
                              _mm256_loadu_si256((const __m256i *)(const void *)(text + 32))};
    return block;
}

WIDE_TARGET static inline wide_block wide_load_tail(const u8 *text, size_t size)
{
    u8 padded[64];
    pad_tail(padded, text, size);
    return wide_load(padded);
}

WIDE_TARGET static inline uint64_t signs(__m256i low, __m256i high)
{
    return (uint64_t)(uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

WIDE_TARGET static inline uint64_t equal(wide_block block, char value)
{
    const __m256i wanted = _mm256_set1_epi8(value);
    return signs(_mm256_cmpeq_epi8(block.low, wanted), _mm256_cmpeq_epi8(block.high, wanted));
}

WIDE_TARGET static inline void wide_rare_masks(wide_block block, wide_rare_bits *bits)
{
    bits->backslash = equal(block, '\\');
    bits->newline = equal(block, '\n');
    bits->high = signs(block.low, block.high);
}

WIDE_TARGET static inline uint64_t wide_brackets(wide_block block)
{
    const __m256i fold = _mm256_set1_epi8(BRACKET_FOLD);
    const wide_block folded = {_mm256_or_si256(block.low, fold), _mm256_or_si256(block.high, fold)};
    return equal(folded, 0x7F);
}

WIDE_TARGET static inline uint64_t wide_quotes(wide_block block)
{
    return equal(block, '"');
}

/* The lowest byte, signed, so that those from 0x80 on are the lowest; and the lowest of their xor with a backslash. */
typedef struct {
    __m256i byte, apart;
} wide_sum;

WIDE_TARGET static inline wide_sum wide_none(void)
{
    const wide_sum sum = {_mm256_set1_epi8(0x7F), _mm256_set1_epi8(0x7F)};
    return sum;
}

WIDE_TARGET static inline wide_sum wide_add(wide_sum sum, wide_block block)
{
    const __m256i backslash = _mm256_set1_epi8('\\');
    sum.byte = _mm256_min_epi8(sum.byte, _mm256_min_epi8(block.low, block.high));
    const __m256i apart =
        _mm256_min_epu8(_mm256_xor_si256(block.low, backslash), _mm256_xor_si256(block.high, backslash));
    sum.apart = _mm256_min_epu8(sum.apart, apart);
    return sum;
}

WIDE_TARGET static inline bool wide_plain(wide_sum sum)
{
    const __m256i rare = _mm256_or_si256(_mm256_cmpgt_epi8(_mm256_set1_epi8(0x20), sum.byte),
                                         _mm256_cmpeq_epi8(sum.apart, _mm256_setzero_si256()));
    return _mm256_testz_si256(rare, rare);
}

WIDE_TARGET static inline uint64_t wide_prefix_xor(uint64_t bits)
{
    /* Carry-less multiplication by all ones. */
    const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)bits), _mm_set1_epi8((char)0xFF), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

WIDE_TARGET static inline unsigned lowest_tzcnt(uint64_t bits)
{
    return (unsigned)_tzcnt_u64(bits);
}

WIDE_TARGET static inline uint32_t *wide_places(uint32_t *to, uint32_t at, uint64_t bits)
{
    uint32_t *const end = to + _mm_popcnt_u64(bits);
    /* As in places_one_by_one. */
    for (int pair = 0; pair < 2; pair++) {
        const uint64_t first = at + lowest_tzcnt(bits);
        bits = _blsr_u64(bits);
        const uint64_t second = at + lowest_tzcnt(bits);
        bits = _blsr_u64(bits);
        store_pair(to, first, second);
        to += 2;
    }
    for (; __builtin_expect(bits != 0, 0); bits = _blsr_u64(bits))
        *to++ = at + lowest_tzcnt(bits);
    return end;
}

WIDE_TARGET static inline void wide_copy(u8 *to, const u8 *from)
{
    const wide_block block = wide_load(from);
    _mm256_storeu_si256((__m256i *)(void *)to, block.low);
    _mm256_storeu_si256((__m256i *)(void *)(to + 32), block.high);
}

WIDE_TARGET static inline bool wide_begins(const u8 *text, const u8 *bytes, const u8 *mask)
{
    const __m256i t = _mm256_loadu_si256((const __m256i *)(const void *)text);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)bytes);
    const __m256i m = _mm256_loadu_si256((const __m256i *)(const void *)mask);
    return _mm256_testz_si256(_mm256_xor_si256(t, b), m);
}

#endif
