/* The result of the wide scan of a message: where its brackets are. */
#ifndef TRADEBAL_SCAN_H
#define TRADEBAL_SCAN_H

#include "words.h"

/* Where brackets stand outside of strings, in a stretch of text that begins outside of them. Some bytes that are no
 * brackets are among them; and a backslash outside of strings ends the index, since it escapes nothing there. */
typedef struct {
    size_t count;        /* of offsets written; BRACKETS_SPARE more may have been overwritten */
    size_t seen;         /* bytes looked at */
    size_t newline_at;   /* the first line feed; SIZE_MAX: there is none */
    size_t backslash_at; /* the first backslash, likewise */
    bool non_ascii;
} json_index;

#endif
