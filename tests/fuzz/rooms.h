/* The core's functions that read their caller's memory. */
#ifndef FUZZ_ROOMS_H
#define FUZZ_ROOMS_H

#include <stddef.h>
#include <stdint.h>

/* Abort if a variant finds something else in these bytes than the portable one does, or if their UTF-8 is judged wrong;
 * the bytes end where reading on is a segmentation fault. */
void check_rooms(const uint8_t *data, size_t size);

#endif
