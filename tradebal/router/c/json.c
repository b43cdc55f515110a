/* Finds where JSON values begin and end, byte by byte: what stands between trades and inside the unusual ones. */
#include "json.h"

#include "reasons.h"

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

size_t json_value(const u8 *text, size_t size, json_span span, int *reason)
{
    size_t length;
    if (size && (text[0] == '{' || text[0] == '['))
        return span(text, size, reason);
    if (size && text[0] == '"') {
        length = json_string(text, size);
        *reason = REASON_UNTERMINATED;
    } else {
        length = json_scalar(text, size);
        *reason = REASON_NO_VALUE;
    }
    return length;
}

int json_next_member(const u8 *object, size_t size, size_t *at, json_span span, json_member *member)
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
    const size_t value = json_value(object + i, size - i, span, &reason);
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

size_t json_span_bytewise(const u8 *text, size_t size, size_t at, json_nesting *nested, bool in_string, bool escape,
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
