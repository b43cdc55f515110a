/* What waits for a shard's output. */
#ifndef TRADEBAL_SHARD_H
#define TRADEBAL_SHARD_H

#include "state.h"

/* Bytes of trades that were staged so far, with framing and without. */
uint64_t shard_staged(const core *c, uint32_t number);
uint64_t shard_bytes(const core *c, uint32_t number);

/* Where the shard's output goes, and whether that takes bytes. */
void shard_set_output(core *c, uint32_t number, int fd, bool stalled);

/* Make room for `size` more bytes behind tail, by writing (in pump) and moving; false if there is none. */
bool shard_room(core *c, uint32_t number, size_t size);
/* Stage a trade; the caller has made room. */
void shard_append(core *c, uint32_t number, const u8 *trade, size_t size);
/* Stage a record that is no trade, and isn't counted; false if there is no room. */
bool shard_inject(core *c, uint32_t number, const u8 *record, size_t size);
void shard_take(core *c, uint32_t number, size_t count);
/* Write what is staged if there is an output that isn't stalled. */
void shard_write(core *c, uint32_t number);
void shard_write_all(core *c);

#endif
