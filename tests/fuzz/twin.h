/* The Python router, in a process of its own. */
#ifndef FUZZ_TWIN_H
#define FUZZ_TWIN_H

#include <stdbool.h>

#include "bytes.h"

/* Add what the Python router makes of the input to *result. The process is that of $TRADEBAL_TWIN; returns false if
 * there is no such variable. */
bool twin(const uint8_t *data, size_t size, bytes *result);

#endif
