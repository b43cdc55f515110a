/* Validation of UTF-8 (RFC 3629). */
#ifndef TRADEBAL_UTF8_H
#define TRADEBAL_UTF8_H

#include "words.h"

bool utf8_valid(const u8 *data, size_t size);

#endif
