/* Bytes and words in memory, whatever the machine's byte order. */
#ifndef TRADEBAL_WORDS_H
#define TRADEBAL_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;

typedef struct {
    const u8 *data;
    size_t size;
} bytes_in;

static inline uint64_t load64(const u8 *from)
{
    uint64_t word;
    memcpy(&word, from, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline void store32(u8 *to, uint32_t value)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    memcpy(to, &value, 4);
}

#define EACH_BYTE UINT64_C(0x0101010101010101)

/* 0x80 in the lowest byte that has this value; what stands in higher bytes is of no use. */
static inline uint64_t bytes_equal(uint64_t word, u8 value)
{
    const uint64_t differs = word ^ EACH_BYTE * value;
    return (differs - EACH_BYTE) & ~differs & EACH_BYTE << 7;
}

#endif
