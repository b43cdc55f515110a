/* The loops over 64 bytes at a time, for one kind of machine. Not a header in its own right: json.c includes it once
 * for each kind, with these defined:
 *   WIDE(name)                      the function's name for this kind
 *   WIDE_TARGET                     attribute that lets the compiler use the kind's instructions
 *   wide_block                      64 bytes, loaded
 *   wide_load(text)                 load exactly 64 bytes
 *   wide_load_tail(text, n)         load n < 64 bytes, and spaces behind them
 *   wide_quotes(block)              bit i: byte i is a quote
 *   wide_brackets(block)            bit i: byte i is a bracket, or differs from one only in the bits of BRACKET_FOLD
 *   wide_rare_masks(block, rare)    where backslashes, line feeds and bytes beyond ASCII are
 *   wide_sum, wide_none(), wide_add(sum, block), wide_plain(sum)
 *                                   whether blocks held neither backslashes nor control characters nor such bytes
 *   wide_prefix_xor(bits)           bit i of the result: xor of bits 0..i
 *   wide_places(to, at, bits)       write `at` + number for each of the bits, in order, and up to BRACKETS_SPARE more
 *   wide_copy(to, from)             copy 64 bytes
 *   wide_begins(text, prefix)       whether the text begins so; reads PREFIX_SIZE bytes
 */

/* Index text that has nothing rare in it; false if it has. */
WIDE_TARGET static inline bool WIDE(index_plain)(const u8 *text, size_t size, json_index *index, uint32_t *brackets)
{
    uint64_t in_string = 0;
    uint32_t *to = brackets;
    wide_sum sum = wide_none();
    for (size_t at = 0; at < size; at += 64) {
        const wide_block block =
            __builtin_expect(size - at >= 64, 1) ? wide_load(text + at) : wide_load_tail(text + at, size - at);
        sum = wide_add(sum, block);
        const uint64_t string = wide_prefix_xor(wide_quotes(block)) ^ in_string;
        in_string = 0 - (string >> 63);
        to = wide_places(to, (uint32_t)at, wide_brackets(block) & ~string);
    }
    *index = (json_index){(size_t)(to - brackets), size, SIZE_MAX, SIZE_MAX, false};
    return wide_plain(sum);
}

WIDE_TARGET static void WIDE(index)(const u8 *text, size_t size, json_index *index, uint32_t *brackets)
{
    if (WIDE(index_plain)(text, size, index, brackets))
        return;
    uint64_t in_string = 0, escape = 0, high = 0;
    uint32_t *to = brackets;
    size_t at = 0, newline_at = SIZE_MAX, backslash_at = SIZE_MAX;
    for (; at < size; at += 64) {
        const wide_block block = size - at >= 64 ? wide_load(text + at) : wide_load_tail(text + at, size - at);
        wide_rare_bits rare;
        wide_rare_masks(block, &rare);
        high |= rare.high;
        if (rare.newline && newline_at == SIZE_MAX)
            newline_at = at + lowest_bit(rare.newline);
        if (rare.backslash && backslash_at == SIZE_MAX)
            backslash_at = at + lowest_bit(rare.backslash);
        const uint64_t quotes = wide_quotes(block) & ~escaped_bits(rare.backslash, &escape);
        const uint64_t string = wide_prefix_xor(quotes) ^ in_string, stray = rare.backslash & ~string;
        in_string = 0 - (string >> 63);
        uint64_t found = wide_brackets(block) & ~string;
        if (stray)
            found &= (stray & (0 - stray)) - 1;
        to = wide_places(to, (uint32_t)at, found);
        if (stray) {
            at += 64;
            break;
        }
    }
    *index = (json_index){(size_t)(to - brackets), at < size ? at : size, newline_at, backslash_at, high != 0};
}

WIDE_TARGET static size_t WIDE(span)(const u8 *text, size_t size, int *reason)
{
    json_nesting nested = {0};
    uint64_t in_string = 0, escape = 0;
    for (size_t at = 0; at < size; at += 64) {
        const wide_block block = size - at >= 64 ? wide_load(text + at) : wide_load_tail(text + at, size - at);
        wide_rare_bits rare;
        wide_rare_masks(block, &rare);
        const uint64_t was_in_string = in_string, escape_before = escape;
        const uint64_t quotes = wide_quotes(block) & ~escaped_bits(rare.backslash, &escape);
        const uint64_t string = wide_prefix_xor(quotes) ^ in_string;
        if (rare.backslash & ~string)
            return span_bytewise(text, size, at, &nested, was_in_string != 0, escape_before != 0, reason);
        in_string = 0 - (string >> 63);
        for (uint64_t found = wide_brackets(block) & ~string; found; found &= found - 1) {
            const size_t place = at + lowest_bit(found);
            const int state = json_nest(&nested, text[place], reason);
            if (state != NEST_OPEN)
                return state == NEST_CLOSED ? place + 1 : 0;
        }
    }
    *reason = REASON_UNTERMINATED;
    return 0;
}

WIDE_TARGET static void WIDE(run)(core *c, const u8 *message)
{
    const uint32_t *brackets = (const uint32_t *)(const void *)at_offset(c, c->brackets) + c->brackets_next;
    const uint32_t *const last = brackets + (c->brackets_usual - c->brackets_next);
    /* The one that completes a batch takes the careful path; so does what follows a message's one object. */
    const size_t left = (size_t)(c->batch_left - 1), most = c->single && !c->inner && left ? 1 : left;
    const u8 *const window = message + c->window, *const start = message + c->at;
    const bool length32 = c->framing == FRAMING_LENGTH32;
    const prefix *usual = c->prefixes;
    shard *const shards = shard_at(c, 0);
    const uint64_t shards_count = c->shards;
    uint64_t *const looked_up = (uint64_t *)(void *)at_offset(c, c->looked_up);
    const u8 *object = start, *behind = start;
    size_t count = 0;
    for (bool in_step = most > 0; in_step;) {
        /* {} or {[]}: what is nested otherwise takes the careful path. There are always four to be read. */
        const u8 first = window[brackets[1]];
        const unsigned differs = (unsigned)((first ^ '[') | (window[brackets[2]] ^ ']') | (window[brackets[3]] ^ '}'));
        unsigned nested = first != '}';
        /* Which one it is can't be foreseen, so the compiler must not make a branch of it. */
        __asm__("" : "+r"(nested));
        brackets += 2 + 2 * nested;
        if ((differs & (0 - nested)) || brackets > last)
            break;
        const u8 *const end = window + brackets[-1] + 1;
        const size_t size = (size_t)(end - object);
        if (!wide_begins(object, usual)) {
            const prefix *const other = prefix_of(c, object, size);
            if (!other)
                break;
            usual = other;
        }
        /* The prefix ended inside a string, which ends before the object does; more than that isn't known. */
        const u8 *const symbol = object + usual->size;
        const uint64_t word = load64(symbol), quote = bytes_equal(word, '"');
        /* With the quote, since a symbol may hold a byte of 0; if there is none, that is a word which is never added. */
        const uint64_t mixed = (word & (quote ^ (quote - 1))) * SYMBOL_MIX, rest = mixed << SYMBOL_SETS_BITS;
        uint64_t *const set = looked_up + (mixed >> (63 - SYMBOL_SETS_BITS) & ~UINT64_C(1));
        const uint64_t newer = set[0] ^ rest, older = set[1] ^ rest;
        uint64_t number = newer < older ? newer : older;
        if (__builtin_expect(number >= shards_count, 0)) {
            const int shard_number = symbol_look_up(c, symbol, end);
            if (shard_number < 0)
                break;
            number = (uint64_t)shard_number;
            if (quote) {
                set[1] = set[0];
                set[0] = rest | number;
            }
        }
        shard *const s = shards + number;
        const uint64_t tail = s->tail;
        if (tail > s->limit)
            break;
        u8 *to = at_offset(c, tail);
        if (length32) {
            store32(to, (uint32_t)size);
            to += 4;
        }
        /* Most trades are shorter, and what is copied beyond is overwritten by the next: no branch on the size. */
        wide_copy(to, object);
        wide_copy(to + 64, object + 64);
        wide_copy(to + 128, object + 128);
        for (size_t at = 192; __builtin_expect(at < size, 0); at += 64)
            wide_copy(to + at, object + at);
        if (!length32)
            to[size] = '\n';
        s->tail = tail + size + (length32 ? 4 : 1);
        s->trades++;
        count++;
        behind = end;
        object = end + 1;
        /* Of the last one, it isn't known what follows. */
        in_step = brackets < last && count < most && end[0] == ',' && end[1] == '{';
    }
    if (!count)
        return;
    c->at = (uint64_t)(behind - message);
    c->expected = c->single && !c->inner ? AT_END : AT_DELIMITER;
    c->batch_left -= count;
    c->total.trades += count;
    c->total.trade_bytes += (uint64_t)(behind - start) - (count - 1); /* commas */
}
