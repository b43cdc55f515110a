/* JSON's structure, byte by byte: where values begin and end. Nothing is decoded but strings that are compared. */
#ifndef TRADEBAL_JSON_H
#define TRADEBAL_JSON_H

#include "words.h"
#include "sizes.h"

/* Open brackets; all zeros at first. */
typedef struct {
    size_t depth;
    uint64_t curly[MAX_DEPTH / 64]; /* a bit for each, outermost first */
} json_nesting;

enum { NEST_OPEN, NEST_CLOSED, NEST_FAILED };

/* Take a byte outside of strings into account: NEST_CLOSED at the outermost bracket's end, NEST_FAILED with *reason. */
int json_nest(json_nesting *nested, u8 byte, int *reason);

static inline bool json_space(u8 byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

static inline size_t json_skip(const u8 *text, size_t at, size_t size)
{
    while (at < size && json_space(text[at]))
        at++;
    return at;
}

/* Length of the string at text[0] with its quotes, or 0 if it doesn't end. */
size_t json_string(const u8 *text, size_t size);

/* Length of the scalar token at text[0]; 0 if there is none. */
size_t json_scalar(const u8 *text, size_t size);

/* Length of the object or array at text[0], or 0 with *reason. */
typedef size_t (*json_span)(const u8 *text, size_t size, int *reason);

/* The same byte by byte, from `at` on, for text whose brackets and strings before that are told by the other arguments. */
size_t json_span_bytewise(const u8 *text, size_t size, size_t at, json_nesting *nested, bool in_string, bool escape,
                          int *reason);

/* Length of any value at text[0], or 0 with *reason; `span` measures objects and arrays. */
size_t json_value(const u8 *text, size_t size, json_span span, int *reason);

typedef struct {
    const u8 *key; /* inside of the string */
    size_t key_size;
    const u8 *value; /* with quotes or brackets */
    size_t value_size;
} json_member;

/* Read the member after *at in an object of known span, and move *at to the end of its value. Begin with *at = 0.
 * Returns 1, 0 at the object's end, -1 if it is malformed. */
int json_next_member(const u8 *object, size_t size, size_t *at, json_span span, json_member *member);

/* Whether a line feed stands inside a string of a well-structured object. */
bool json_newline_in_string(const u8 *object, size_t size);

/* Undo the escapes of a string's inside, piece by piece. */
typedef struct {
    const u8 *at, *end;
} json_text;

/* Next run of the unescaped text: *piece of *size bytes (in the text itself, or in scratch).
 * Returns 1, 0 at the end, -1 if an escape is invalid. */
int json_unescape(json_text *text, u8 scratch[4], const u8 **piece, size_t *size);

/* Whether the inside of a string is, unescaped, these bytes. */
bool json_equals(const u8 *inside, size_t size, const u8 *bytes, size_t bytes_size);

#endif
