/* Says which shard a symbol belongs to: by its pin, else by its hash. */
#include "core.h"

/* FNV-1a, 64 bits: Fowler, Noll, Vo, http://www.isthe.com/chongo/tech/comp/fnv/ */
#define FNV_OFFSET_BASIS UINT64_C(0xCBF29CE484222325)
#define FNV_PRIME UINT64_C(0x100000001B3)

static uint64_t fnv1a64(uint64_t hash, const u8 *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * FNV_PRIME;
    return hash;
}

static const pin *pin_slot(const core *c, uint64_t number)
{
    return (const pin *)(const void *)at_offset(c, c->pins) + (number & (c->pin_slots - 1));
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
    if (c->pin_slots)
        for (uint64_t slot = hash; pin_slot(c, slot)->shard_plus_1; slot++) {
            const pin *p = pin_slot(c, slot);
            if (p->hash == hash && p->size == unescaped && json_equals(inside, size, at_offset(c, p->offset), p->size))
                return (int)p->shard_plus_1 - 1;
        }
    return (int)((uint32_t)(hash >> 32) % c->shards);
}

void symbol_pin(core *c, uint64_t offset, uint32_t size, uint32_t number)
{
    const uint64_t hash = fnv1a64(FNV_OFFSET_BASIS, at_offset(c, offset), size);
    uint64_t slot = hash;
    while (pin_slot(c, slot)->shard_plus_1)
        slot++;
    pin *p = (pin *)(uintptr_t)pin_slot(c, slot);
    p->hash = hash;
    p->offset = offset;
    p->size = size;
    p->shard_plus_1 = number + 1;
}
