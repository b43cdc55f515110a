/* Says which shard a symbol belongs to: by its pin, else by its hash. */
#include "core.h"

static const pin *pin_slot(const core *c, uint64_t number)
{
    return (const pin *)(const void *)at_offset(c, c->pins) + (number & (c->pin_slots - 1));
}

/* The symbol's inside may be escaped; its hash and unescaped size are known. */
static uint32_t place(const core *c, uint64_t hash, size_t unescaped, const u8 *inside, size_t size)
{
    if (c->pin_slots)
        for (uint64_t slot = hash; pin_slot(c, slot)->shard_plus_1; slot++) {
            const pin *p = pin_slot(c, slot);
            if (p->hash == hash && p->size == unescaped && json_equals(inside, size, at_offset(c, p->offset), p->size))
                return p->shard_plus_1 - 1;
        }
    return symbol_hashed(c, hash);
}

uint32_t symbol_place(const core *c, uint64_t hash, const u8 *symbol, size_t size)
{
    return place(c, hash, size, symbol, size);
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
        hash = fnv1a64_more(hash, piece, piece_size);
        unescaped += piece_size;
    }
    return more < 0 || !unescaped ? -1 : (int)place(c, hash, unescaped, inside, size);
}

void symbol_pin(core *c, uint64_t offset, uint32_t size, uint32_t number)
{
    const uint64_t hash = fnv1a64(at_offset(c, offset), size);
    uint64_t slot = hash;
    while (pin_slot(c, slot)->shard_plus_1)
        slot++;
    pin *p = (pin *)(uintptr_t)pin_slot(c, slot);
    p->hash = hash;
    p->offset = offset;
    p->size = size;
    p->shard_plus_1 = number + 1;
}
