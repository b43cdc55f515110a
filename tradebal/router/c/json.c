/* Finds where JSON values begin and end, by their structure alone. */
#include "core.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* ---- byte by byte: what stands between trades and inside the unusual ones ---- */

size_t json_string(const u8 *text, size_t size)
{
    for (size_t i = 1; i < size; i++) {
        if (text[i] == '"')
            return i + 1;
        if (text[i] == '\\')
            i++;
    }
    return 0;
}

size_t json_scalar(const u8 *text, size_t size)
{
    size_t i = 0;
    while (i < size && !json_space(text[i]) && !memchr(",]}[{\":", text[i], 7))
        i++;
    return i;
}

size_t json_value(const u8 *text, size_t size, int *reason)
{
    size_t length;
    if (size && (text[0] == '{' || text[0] == '['))
        return json->span(text, size, reason);
    if (size && text[0] == '"') {
        length = json_string(text, size);
        *reason = REASON_UNTERMINATED;
    } else {
        length = json_scalar(text, size);
        *reason = REASON_NO_VALUE;
    }
    return length;
}

int json_next_member(const u8 *object, size_t size, size_t *at, json_member *member)
{
    size_t i = json_skip(object, *at ? *at : 1, size);
    if (i == size)
        return -1;
    if (object[i] == '}')
        return 0;
    if (*at) {
        if (object[i] != ',')
            return -1;
        i = json_skip(object, i + 1, size);
    }
    if (i == size || object[i] != '"')
        return -1;
    const size_t key = json_string(object + i, size - i);
    if (!key)
        return -1;
    member->key = object + i + 1;
    member->key_size = key - 2;
    i = json_skip(object, i + key, size);
    if (i == size || object[i] != ':')
        return -1;
    i = json_skip(object, i + 1, size);
    int reason;
    const size_t value = json_value(object + i, size - i, &reason);
    if (!value)
        return -1;
    member->value = object + i;
    member->value_size = value;
    *at = i + value;
    return 1;
}

bool json_newline_in_string(const u8 *object, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (object[i] == '"') {
            const size_t length = json_string(object + i, size - i);
            if (!length)
                return false;
            if (memchr(object + i, '\n', length))
                return true;
            i += length - 1;
        }
    return false;
}

static int hex_digit(u8 byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    const u8 lower = byte | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The 16 bits of a \uXXXX at text[0]; -1 if there is none. */
static int32_t code_unit(const u8 *text, size_t size)
{
    if (size < 6 || text[0] != '\\' || text[1] != 'u')
        return -1;
    int32_t unit = 0;
    for (size_t i = 2; i < 6; i++) {
        const int digit = hex_digit(text[i]);
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

static size_t encode_utf8(uint32_t point, u8 to[4])
{
    if (point < 0x80) {
        to[0] = (u8)point;
        return 1;
    }
    const size_t size = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const u8 leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = size - 1; i; i--) {
        to[i] = (u8)(0x80 | (point & 0x3F));
        point >>= 6;
    }
    to[0] = (u8)(leads[size] | point);
    return size;
}

int json_unescape(json_text *text, u8 scratch[4], const u8 **piece, size_t *size)
{
    const size_t left = (size_t)(text->end - text->at);
    if (!left)
        return 0;
    if (text->at[0] != '\\') {
        const u8 *backslash = memchr(text->at, '\\', left);
        *piece = text->at;
        *size = backslash ? (size_t)(backslash - text->at) : left;
        text->at += *size;
        return 1;
    }
    if (left < 2)
        return -1;
    *piece = scratch;
    if (text->at[1] != 'u') {
        static const u8 names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
        const u8 *name = memchr(names, text->at[1], sizeof names - 1);
        if (!name)
            return -1;
        scratch[0] = values[name - names];
        *size = 1;
        text->at += 2;
        return 1;
    }
    const int32_t unit = code_unit(text->at, left);
    if (unit < 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
        return -1;
    uint32_t point = (uint32_t)unit;
    text->at += 6;
    if (unit >= 0xD800 && unit <= 0xDBFF) {
        const int32_t low = code_unit(text->at, left - 6);
        if (low < 0xDC00 || low > 0xDFFF)
            return -1;
        point = 0x10000 + ((point - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
        text->at += 6;
    }
    *size = encode_utf8(point, scratch);
    return 1;
}

bool json_equals(const u8 *inside, size_t size, const u8 *bytes, size_t bytes_size)
{
    json_text text = {inside, inside + size};
    const u8 *piece;
    size_t piece_size;
    u8 scratch[4];
    int more;
    while ((more = json_unescape(&text, scratch, &piece, &piece_size)) > 0) {
        if (piece_size > bytes_size || memcmp(piece, bytes, piece_size))
            return false;
        bytes += piece_size;
        bytes_size -= piece_size;
    }
    return !more && !bytes_size;
}

/* ---- brackets ---- */

int json_nest(json_nesting *nested, u8 byte, int *reason)
{
    const uint64_t curly = byte >> 5 & 1;
    if (byte == '{' || byte == '[') {
        if (nested->depth == MAX_DEPTH) {
            *reason = REASON_TOO_DEEP;
            return NEST_FAILED;
        }
        uint64_t *word = nested->curly + nested->depth / 64;
        const unsigned bit = nested->depth % 64;
        *word = (*word & ~(UINT64_C(1) << bit)) | curly << bit;
        nested->depth++;
        return NEST_OPEN;
    }
    if (byte != '}' && byte != ']')
        return NEST_OPEN;
    nested->depth--;
    if ((nested->curly[nested->depth / 64] >> nested->depth % 64 & 1) != curly) {
        *reason = REASON_MISMATCHED;
        return NEST_FAILED;
    }
    return nested->depth ? NEST_OPEN : NEST_CLOSED;
}

static size_t span_bytewise(const u8 *text, size_t size, size_t at, json_nesting *nested, bool in_string, bool escape,
                            int *reason)
{
    for (; at < size; at++) {
        const u8 byte = text[at];
        if (in_string) {
            if (escape)
                escape = false;
            else if (byte == '\\')
                escape = true;
            else if (byte == '"')
                in_string = false;
        } else if (byte == '"') {
            in_string = true;
        } else {
            const int state = json_nest(nested, byte, reason);
            if (state != NEST_OPEN)
                return state == NEST_CLOSED ? at + 1 : 0;
        }
    }
    *reason = REASON_UNTERMINATED;
    return 0;
}

/* ---- 64 bytes at a time ---- */

typedef struct {
    uint64_t backslash, newline, high;
} wide_rare_bits;

/* With these bits set, the four brackets are 0x7F; so are Y, _, y and DEL, but no JSON has these outside of strings. */
#define BRACKET_FOLD 0x26

/* Bits that a backslash before them takes the meaning from; *carry: the next block's first is one. */
static inline uint64_t escaped_bits(uint64_t backslash, uint64_t *carry)
{
    uint64_t escaped = *carry;
    *carry = 0;
    backslash &= ~escaped;
    while (backslash) {
        const uint64_t bit = backslash & (0 - backslash), next = bit << 1;
        if (!next)
            *carry = 1;
        escaped |= next;
        backslash &= ~(bit | next);
    }
    return escaped;
}

static inline unsigned lowest_bit(uint64_t bits)
{
    /* Of none, any answer will do. */
    return (unsigned)__builtin_ctzll(bits | UINT64_C(1) << 63);
}

static inline uint64_t prefix_xor_shifts(uint64_t bits)
{
    for (unsigned by = 1; by < 64; by *= 2)
        bits ^= bits << by;
    return bits;
}

static inline uint64_t load64(const u8 *from)
{
    uint64_t word;
    memcpy(&word, from, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline void store32(u8 *to, uint32_t value)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    memcpy(to, &value, 4);
}

/* As one word, since compilers that make a vector of the two spend more on that than it saves. */
static inline void store_pair(uint32_t *to, uint64_t first, uint64_t second)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    const uint64_t both = first << 32 | second;
#else
    const uint64_t both = second << 32 | first;
#endif
    memcpy(to, &both, sizeof both);
}

static inline uint32_t *places_one_by_one(uint32_t *to, uint32_t at, uint64_t bits)
{
    uint32_t *const end = to + __builtin_popcountll(bits);
    /* Four are written whether they are there or not, as in most blocks: how many there are can't be foreseen. */
    for (int pair = 0; pair < 2; pair++) {
        const uint64_t first = at + lowest_bit(bits);
        bits &= bits - 1;
        const uint64_t second = at + lowest_bit(bits);
        bits &= bits - 1;
        store_pair(to, first, second);
        to += 2;
    }
    for (; __builtin_expect(bits != 0, 0); bits &= bits - 1)
        *to++ = at + lowest_bit(bits);
    return end;
}

#define EACH_BYTE UINT64_C(0x0101010101010101)

/* 0x80 in the lowest byte that has this value; what stands in higher bytes is of no use. */
static inline uint64_t bytes_equal(uint64_t word, u8 value)
{
    const uint64_t differs = word ^ EACH_BYTE * value;
    return (differs - EACH_BYTE) & ~differs & EACH_BYTE << 7;
}

/* Shard of the symbol that begins here and has no escapes; -1 if it is empty, or doesn't end before `end`. */
static int symbol_look_up(const core *c, const u8 *symbol, const u8 *end)
{
    const u8 *quote = symbol < end ? memchr(symbol, '"', (size_t)(end - symbol)) : NULL;
    return quote ? symbol_shard(c, symbol, (size_t)(quote - symbol)) : -1;
}

static inline bool begins_portable(const u8 *text, const prefix *with)
{
    uint64_t differs = 0;
    for (size_t i = 0; i < PREFIX_SIZE; i += 8)
        differs |= (load64(text + i) ^ load64(with->bytes + i)) & load64(with->mask + i);
    return !differs;
}

/* The usual beginning that this object has; NULL if none. */
static const prefix *prefix_of(const core *c, const u8 *object, size_t size)
{
    for (uint64_t i = 0; i < c->prefixes_count; i++) {
        const prefix *p = c->prefixes + i;
        if (size > p->size && !memcmp(object, p->bytes, p->size))
            return p;
    }
    return NULL;
}

static inline uint64_t byte_bits(uint64_t sevens)
{
    /* The multiplication gathers bit 7 of each byte in the uppermost one. */
    return (sevens >> 7) * UINT64_C(0x0102040810204080) >> 56;
}

static inline uint64_t exact_equal(uint64_t word, u8 value)
{
    const uint64_t differs = word ^ EACH_BYTE * value, low = EACH_BYTE * 0x7F;
    return byte_bits(~(((differs & low) + low) | differs | low));
}

typedef struct {
    uint64_t words[8];
} block_portable;

static inline block_portable load_portable(const u8 *text)
{
    block_portable block;
    for (size_t i = 0; i < 8; i++)
        block.words[i] = load64(text + 8 * i);
    return block;
}

static inline uint64_t equal_portable(block_portable block, u8 value)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < 8; i++)
        bits |= exact_equal(block.words[i], value) << (8 * i);
    return bits;
}

static inline void rare_portable(block_portable block, wide_rare_bits *bits)
{
    bits->backslash = equal_portable(block, '\\');
    bits->newline = equal_portable(block, '\n');
    bits->high = 0;
    for (size_t i = 0; i < 8; i++)
        bits->high |= byte_bits(block.words[i] & EACH_BYTE << 7) << (8 * i);
}

static inline uint64_t brackets_portable(block_portable block)
{
    for (size_t i = 0; i < 8; i++)
        block.words[i] |= EACH_BYTE * BRACKET_FOLD;
    return equal_portable(block, 0x7F);
}

static inline uint64_t quotes_portable(block_portable block)
{
    return equal_portable(block, '"');
}

static inline uint64_t none_portable(void)
{
    return 0;
}

static inline uint64_t add_portable(uint64_t sum, block_portable block)
{
    for (size_t i = 0; i < 8; i++) {
        const uint64_t word = block.words[i], backslash = word ^ EACH_BYTE * '\\';
        /* Bit 7 of a byte, at least of the lowest one that is below 0x20, or from 0x80 on, or a backslash. */
        sum |= ((word - EACH_BYTE * 0x20) & ~word) | word | ((backslash - EACH_BYTE) & ~backslash);
    }
    return sum;
}

static inline bool plain_portable(uint64_t sum)
{
    return !(sum & EACH_BYTE << 7);
}

static inline void copy_portable(u8 *to, const u8 *from)
{
    memcpy(to, from, 64);
}

/* For those that have no masked loads. */
static inline void pad_tail(u8 padded[64], const u8 *text, size_t size)
{
    memset(padded, ' ', 64);
    memcpy(padded, text, size);
}

static inline block_portable tail_portable(const u8 *text, size_t size)
{
    u8 padded[64];
    pad_tail(padded, text, size);
    return load_portable(padded);
}

#define WIDE(name) portable_##name
#define WIDE_TARGET
#define wide_block block_portable
#define wide_load load_portable
#define wide_load_tail tail_portable
#define wide_quotes quotes_portable
#define wide_brackets brackets_portable
#define wide_rare_masks rare_portable
#define wide_sum uint64_t
#define wide_none none_portable
#define wide_add add_portable
#define wide_plain plain_portable
#define wide_places places_one_by_one
#define wide_prefix_xor prefix_xor_shifts
#define wide_copy copy_portable
#define wide_begins begins_portable
#include "json_wide.h"

#undef WIDE
#undef wide_block
#undef wide_load
#undef wide_load_tail
#undef wide_quotes
#undef wide_brackets
#undef wide_rare_masks
#undef wide_sum
#undef wide_none
#undef wide_add
#undef wide_plain

#if defined(__x86_64__)

typedef struct {
    __m128i v[4];
} block_sse2;

static inline block_sse2 load_sse2(const u8 *text)
{
    block_sse2 block;
    for (size_t i = 0; i < 4; i++)
        block.v[i] = _mm_loadu_si128((const __m128i *)(const void *)(text + 16 * i));
    return block;
}

static inline block_sse2 tail_sse2(const u8 *text, size_t size)
{
    u8 padded[64];
    pad_tail(padded, text, size);
    return load_sse2(padded);
}

static inline uint64_t equal_sse2(block_sse2 block, char value)
{
    const __m128i wanted = _mm_set1_epi8(value);
    uint64_t bits = 0;
    for (unsigned i = 0; i < 4; i++)
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block.v[i], wanted)) << (16 * i);
    return bits;
}

static inline void rare_sse2(block_sse2 block, wide_rare_bits *bits)
{
    bits->backslash = equal_sse2(block, '\\');
    bits->newline = equal_sse2(block, '\n');
    bits->high = 0;
    for (unsigned i = 0; i < 4; i++)
        bits->high |= (uint64_t)(uint32_t)_mm_movemask_epi8(block.v[i]) << (16 * i);
}

static inline uint64_t brackets_sse2(block_sse2 block)
{
    for (size_t i = 0; i < 4; i++)
        block.v[i] = _mm_or_si128(block.v[i], _mm_set1_epi8(BRACKET_FOLD));
    return equal_sse2(block, 0x7F);
}

static inline uint64_t quotes_sse2(block_sse2 block)
{
    return equal_sse2(block, '"');
}

static inline __m128i add_sse2(__m128i sum, block_sse2 block)
{
    for (size_t i = 0; i < 4; i++) {
        /* Signed: control characters and bytes from 0x80 on. */
        sum = _mm_or_si128(sum, _mm_cmplt_epi8(block.v[i], _mm_set1_epi8(0x20)));
        sum = _mm_or_si128(sum, _mm_cmpeq_epi8(block.v[i], _mm_set1_epi8('\\')));
    }
    return sum;
}

static inline bool plain_sse2(__m128i sum)
{
    return !_mm_movemask_epi8(sum);
}

static inline bool begins_sse2(const u8 *text, const prefix *with)
{
    __m128i differs = _mm_setzero_si128();
    for (size_t i = 0; i < PREFIX_SIZE; i += 16) {
        const __m128i t = _mm_loadu_si128((const __m128i *)(const void *)(text + i));
        const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(with->bytes + i));
        const __m128i m = _mm_loadu_si128((const __m128i *)(const void *)(with->mask + i));
        differs = _mm_or_si128(differs, _mm_and_si128(_mm_xor_si128(t, b), m));
    }
    return _mm_movemask_epi8(_mm_cmpeq_epi8(differs, _mm_setzero_si128())) == 0xFFFF;
}

#undef wide_begins
#define WIDE(name) sse2_##name
#define wide_block block_sse2
#define wide_load load_sse2
#define wide_load_tail tail_sse2
#define wide_quotes quotes_sse2
#define wide_brackets brackets_sse2
#define wide_rare_masks rare_sse2
#define wide_sum __m128i
#define wide_none _mm_setzero_si128
#define wide_add add_sse2
#define wide_plain plain_sse2
#define wide_begins begins_sse2
#include "json_wide.h"

#undef WIDE
#undef WIDE_TARGET
#undef wide_block
#undef wide_load
#undef wide_load_tail
#undef wide_quotes
#undef wide_brackets
#undef wide_rare_masks
#undef wide_sum
#undef wide_none
#undef wide_add
#undef wide_plain
#undef wide_prefix_xor
#undef wide_places
#undef wide_copy
#undef wide_begins

#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt,pclmul")))

typedef struct {
    __m256i low, high;
} block_avx2;

AVX2 static inline block_avx2 load_avx2(const u8 *text)
{
    const block_avx2 block = {_mm256_loadu_si256((const __m256i *)(const void *)text),
                              _mm256_loadu_si256((const __m256i *)(const void *)(text + 32))};
    return block;
}

AVX2 static inline block_avx2 tail_avx2(const u8 *text, size_t size)
{
    u8 padded[64];
    pad_tail(padded, text, size);
    return load_avx2(padded);
}

AVX2 static inline uint64_t signs_avx2(__m256i low, __m256i high)
{
    return (uint64_t)(uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

AVX2 static inline uint64_t equal_avx2(block_avx2 block, char value)
{
    const __m256i wanted = _mm256_set1_epi8(value);
    return signs_avx2(_mm256_cmpeq_epi8(block.low, wanted), _mm256_cmpeq_epi8(block.high, wanted));
}

AVX2 static inline void rare_avx2(block_avx2 block, wide_rare_bits *bits)
{
    bits->backslash = equal_avx2(block, '\\');
    bits->newline = equal_avx2(block, '\n');
    bits->high = signs_avx2(block.low, block.high);
}

AVX2 static inline uint64_t brackets_avx2(block_avx2 block)
{
    const __m256i fold = _mm256_set1_epi8(BRACKET_FOLD);
    const block_avx2 folded = {_mm256_or_si256(block.low, fold), _mm256_or_si256(block.high, fold)};
    return equal_avx2(folded, 0x7F);
}

AVX2 static inline uint64_t quotes_avx2(block_avx2 block)
{
    return equal_avx2(block, '"');
}

/* The lowest byte, signed, so that those from 0x80 on are the lowest; and the lowest of their xor with a backslash. */
typedef struct {
    __m256i byte, apart;
} sum_avx2;

AVX2 static inline sum_avx2 none_avx2(void)
{
    const sum_avx2 sum = {_mm256_set1_epi8(0x7F), _mm256_set1_epi8(0x7F)};
    return sum;
}

AVX2 static inline sum_avx2 add_avx2(sum_avx2 sum, block_avx2 block)
{
    const __m256i backslash = _mm256_set1_epi8('\\');
    sum.byte = _mm256_min_epi8(sum.byte, _mm256_min_epi8(block.low, block.high));
    const __m256i apart =
        _mm256_min_epu8(_mm256_xor_si256(block.low, backslash), _mm256_xor_si256(block.high, backslash));
    sum.apart = _mm256_min_epu8(sum.apart, apart);
    return sum;
}

AVX2 static inline bool plain_avx2(sum_avx2 sum)
{
    const __m256i rare = _mm256_or_si256(_mm256_cmpgt_epi8(_mm256_set1_epi8(0x20), sum.byte),
                                         _mm256_cmpeq_epi8(sum.apart, _mm256_setzero_si256()));
    return _mm256_testz_si256(rare, rare);
}

AVX2 static inline uint64_t prefix_xor_clmul(uint64_t bits)
{
    /* Carry-less multiplication by all ones. */
    const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)bits), _mm_set1_epi8((char)0xFF), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

AVX2 static inline unsigned lowest_tzcnt(uint64_t bits)
{
    return (unsigned)_tzcnt_u64(bits);
}

AVX2 static inline uint32_t *places_avx2(uint32_t *to, uint32_t at, uint64_t bits)
{
    uint32_t *const end = to + _mm_popcnt_u64(bits);
    /* As in places_one_by_one. */
    for (int pair = 0; pair < 2; pair++) {
        const uint64_t first = at + lowest_tzcnt(bits);
        bits = _blsr_u64(bits);
        const uint64_t second = at + lowest_tzcnt(bits);
        bits = _blsr_u64(bits);
        store_pair(to, first, second);
        to += 2;
    }
    for (; __builtin_expect(bits != 0, 0); bits = _blsr_u64(bits))
        *to++ = at + lowest_tzcnt(bits);
    return end;
}

AVX2 static inline void copy_avx2(u8 *to, const u8 *from)
{
    const block_avx2 block = load_avx2(from);
    _mm256_storeu_si256((__m256i *)(void *)to, block.low);
    _mm256_storeu_si256((__m256i *)(void *)(to + 32), block.high);
}

AVX2 static inline bool begins_avx2(const u8 *text, const prefix *with)
{
    const __m256i t = _mm256_loadu_si256((const __m256i *)(const void *)text);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)with->bytes);
    const __m256i m = _mm256_loadu_si256((const __m256i *)(const void *)with->mask);
    return _mm256_testz_si256(_mm256_xor_si256(t, b), m);
}

#define WIDE(name) avx2_##name
#define WIDE_TARGET AVX2
#define wide_block block_avx2
#define wide_load load_avx2
#define wide_load_tail tail_avx2
#define wide_quotes quotes_avx2
#define wide_brackets brackets_avx2
#define wide_rare_masks rare_avx2
#define wide_sum sum_avx2
#define wide_none none_avx2
#define wide_add add_avx2
#define wide_plain plain_avx2
#define wide_places places_avx2
#define wide_prefix_xor prefix_xor_clmul
#define wide_copy copy_avx2
#define wide_begins begins_avx2
#include "json_wide.h"

#elif defined(__aarch64__)

typedef struct {
    uint8x16_t v[4];
} block_neon;

static inline block_neon load_neon(const u8 *text)
{
    block_neon block;
    for (size_t i = 0; i < 4; i++)
        block.v[i] = vld1q_u8(text + 16 * i);
    return block;
}

static inline block_neon tail_neon(const u8 *text, size_t size)
{
    u8 padded[64];
    pad_tail(padded, text, size);
    return load_neon(padded);
}

static inline uint64_t gather_neon(block_neon flags)
{
    /* Each byte is 0 or 0xFF. Three pairwise additions bring a bit of each together. */
    static const u8 weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t weight = vld1q_u8(weights);
    const uint8x16_t low = vpaddq_u8(vandq_u8(flags.v[0], weight), vandq_u8(flags.v[1], weight));
    const uint8x16_t high = vpaddq_u8(vandq_u8(flags.v[2], weight), vandq_u8(flags.v[3], weight));
    const uint8x16_t four = vpaddq_u8(low, high);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(four, four)), 0);
}

static inline uint64_t equal_neon(block_neon block, u8 value)
{
    for (size_t i = 0; i < 4; i++)
        block.v[i] = vceqq_u8(block.v[i], vdupq_n_u8(value));
    return gather_neon(block);
}

static inline void rare_neon(block_neon block, wide_rare_bits *bits)
{
    bits->backslash = equal_neon(block, '\\');
    bits->newline = equal_neon(block, '\n');
    for (size_t i = 0; i < 4; i++)
        block.v[i] = vtstq_u8(block.v[i], vdupq_n_u8(0x80));
    bits->high = gather_neon(block);
}

static inline uint64_t brackets_neon(block_neon block)
{
    for (size_t i = 0; i < 4; i++)
        block.v[i] = vorrq_u8(block.v[i], vdupq_n_u8(BRACKET_FOLD));
    return equal_neon(block, 0x7F);
}

static inline uint64_t quotes_neon(block_neon block)
{
    return equal_neon(block, '"');
}

static inline uint8x16_t none_neon(void)
{
    return vdupq_n_u8(0);
}

static inline uint8x16_t add_neon(uint8x16_t sum, block_neon block)
{
    for (size_t i = 0; i < 4; i++) {
        /* Signed: control characters and bytes from 0x80 on. */
        sum = vorrq_u8(sum, vcltq_s8(vreinterpretq_s8_u8(block.v[i]), vdupq_n_s8(0x20)));
        sum = vorrq_u8(sum, vceqq_u8(block.v[i], vdupq_n_u8('\\')));
    }
    return sum;
}

static inline bool plain_neon(uint8x16_t sum)
{
    return !vmaxvq_u8(sum);
}

#define WIDE(name) neon_##name
#define wide_block block_neon
#define wide_load load_neon
#define wide_load_tail tail_neon
#define wide_quotes quotes_neon
#define wide_brackets brackets_neon
#define wide_rare_masks rare_neon
#define wide_sum uint8x16_t
#define wide_none none_neon
#define wide_add add_neon
#define wide_plain plain_neon
#include "json_wide.h"

#endif

/* ---- choice ---- */

#define VARIANT(name) {#name, name##_index, name##_span, name##_run}

static const json_variant variants[] = {
#if defined(__x86_64__)
    VARIANT(avx2),
    VARIANT(sse2),
#elif defined(__aarch64__)
    VARIANT(neon),
#endif
    VARIANT(portable),
};

#define VARIANTS (sizeof variants / sizeof variants[0])

static const json_variant *usable[VARIANTS];
static const char *names[VARIANTS + 1];

const json_variant *json = &variants[VARIANTS - 1];

static bool machine_has(const char *name)
{
#if defined(__x86_64__)
    if (!strcmp(name, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
               __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("pclmul");
#endif
    (void)name;
    return true;
}

__attribute__((constructor)) static void choose(void)
{
    size_t count = 0;
    for (size_t i = 0; i < VARIANTS; i++)
        if (machine_has(variants[i].name)) {
            usable[count] = &variants[i];
            names[count++] = variants[i].name;
        }
    json = usable[0];
}

bool json_use_variant(const char *name)
{
    for (size_t i = 0; names[i]; i++)
        if (!strcmp(names[i], name)) {
            json = usable[i];
            return true;
        }
    return false;
}

const char *const *json_variants(void)
{
    return names;
}
