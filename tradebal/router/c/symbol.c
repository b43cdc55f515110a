/* Says which shard a symbol belongs to: by its pin, else by its hash. */
#include "symbol.h"

#include "json.h"

/* FNV-1a, 64 bits: Fowler, Noll, Vo, http://www.isthe.com/chongo/tech/comp/fnv/ */
#define FNV_OFFSET_BASIS UINT64_C(0xCBF29CE484222325)
#define FNV_PRIME UINT64_C(0x100000001B3)

static pin *pin_slot(const core *c, uint64_t number)
{
    return (pin *)(void *)at_offset(c, c->pins) + (number & (c->pin_slots - 1));
}

/* False of most hashes of symbols that aren't pinned. */
static bool maybe_pinned(const core *c, uint64_t hash)
{
    return c->pin_slots && pin_slot(c, hash)->shard_plus_1;
}

static uint64_t fnv1a64(uint64_t hash, const u8 *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * FNV_PRIME;
    return hash;
}

int symbol_shard(const core *c, const u8 *inside, size_t size)
{
    json_text text = {inside, inside + size};
    uint64_t hash = FNV_OFFSET_BASIS;
    size_t unescaped = 0, piece_size;
    const u8 *piece;
    u8 scratch[4];
    int more;
    while ((more = json_unescape(&text, scratch, &piece, &piece_size)) > 0) {
        hash = fnv1a64(hash, piece, piece_size);
        unescaped += piece_size;
    }
    if (more < 0 || !unescaped)
        return -1;
    for (uint64_t slot = hash; maybe_pinned(c, slot); slot++) {
        const pin *p = pin_slot(c, slot);
        if (p->hash == hash && p->size == unescaped && json_equals(inside, size, at_offset(c, p->offset), p->size))
            return (int)p->shard_plus_1 - 1;
    }
    return (int)((uint32_t)(hash >> 32) % c->shards);
}

/* Most of them stay free: a symbol whose slot is taken has to be compared, pinned or not. */
uint64_t symbol_pin_slots(size_t pins)
{
    uint64_t slots = pins ? 256 : 0;
    while (slots < 4 * pins)
        slots *= 2;
    return slots;
}

void symbol_set_pins(core *c, const bytes_in *symbols, const uint32_t *shards, size_t count)
{
    uint64_t offset = c->pin_symbols;
    memset(at_offset(c, c->pins), 0, c->pin_slots * sizeof(pin));
    /* What no shard's number is. */
    memset(at_offset(c, c->looked_up), 0xFF, LOOKED_UP_SIZE);
    c->pin_slots = symbol_pin_slots(count);
    for (size_t i = 0; i < count; i++) {
        const bytes_in symbol = symbols[i];
        const uint64_t hash = fnv1a64(FNV_OFFSET_BASIS, symbol.data, symbol.size);
        uint64_t slot = hash;
        while (pin_slot(c, slot)->shard_plus_1)
            slot++;
        if (symbol.size)
            memcpy(at_offset(c, offset), symbol.data, symbol.size);
        *pin_slot(c, slot) = (pin){hash, offset, (uint32_t)symbol.size, shards[i] + 1};
        offset += symbol.size;
    }
}
