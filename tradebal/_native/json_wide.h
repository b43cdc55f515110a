/* The loops over 64 bytes at a time, for one kind of machine. Not a header in its own right: json.c includes it once
 * for each kind, with these defined:
 *   WIDE(name)                     the function's name for this kind
 *   WIDE_TARGET                    attribute that lets the compiler use the kind's instructions
 *   wide_block                     64 bytes, loaded
 *   wide_load(text)                load exactly 64 bytes
 *   wide_load_tail(text, n)        load n < 64 bytes, and spaces behind them
 *   wide_masks(block, bits)        bit i of each mask is about byte i
 *   wide_rare_masks(block, bits)   the same for what `bits.rare` said is there
 *   wide_prefix_xor(bits)          bit i of the result: xor of bits 0..i
 *   wide_lowest(bits)              number of the lowest bit; anything below 256 if there is none
 *   wide_copy(to, from)            copy 64 bytes
 *   wide_begins(text, prefix)      whether the text begins so; reads PREFIX_SIZE bytes
 */

WIDE_TARGET static void WIDE(index)(const u8 *text, size_t size, json_index *index, uint32_t *brackets)
{
    uint64_t in_string = 0, escape = 0, high = 0;
    size_t count = 0, at = 0, newline_at = SIZE_MAX;
    for (; at < size; at += 64) {
        const wide_block block = size - at >= 64 ? wide_load(text + at) : wide_load_tail(text + at, size - at);
        wide_bits bits;
        wide_masks(block, &bits);
        uint64_t quote = bits.quote, stray = 0;
        if (__builtin_expect((bits.rare | escape) != 0, 0)) {
            wide_rare_bits rare;
            wide_rare_masks(block, &rare);
            quote &= ~escaped_bits(rare.backslash, &escape);
            stray = rare.backslash & ~(wide_prefix_xor(quote) ^ in_string);
            high |= rare.high;
            if (rare.newline && newline_at == SIZE_MAX)
                newline_at = at + lowest_bit(rare.newline);
        }
        const uint64_t string = wide_prefix_xor(quote) ^ in_string;
        in_string = 0 - (string >> 63);
        uint64_t found = bits.bracket & ~string;
        if (__builtin_expect(stray != 0, 0))
            found &= (stray & (0 - stray)) - 1;
        const size_t more = (size_t)__builtin_popcountll(found);
        /* Four are written whether they are there or not, as in most blocks: how many there are can't be foreseen. */
        uint32_t *to = brackets + count;
        for (size_t i = 0; i < 2; i++) {
            const uint64_t first = at + wide_lowest(found);
            found &= found - 1;
            const uint64_t second = at + wide_lowest(found);
            found &= found - 1;
            store_pair(to + 2 * i, first, second);
        }
        for (to += 4; __builtin_expect(found != 0, 0); to++) {
            *to = (uint32_t)at + wide_lowest(found);
            found &= found - 1;
        }
        count += more;
        if (__builtin_expect(stray != 0, 0)) {
            at += 64;
            break;
        }
    }
    index->count = count;
    index->seen = at < size ? at : size;
    index->non_ascii = high != 0;
    index->newline_at = newline_at;
}

WIDE_TARGET static size_t WIDE(span)(const u8 *text, size_t size, int *reason)
{
    json_nesting nested = {0};
    uint64_t in_string = 0, escape = 0;
    for (size_t at = 0; at < size; at += 64) {
        const wide_block block = size - at >= 64 ? wide_load(text + at) : wide_load_tail(text + at, size - at);
        wide_bits bits;
        wide_masks(block, &bits);
        const uint64_t was_in_string = in_string, escape_before = escape;
        uint64_t quote = bits.quote, backslash = 0;
        if (bits.rare | escape) {
            wide_rare_bits rare;
            wide_rare_masks(block, &rare);
            backslash = rare.backslash;
            quote &= ~escaped_bits(backslash, &escape);
        }
        const uint64_t string = wide_prefix_xor(quote) ^ in_string;
        if (backslash & ~string)
            return span_bytewise(text, size, at, &nested, was_in_string != 0, escape_before != 0, reason);
        in_string = 0 - (string >> 63);
        for (uint64_t found = bits.bracket & ~string; found; found &= found - 1) {
            const size_t place = at + lowest_bit(found);
            const int state = json_nest(&nested, text[place], reason);
            if (state != NEST_OPEN)
                return state == NEST_CLOSED ? place + 1 : 0;
        }
    }
    *reason = REASON_UNTERMINATED;
    return 0;
}

/* Hash symbols of up to 7 bytes, each in a word that ends in zeros: without branches, so that the compiler hashes as
 * many side by side as the machine has lanes. */
WIDE_TARGET static void WIDE(hash)(const uint64_t words[GROUP], const uint64_t sizes[GROUP], uint64_t hashes[GROUP])
{
    for (size_t i = 0; i < GROUP; i++) {
        uint64_t hash = FNV_OFFSET_BASIS, word = words[i];
        for (uint64_t byte = 0; byte < 7; byte++) {
            const uint64_t next = (hash ^ (word & 0xFF)) * FNV_PRIME;
            hash = byte < sizes[i] ? next : hash;
            word >>= 8;
        }
        hashes[i] = hash;
    }
}

WIDE_TARGET static void WIDE(run)(core *c, const u8 *message)
{
    const uint32_t *brackets = (const uint32_t *)(const void *)at_offset(c, c->brackets) + c->brackets_next;
    const uint32_t *const last = brackets + (c->brackets_usual - c->brackets_next);
    /* The one that completes a batch takes the careful path; so does what follows a message's one object. */
    const size_t left = (size_t)(c->batch_left - 1), most = c->single && !c->inner && left ? 1 : left;
    const u8 *const window = message + c->window;
    const u8 *next = message + c->at, *behind = next;
    const bool length32 = c->framing == FRAMING_LENGTH32;
    const prefix *usual = c->prefixes;
    size_t count = 0;
    uint64_t bytes = 0;
    bool in_step = true;
    while (in_step && count < most) {
        /* First look at a group of objects, then hash their symbols, then copy them: each loop has little to wait for
         * and few branches. */
        const u8 *objects[GROUP], *ends[GROUP], *symbols[GROUP];
        uint64_t words[GROUP], sizes[GROUP], hashes[GROUP];
        size_t grouped = 0;
        bool long_symbols = false;
        while (in_step && grouped < GROUP && count + grouped < most) {
            /* {} or {[]}: what is nested otherwise takes the careful path. There are always four to be read. */
            const bool flat = window[brackets[1]] == '}';
            const bool usually_nested =
                (window[brackets[1]] == '[') & (window[brackets[2]] == ']') & (window[brackets[3]] == '}');
            const uint32_t *const others = brackets + (flat ? 2 : 4);
            in_step = false;
            if (!(flat | usually_nested) || others > last)
                break;
            const u8 *const end = window + others[-1] + 1;
            if (!wide_begins(next, usual)) {
                const prefix *other = prefix_of(c, next, (size_t)(end - next));
                if (!other)
                    break;
                usual = other;
            }
            /* The prefix ended inside a string, which ends before the object does; more than that isn't known. */
            const u8 *const symbol = next + usual->size;
            const uint64_t word = load64(symbol), quote = bytes_equal(word, '"');
            uint64_t size = wide_lowest(quote) >> 3;
            if (!quote || bytes_equal(word, '\\') & (quote - 1)) {
                size = symbol < end ? plain_string(symbol, (size_t)(end - symbol)) : 0;
                long_symbols = true;
            }
            if (!size)
                break;
            objects[grouped] = next;
            ends[grouped] = end;
            symbols[grouped] = symbol;
            words[grouped] = word;
            sizes[grouped] = size;
            grouped++;
            brackets = others;
            next = end + 1;
            /* Of the last one, it isn't known what follows. */
            in_step = brackets < last && end[0] == ',' && end[1] == '{';
        }
        for (size_t i = grouped; i < GROUP; i++)
            words[i] = sizes[i] = 0;
        WIDE(hash)(words, sizes, hashes);
        if (long_symbols)
            for (size_t i = 0; i < grouped; i++)
                if (sizes[i] > 7)
                    hashes[i] = fnv1a64(symbols[i], sizes[i]);
        for (size_t i = 0; i < grouped; i++) {
            const uint32_t number =
                c->pin_slots ? symbol_place(c, hashes[i], symbols[i], sizes[i]) : symbol_hashed(c, hashes[i]);
            const u8 *const from = objects[i];
            const size_t size = (size_t)(ends[i] - from);
            shard *const s = shard_at(c, number);
            if (s->tail + size + 4 > s->limit) {
                in_step = false;
                break;
            }
            u8 *to = at_offset(c, s->tail);
            if (length32) {
                store32(to, (uint32_t)size);
                to += 4;
            }
            /* Most trades are shorter, and what is copied beyond is overwritten by the next: no branch on the size. */
            wide_copy(to, from);
            wide_copy(to + 64, from + 64);
            wide_copy(to + 128, from + 128);
            for (size_t at = 192; __builtin_expect(at < size, 0); at += 64)
                wide_copy(to + at, from + at);
            to += size;
            if (!length32)
                *to++ = '\n';
            s->tail = (uint64_t)(to - at_offset(c, 0));
            s->trades++;
            s->bytes += size;
            c->dirty[number] = 1;
            bytes += size;
            count++;
            behind = ends[i];
        }
    }
    if (!count)
        return;
    c->at = (uint64_t)(behind - message);
    c->expected = c->single && !c->inner ? AT_END : AT_DELIMITER;
    c->batch_left -= count;
    c->total.trades += count;
    c->total.trade_bytes += bytes;
}
