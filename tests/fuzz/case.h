/* What an input says: a router's options, and the bytes of one or two connections. cases.py reads it alike, and says
 * there what an input looks like. */
#ifndef FUZZ_CASE_H
#define FUZZ_CASE_H

#include "bytes.h"
#include "core.h"

#define HEADER 3
#define FIRST_WITH_CALLS 200
#define PINS 4
#define LARGEST_MESSAGE (((size_t)4 << 20) - 256)

typedef struct {
    uint32_t state;
} random_numbers;

uint32_t random_below(random_numbers *random, uint32_t limit);

typedef struct {
    core_options options;
    uint32_t pin_shards[PINS];
    bytes connections[2];
    size_t connections_count;
    unsigned chunking;
    uint32_t seed;
} test_case;

/* Fill *made from an input of at least HEADER bytes. The case refers into itself, so it can't be moved. */
void case_read(test_case *made, const uint8_t *data, size_t size);
void case_free(test_case *made);

/* Size of the chunk that begins at `start`. */
size_t case_chunk(const bytes *stream, size_t start, unsigned chunking, random_numbers *random);

#endif
