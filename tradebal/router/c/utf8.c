/* Tells whether text is valid UTF-8 (RFC 3629): the shortest form of a code point that is no surrogate. */
#include "utf8.h"

/* Length of the multi-byte sequence at data[0]; 0 if it is invalid. */
static size_t sequence(const u8 *data, size_t size)
{
    const u8 lead = data[0];
    size_t length;
    u8 low = 0x80, high = 0xBF; /* range of the second byte, which is where overlong forms and surrogates show */
    if (lead >= 0xC2 && lead <= 0xDF) {
        length = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        length = 3;
        if (lead == 0xE0)
            low = 0xA0;
        else if (lead == 0xED)
            high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        length = 4;
        if (lead == 0xF0)
            low = 0x90;
        else if (lead == 0xF4)
            high = 0x8F;
    } else {
        return 0;
    }
    if (size < length || data[1] < low || data[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((data[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

bool utf8_valid(const u8 *data, size_t size)
{
    size_t at = 0;
    while (at < size) {
        while (size - at >= 64) {
            u8 any = 0;
            for (size_t i = 0; i < 64; i++)
                any |= data[at + i];
            if (any & 0x80)
                break;
            at += 64;
        }
        /* Up to where the wide loop may be worth another try. */
        const size_t stop = size - at < 64 ? size : at + 64;
        while (at < stop) {
            if (data[at] < 0x80) {
                at++;
                continue;
            }
            const size_t length = sequence(data + at, size - at);
            if (!length)
                return false;
            at += length;
        }
    }
    return true;
}
