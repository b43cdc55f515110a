/* Byte strings that grow. */
#ifndef FUZZ_BYTES_H
#define FUZZ_BYTES_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint8_t *data;
    size_t size, capacity;
} bytes;

/* Make room for `size` more bytes, and return where they belong. */
static inline uint8_t *bytes_grow(bytes *b, size_t size)
{
    if (b->capacity - b->size < size) {
        b->capacity = 2 * b->capacity + size;
        b->data = realloc(b->data, b->capacity);
        if (!b->data)
            abort();
    }
    b->size += size;
    return b->data + b->size - size;
}

static inline void bytes_add(bytes *b, const void *data, size_t size)
{
    if (size)
        memcpy(bytes_grow(b, size), data, size);
}

static inline void bytes_fill(bytes *b, int byte, size_t size)
{
    if (size)
        memset(bytes_grow(b, size), byte, size);
}

__attribute__((format(printf, 2, 3))) static inline void bytes_print(bytes *b, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    const int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= sizeof line)
        abort();
    bytes_add(b, line, (size_t)size);
}

static inline void bytes_free(bytes *b)
{
    free(b->data);
    *b = (bytes){0};
}

#endif
