/* libFuzzer's entry: whatever the input, all variants of the core, all chunkings and the Python router must agree. */
#include "drive.h"
#include "rooms.h"
#include "twin.h"
#include "variants.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(const char *one_name, const bytes *one, const char *other_name, const bytes *other)
{
    if (one->size == other->size && !memcmp(one->data, other->data, one->size))
        return;
    size_t at = 0;
    while (at < one->size && at < other->size && one->data[at] == other->data[at])
        at++;
    const size_t begin = at < 200 ? 0 : at - 200;
    const bytes *const both[] = {one, other};
    fprintf(stderr, "%s and %s differ at byte %zu of their results\n", one_name, other_name, at);
    for (int i = 0; i < 2; i++) {
        const size_t end = at + 200 < both[i]->size ? at + 200 : both[i]->size;
        fprintf(stderr, "---- %s:\n%.*s\n", i ? other_name : one_name, (int)(end - begin),
                (const char *)both[i]->data + begin);
    }
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Each run finds other bytes behind those that it received. */
    static const uint8_t garbage[] = {'"', '\\', '}', 0xFF, '{', '\n', ']', 0};
    if (size < HEADER)
        return 0;
    check_rooms(data + HEADER, size - HEADER);
    test_case of;
    case_read(&of, data, size);

    const char *const *const variants = variant_names();
    bytes first = {0}, other = {0};
    uint64_t first_reads = 0;
    for (size_t i = 0; variants[i]; i++) {
        variant_use(variants[i]);
        other.size = 0;
        const uint64_t reads = drive(&of, of.chunking, garbage[i % sizeof garbage], i ? &other : &first);
        if (!i) {
            first_reads = reads;
            continue;
        }
        compare(variants[0], &first, variants[i], &other);
        if (reads != first_reads)
            abort();
    }
    if (of.chunking && of.chunking < FIRST_WITH_CALLS) {
        other.size = 0;
        drive(&of, 0, '\'', &other);
        compare("cut into chunks", &first, "in one go", &other);
    }
    other.size = 0;
    if (twin(data, size, &other))
        compare("the core", &first, "the Python router", &other);
    bytes_free(&first);
    bytes_free(&other);
    case_free(&of);
    return 0;
}
