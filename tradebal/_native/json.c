/* Finds where JSON values begin and end, by their structure alone. */
#include "core.h"

#include <stdlib.h>

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

typedef struct {
    size_t depth;
    uint64_t curly[MAX_DEPTH / 64]; /* a bit for each open bracket, outermost first */
} nesting;

#define NEST_FAILED SIZE_MAX

/* Take the bracket at text[at] into account. Returns the length up to and with it if it closes the outermost one, 0 if
 * not, NEST_FAILED with *reason. */
static inline size_t nest(nesting *nested, const u8 *text, size_t at, int *reason)
{
    const u8 bracket = text[at];
    const uint64_t curly = bracket >> 5 & 1;
    if (bracket == '{' || bracket == '[') {
        if (nested->depth == MAX_DEPTH) {
            *reason = REASON_TOO_DEEP;
            return NEST_FAILED;
        }
        uint64_t *word = nested->curly + nested->depth / 64;
        const unsigned bit = nested->depth % 64;
        *word = (*word & ~(UINT64_C(1) << bit)) | curly << bit;
        nested->depth++;
        return 0;
    }
    nested->depth--;
    if ((nested->curly[nested->depth / 64] >> nested->depth % 64 & 1) != curly) {
        *reason = REASON_MISMATCHED;
        return NEST_FAILED;
    }
    return nested->depth ? 0 : at + 1;
}

static size_t span_bytewise(const u8 *text, size_t size, size_t at, nesting *nested, bool in_string, bool escape,
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
        } else if (byte == '{' || byte == '}' || byte == '[' || byte == ']') {
            const size_t end = nest(nested, text, at, reason);
            if (end)
                return end == NEST_FAILED ? 0 : end;
        }
    }
    *reason = REASON_UNTERMINATED;
    return 0;
}

/* ---- 64 bytes at a time ---- */

typedef struct {
    uint64_t quote, backslash, open, close, curly, newline, high;
} wide_bits;

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

#define EACH_BYTE UINT64_C(0x0101010101010101)

/* 0x80 in the lowest byte that has this value; what stands in higher bytes is of no use. */
static inline uint64_t bytes_equal(uint64_t word, u8 value)
{
    const uint64_t differs = word ^ EACH_BYTE * value;
    return (differs - EACH_BYTE) & ~differs & EACH_BYTE << 7;
}

/* A symbol of up to 7 bytes, with its size, in one word; never 0 unless the symbol is empty. */
static inline uint64_t symbol_key(uint64_t word, unsigned size)
{
    return (word & ((UINT64_C(1) << 8 * size) - 1)) | (uint64_t)size << 56;
}

static inline size_t symbol_slot(uint64_t key)
{
    /* 2^64 divided by the golden ratio: multiplication carries every bit of the key into the upper ones. */
    return (size_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 32) % SYMBOL_SLOTS;
}

static void symbol_remember(core *c, size_t slot, uint64_t key, size_t number)
{
    ((uint64_t *)(void *)at_offset(c, c->symbol_keys))[slot] = key;
    ((uint16_t *)(void *)at_offset(c, c->symbol_shards))[slot] = (uint16_t)number;
}

/* Length of the string that goes on at text[0], if it is neither empty nor escaped; else 0. */
static size_t plain_string(const u8 *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"')
            return i;
        if (text[i] == '\\')
            return 0;
    }
    return 0;
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

static inline void masks_portable(const u8 *text, wide_bits *bits)
{
    memset(bits, 0, sizeof *bits);
    for (unsigned i = 0; i < 64; i += 8) {
        const uint64_t word = load64(text + i), folded = word | EACH_BYTE * 0x20;
        bits->quote |= exact_equal(word, '"') << i;
        bits->backslash |= exact_equal(word, '\\') << i;
        bits->open |= exact_equal(folded, '{') << i;
        bits->close |= exact_equal(folded, '}') << i;
        bits->curly |= byte_bits(word << 2 & EACH_BYTE << 7) << i;
        bits->newline |= exact_equal(word, '\n') << i;
        bits->high |= byte_bits(word & EACH_BYTE << 7) << i;
    }
}

static inline void copy_portable(u8 *to, const u8 *from)
{
    memcpy(to, from, 64);
}

/* A tail for those that have no masked loads. */
#define MASKS_OF_COPY(masks, text, size, bits) \
    do { \
        u8 copy[64] = {0}; \
        memcpy(copy, text, size); \
        masks(copy, bits); \
    } while (0)

static inline void masks_tail_portable(const u8 *text, size_t size, wide_bits *bits)
{
    MASKS_OF_COPY(masks_portable, text, size, bits);
}

#define WIDE(name) portable_##name
#define WIDE_TARGET
#define wide_masks masks_portable
#define wide_masks_tail masks_tail_portable
#define wide_prefix_xor prefix_xor_shifts
#define wide_copy copy_portable
#define wide_begins begins_portable
#include "json_wide.h"
#undef WIDE
#undef WIDE_TARGET
#undef wide_masks
#undef wide_masks_tail
#undef wide_prefix_xor
#undef wide_copy
#undef wide_begins

#if defined(__x86_64__)

static inline uint64_t equal_sse2(const __m128i v[4], char value)
{
    const __m128i wanted = _mm_set1_epi8(value);
    uint64_t bits = 0;
    for (unsigned i = 0; i < 4; i++)
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[i], wanted)) << (16 * i);
    return bits;
}

static inline void masks_sse2(const u8 *text, wide_bits *bits)
{
    __m128i v[4], folded[4];
    bits->high = bits->curly = 0;
    for (unsigned i = 0; i < 4; i++) {
        v[i] = _mm_loadu_si128((const __m128i *)(const void *)(text + 16 * i));
        folded[i] = _mm_or_si128(v[i], _mm_set1_epi8(0x20));
        bits->high |= (uint64_t)(uint32_t)_mm_movemask_epi8(v[i]) << (16 * i);
        bits->curly |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_slli_epi16(v[i], 2)) << (16 * i);
    }
    bits->quote = equal_sse2(v, '"');
    bits->backslash = equal_sse2(v, '\\');
    bits->newline = equal_sse2(v, '\n');
    bits->open = equal_sse2(folded, '{');
    bits->close = equal_sse2(folded, '}');
}

static inline void masks_tail_sse2(const u8 *text, size_t size, wide_bits *bits)
{
    MASKS_OF_COPY(masks_sse2, text, size, bits);
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

#define WIDE(name) sse2_##name
#define WIDE_TARGET
#define wide_masks masks_sse2
#define wide_masks_tail masks_tail_sse2
#define wide_prefix_xor prefix_xor_shifts
#define wide_copy copy_portable
#define wide_begins begins_sse2
#include "json_wide.h"
#undef WIDE
#undef WIDE_TARGET
#undef wide_masks
#undef wide_masks_tail
#undef wide_prefix_xor
#undef wide_copy
#undef wide_begins

#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt,pclmul")))

AVX2 static inline uint64_t equal_avx2(const __m256i v[2], char value)
{
    const __m256i wanted = _mm256_set1_epi8(value);
    return (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v[0], wanted)) |
           (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v[1], wanted)) << 32;
}

AVX2 static inline uint64_t signs_avx2(__m256i low, __m256i high)
{
    return (uint64_t)(uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

AVX2 static inline void masks_avx2(const u8 *text, wide_bits *bits)
{
    const __m256i v[2] = {_mm256_loadu_si256((const __m256i *)(const void *)text),
                          _mm256_loadu_si256((const __m256i *)(const void *)(text + 32))};
    const __m256i case_bit = _mm256_set1_epi8(0x20);
    const __m256i folded[2] = {_mm256_or_si256(v[0], case_bit), _mm256_or_si256(v[1], case_bit)};
    bits->quote = equal_avx2(v, '"');
    bits->backslash = equal_avx2(v, '\\');
    bits->newline = equal_avx2(v, '\n');
    bits->open = equal_avx2(folded, '{');
    bits->close = equal_avx2(folded, '}');
    bits->curly = signs_avx2(_mm256_slli_epi16(v[0], 2), _mm256_slli_epi16(v[1], 2));
    bits->high = signs_avx2(v[0], v[1]);
}

AVX2 static inline void masks_tail_avx2(const u8 *text, size_t size, wide_bits *bits)
{
    MASKS_OF_COPY(masks_avx2, text, size, bits);
}

AVX2 static inline uint64_t prefix_xor_clmul(uint64_t bits)
{
    /* Carry-less multiplication by all ones. */
    const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)bits), _mm_set1_epi8((char)0xFF), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

AVX2 static inline void copy_avx2(u8 *to, const u8 *from)
{
    const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)from);
    const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(from + 32));
    _mm256_storeu_si256((__m256i *)(void *)to, low);
    _mm256_storeu_si256((__m256i *)(void *)(to + 32), high);
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
#define wide_masks masks_avx2
#define wide_masks_tail masks_tail_avx2
#define wide_prefix_xor prefix_xor_clmul
#define wide_copy copy_avx2
#define wide_begins begins_avx2
#include "json_wide.h"
#undef WIDE
#undef WIDE_TARGET
#undef wide_masks
#undef wide_masks_tail
#undef wide_copy

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx2,bmi,bmi2,popcnt,pclmul")))

AVX512 static inline void masks_of_avx512(__m512i v, wide_bits *bits)
{
    const __m512i folded = _mm512_or_si512(v, _mm512_set1_epi8(0x20));
    bits->quote = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('"'));
    bits->backslash = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('\\'));
    bits->newline = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('\n'));
    bits->open = _mm512_cmpeq_epi8_mask(folded, _mm512_set1_epi8('{'));
    bits->close = _mm512_cmpeq_epi8_mask(folded, _mm512_set1_epi8('}'));
    bits->curly = _mm512_test_epi8_mask(v, _mm512_set1_epi8(0x20));
    bits->high = _mm512_movepi8_mask(v);
}

AVX512 static inline void masks_avx512(const u8 *text, wide_bits *bits)
{
    masks_of_avx512(_mm512_loadu_si512(text), bits);
}

AVX512 static inline void masks_tail_avx512(const u8 *text, size_t size, wide_bits *bits)
{
    masks_of_avx512(_mm512_maskz_loadu_epi8((UINT64_C(1) << size) - 1, text), bits);
}

AVX512 static inline void copy_avx512(u8 *to, const u8 *from)
{
    _mm512_storeu_si512(to, _mm512_loadu_si512(from));
}

#define WIDE(name) avx512_##name
#define WIDE_TARGET AVX512
#define wide_masks masks_avx512
#define wide_masks_tail masks_tail_avx512
#define wide_copy copy_avx512
#include "json_wide.h"

#elif defined(__aarch64__)

static inline uint64_t gather_neon(const uint8x16_t v[4])
{
    /* v: 0 or 0xFF in each byte. Three pairwise additions bring a bit of each together. */
    static const u8 weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t weight = vld1q_u8(weights);
    const uint8x16_t low = vpaddq_u8(vandq_u8(v[0], weight), vandq_u8(v[1], weight));
    const uint8x16_t high = vpaddq_u8(vandq_u8(v[2], weight), vandq_u8(v[3], weight));
    const uint8x16_t four = vpaddq_u8(low, high);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(four, four)), 0);
}

static inline uint64_t equal_neon(const uint8x16_t v[4], u8 value)
{
    uint8x16_t equal[4];
    for (unsigned i = 0; i < 4; i++)
        equal[i] = vceqq_u8(v[i], vdupq_n_u8(value));
    return gather_neon(equal);
}

static inline uint64_t test_neon(const uint8x16_t v[4], u8 bit)
{
    uint8x16_t set[4];
    for (unsigned i = 0; i < 4; i++)
        set[i] = vtstq_u8(v[i], vdupq_n_u8(bit));
    return gather_neon(set);
}

static inline void masks_neon(const u8 *text, wide_bits *bits)
{
    uint8x16_t v[4], folded[4];
    for (unsigned i = 0; i < 4; i++) {
        v[i] = vld1q_u8(text + 16 * i);
        folded[i] = vorrq_u8(v[i], vdupq_n_u8(0x20));
    }
    bits->quote = equal_neon(v, '"');
    bits->backslash = equal_neon(v, '\\');
    bits->newline = equal_neon(v, '\n');
    bits->open = equal_neon(folded, '{');
    bits->close = equal_neon(folded, '}');
    bits->curly = test_neon(v, 0x20);
    bits->high = test_neon(v, 0x80);
}

static inline void masks_tail_neon(const u8 *text, size_t size, wide_bits *bits)
{
    MASKS_OF_COPY(masks_neon, text, size, bits);
}

#define WIDE(name) neon_##name
#define WIDE_TARGET
#define wide_masks masks_neon
#define wide_masks_tail masks_tail_neon
#define wide_prefix_xor prefix_xor_shifts
#define wide_copy copy_portable
#define wide_begins begins_portable
#include "json_wide.h"

#endif

/* ---- choice ---- */

#define VARIANT(name) {#name, name##_index, name##_span, name##_run}

static const json_variant variants[] = {
#if defined(__x86_64__)
    VARIANT(avx512),
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
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
                      __builtin_cpu_supports("pclmul");
    if (!strcmp(name, "avx2"))
        return avx2;
    if (!strcmp(name, "avx512"))
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl");
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
