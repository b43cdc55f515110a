/* Says which shard a symbol belongs to: by its pin, else by its hash. */
#include "core.h"

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
    for (uint64_t slot = hash; symbol_maybe_pinned(c, slot); slot++) {
        const pin *p = pin_slot(c, slot);
        if (p->hash == hash && p->size == unescaped && json_equals(inside, size, at_offset(c, p->offset), p->size))
            return (int)p->shard_plus_1 - 1;
    }
    return (int)symbol_hash_shard(c, hash);
}

void symbol_pin(core *c, uint64_t offset, uint32_t size, uint32_t number)
{
    const uint64_t hash = fnv1a64(FNV_OFFSET_BASIS, at_offset(c, offset), size);
    uint64_t slot = hash;
    while (pin_slot(c, slot)->shard_plus_1)
        slot++;
    pin *p = pin_slot(c, slot);
    p->hash = hash;
    p->offset = offset;
    p->size = size;
    p->shard_plus_1 = number + 1;
}
