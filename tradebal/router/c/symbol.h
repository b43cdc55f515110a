/* Which shard a symbol belongs to: its pin, else its hash. */
#ifndef TRADEBAL_SYMBOL_H
#define TRADEBAL_SYMBOL_H

#include "state.h"

/* Shard of the symbol whose string has this inside; -1 if it is empty or an escape in it is invalid. */
int symbol_shard(const core *c, const u8 *inside, size_t size);
/* Slots for that many pins. */
uint64_t symbol_pin_slots(size_t pins);
/* Pin these symbols to these shards, and no others. */
void symbol_set_pins(core *c, const bytes_in *symbols, const uint32_t *shards, size_t count);

#endif
