/* Gives a router a case, and writes down what comes out of it. */
#ifndef FUZZ_DRIVE_H
#define FUZZ_DRIVE_H

#include "case.h"

/* Add the result to *result, in the form of cases.py. What stands behind received bytes is `garbage`. Returns how often
 * the router took bytes, which depends on the chunking. */
uint64_t drive(const test_case *of, unsigned chunking, uint8_t garbage, bytes *result);

#endif
