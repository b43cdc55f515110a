/* Limits and buffer sizes of the router, each in one place. */
#ifndef TRADEBAL_SIZES_H
#define TRADEBAL_SIZES_H

#include <stddef.h>

#define MAX_RECORD ((size_t)1 << 20)
#define MAX_DEPTH 1024
#define MAX_SHARDS 1024
#define BATCH_TRADES 8192
#define BATCHES_KEPT 1024
#define SAMPLE_SIZE ((size_t)8 << 10)
#define SKIPPED_SAMPLE_SIZE ((size_t)256)

/* Staged bytes above which pump writes a shard before its turn comes, and the most that a shard holds. */
#define STAGE_THRESHOLD ((size_t)64 << 10)
#define STAGE_CAPACITY (STAGE_THRESHOLD + MAX_RECORD + ((size_t)4 << 10))

/* Receive buffer. */
#define RECEIVE_SIZE ((size_t)256 << 10)

/* Bytes behind each buffer that wide loads and stores may touch; their content means nothing. */
#define PADDING 256

/* Bytes of a message that are indexed at a time: with what is copied from them, they should stay in the L1 cache. */
#define WINDOW ((size_t)32 << 10)

#define BRACKETS_SPARE 16

/* Pinned symbols, and bytes of them all. */
#define MAX_PINS ((size_t)16384)
#define MAX_PINS_SIZE ((size_t)1 << 20)

#define MAX_PREFIXES 8
#define PREFIX_SIZE 32

#endif
