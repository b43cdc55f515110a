/* Compares what the variants of the wide loops find, and UTF-8 with its definition. */
#define _GNU_SOURCE
#include "rooms.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "reasons.h"
#include "utf8.h"
#include "variants.h"

/* What an index of WINDOW bytes may fill. */
#define BRACKETS (WINDOW + BRACKETS_SPARE)

typedef struct {
    json_index index;
    uint32_t *brackets;
    size_t span;
    int reason;
} findings;

static void differs(const char *what, const char *name)
{
    fprintf(stderr, "%s: %s differs\n", name, what);
    abort();
}

static findings find(const char *name, const u8 *text, size_t size)
{
    findings found = {.brackets = malloc(BRACKETS * sizeof(uint32_t)), .reason = REASON_NONE};
    if (!variant_use(name) || !found.brackets)
        abort();
    variant->index(text, size < WINDOW ? size : WINDOW, &found.index, found.brackets);
    if (size && (text[0] == '{' || text[0] == '['))
        found.span = variant->span(text, size, &found.reason);
    if (found.span)
        found.reason = REASON_NONE;
    return found;
}

static void compare_variants(const u8 *text, size_t size)
{
    findings portable = find("portable", text, size);
    for (const char *const *name = variant_names(); *name; name++) {
        findings other = find(*name, text, size);
        if (other.index.count != portable.index.count ||
            memcmp(other.brackets, portable.brackets, portable.index.count * sizeof(uint32_t)))
            differs("brackets", *name);
        if (other.index.seen != portable.index.seen || other.index.non_ascii != portable.index.non_ascii ||
            other.index.newline_at != portable.index.newline_at)
            differs("index", *name);
        if (other.span != portable.span || other.reason != portable.reason)
            differs("span", *name);
        free(other.brackets);
    }
    free(portable.brackets);
}

/* By the definition: decode, and require the shortest form of a code point that is no surrogate. */
static bool is_utf8(const u8 *data, size_t size)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t at = 0; at < size;) {
        size_t length = 0;
        while (length < 8 && data[at] >> (7 - length) & 1)
            length++;
        if (!length) {
            at++;
            continue;
        }
        if (length == 1 || length > 4 || size - at < length)
            return false;
        uint32_t point = data[at] & (0xFFU >> (length + 1));
        for (size_t i = 1; i < length; i++) {
            if (data[at + i] >> 6 != 2)
                return false;
            point = point << 6 | (data[at + i] & 0x3F);
        }
        if (point < least[length] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
            return false;
        at += length;
    }
    return true;
}

void check_rooms(const uint8_t *data, size_t size)
{
    enum { PAGE = 4096, ROOM = 32 * PAGE };
    static u8 *end;
    if (!end) {
        u8 *memory = mmap(NULL, ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory + ROOM, PAGE, PROT_NONE))
            abort();
        end = memory + ROOM;
    }
    if (size > ROOM)
        return;
    u8 *text = end - size;
    memcpy(text, data, size);
    compare_variants(text, size);
    if (utf8_valid(text, size) != is_utf8(text, size))
        differs("UTF-8", "utf8_valid");
}
