/* The loops over 64 bytes at a time, for one kind of machine. Not a header in its own right: json.c includes it once
 * for each kind, with these defined:
 *   WIDE(name)                       the function's name for this kind
 *   WIDE_TARGET                      attribute that lets the compiler use the kind's instructions
 *   wide_masks(text, masks)          bit i of each mask is about text[i], i = 0..63; reads exactly 64 bytes
 *   wide_masks_tail(text, n, masks)  the same for n < 64 bytes; the other bits are 0
 *   wide_prefix_xor(bits)            bit i of the result: xor of bits 0..i
 *   wide_copy(to, from)              copy 64 bytes
 *   wide_begins(text, prefix)        whether the text begins so; reads PREFIX_SIZE bytes
 */

WIDE_TARGET static void WIDE(index)(const u8 *text, size_t size, json_index *index, uint32_t *ends)
{
    /* A borrow out of subtraction carries "inside" from an opening bracket's bit up to its closing one's, and over into
     * the next block, just as the prefix xor does it for quotes, which look the same at both ends. */
    uint64_t in_string = 0, in_object = 0, in_array = 0, escape = 0;
    uint64_t high = 0, newline = 0;
    size_t count = 0, at = 0, stop = size;
    for (; at < size; at += 64) {
        wide_bits bits;
        if (size - at >= 64)
            wide_masks(text + at, &bits);
        else
            wide_masks_tail(text + at, size - at, &bits);
        uint64_t quote = bits.quote;
        if (bits.backslash | escape)
            quote &= ~escaped_bits(bits.backslash, &escape);
        const uint64_t string = wide_prefix_xor(quote) ^ in_string;
        in_string = 0 - (string >> 63);
        const uint64_t open = bits.open & ~string, close = bits.close & ~string;
        const uint64_t object_open = open & bits.curly, object_close = close & bits.curly;
        const uint64_t array_open = open & ~bits.curly, array_close = close & ~bits.curly;
        const uint64_t object = object_close - object_open - in_object;
        const uint64_t array = array_close - array_open - in_array;
        in_object = object >> 63;
        in_array = array >> 63;
        /* An opening bracket inside its like, a closing one outside, any curly one in an array; and a backslash that
         * stands in no string escapes nothing. */
        const uint64_t irregular = (object_open & ~object) | (object_close & object) | (array_open & ~array) |
                                   (array_close & array) | ((object_open | object_close) & array) |
                                   (bits.backslash & ~string);
        high |= bits.high;
        uint64_t found = object_close;
        if (irregular) {
            const uint64_t before = (irregular & (0 - irregular)) - 1;
            found &= before;
            bits.newline &= before;
        }
        newline |= bits.newline;
        const uint32_t base = (uint32_t)at;
        const size_t more = (size_t)__builtin_popcountll(found);
        /* Two are written whether they are there or not: how many there are can't be foreseen. */
        ends[count] = base + lowest_bit(found);
        found &= found - 1;
        ends[count + 1] = base + lowest_bit(found);
        found &= found - 1;
        for (size_t i = count + 2; found; i++) {
            ends[i] = base + lowest_bit(found);
            found &= found - 1;
        }
        count += more;
        if (irregular) {
            stop = at + lowest_bit(irregular);
            at += 64;
            break;
        }
    }
    index->count = count;
    index->stop = stop;
    index->seen = at < size ? at : size;
    index->non_ascii = high != 0;
    index->newline = newline != 0;
}

WIDE_TARGET static size_t WIDE(span)(const u8 *text, size_t size, int *reason)
{
    nesting nested = {0};
    uint64_t in_string = 0, escape = 0;
    for (size_t at = 0; at < size; at += 64) {
        wide_bits bits;
        if (size - at >= 64)
            wide_masks(text + at, &bits);
        else
            wide_masks_tail(text + at, size - at, &bits);
        const uint64_t was_in_string = in_string, escape_before = escape;
        uint64_t quote = bits.quote;
        if (bits.backslash | escape)
            quote &= ~escaped_bits(bits.backslash, &escape);
        const uint64_t string = wide_prefix_xor(quote) ^ in_string;
        if (bits.backslash & ~string)
            return span_bytewise(text, size, at, &nested, was_in_string != 0, escape_before != 0, reason);
        in_string = 0 - (string >> 63);
        for (uint64_t brackets = (bits.open | bits.close) & ~string; brackets; brackets &= brackets - 1) {
            const size_t end = nest(&nested, text, at + lowest_bit(brackets), reason);
            if (end)
                return end == NEST_FAILED ? 0 : end;
        }
    }
    *reason = REASON_UNTERMINATED;
    return 0;
}

WIDE_TARGET static void WIDE(run)(core *c, const u8 *message)
{
    const uint32_t *ends = (const uint32_t *)(const void *)at_offset(c, c->ends) + c->ends_next;
    size_t left = (size_t)(c->ends_count - c->ends_next);
    if (left > c->batch_left - 1)
        left = (size_t)(c->batch_left - 1);
    /* Behind a message's one object, a comma is no separator. */
    if (c->single && !c->inner && left > 1)
        left = 1;
    const u8 *const window = message + c->window;
    const u8 *object = message + c->at;
    const uint64_t *keys = (const uint64_t *)(const void *)at_offset(c, c->symbol_keys);
    const uint16_t *numbers = (const uint16_t *)(const void *)at_offset(c, c->symbol_shards);
    shard *const shards = shard_at(c, 0);
    const bool length32 = c->framing == FRAMING_LENGTH32;
    const prefix *usual = c->prefixes;
    size_t count = 0;
    uint64_t bytes = 0;
    bool delimiter = false;
    while (count < left) {
        const size_t size = (size_t)(window + ends[count] + 1 - object);
        if (!wide_begins(object, usual)) {
            const prefix *other = prefix_of(c, object, size);
            if (!other)
                break;
            usual = other;
        }
        /* The prefix ended inside a string, which ends before the object does; more than that isn't known. */
        const u8 *symbol = object + usual->size;
        const uint64_t word = load64(symbol);
        const uint64_t quote = bytes_equal(word, '"');
        size_t number;
        if (quote && !(bytes_equal(word, '\\') & (quote - 1))) {
            const unsigned symbol_size = lowest_bit(quote) >> 3;
            const uint64_t key = symbol_key(word, symbol_size);
            const size_t slot = symbol_slot(key);
            number = numbers[slot];
            if (keys[slot] != key) {
                const int found = symbol_shard(c, symbol, symbol_size);
                if (found < 0)
                    break;
                number = (size_t)found;
                symbol_remember(c, slot, key, number);
            }
        } else {
            if (size <= usual->size)
                break;
            const size_t symbol_size = plain_string(symbol, (size_t)(object + size - symbol));
            if (!symbol_size)
                break;
            number = (size_t)symbol_shard(c, symbol, symbol_size);
        }
        shard *const s = shards + number;
        if (s->tail - s->base + size + 4 > STAGE_THRESHOLD)
            break;
        u8 *to = at_offset(c, s->tail);
        if (length32) {
            store32(to, (uint32_t)size);
            to += 4;
        }
        /* Most trades are shorter, and what is copied beyond is overwritten by the next; so no branch on the size. */
        wide_copy(to, object);
        wide_copy(to + 64, object + 64);
        wide_copy(to + 128, object + 128);
        for (size_t at = 192; at < size; at += 64)
            wide_copy(to + at, object + at);
        to += size;
        if (!length32)
            *to++ = '\n';
        s->tail = (uint64_t)(to - at_offset(c, 0));
        s->trades++;
        s->bytes += size;
        c->dirty[number] = 1;
        bytes += size;
        count++;
        object += size;
        if (count == left || object[0] != ',' || object[1] != '{') {
            delimiter = true;
            break;
        }
        object++;
    }
    c->at = (uint64_t)(object - message);
    if (delimiter)
        c->expected = c->single && !c->inner ? AT_END : AT_DELIMITER;
    c->ends_next += count;
    c->batch_left -= count;
    c->total.trades += count;
    c->total.trade_bytes += bytes;
}
