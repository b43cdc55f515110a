/* The wide loops, built once for each instruction set; all variants give the same results. */
#ifndef TRADEBAL_VARIANTS_H
#define TRADEBAL_VARIANTS_H

#include "json.h"
#include "scan.h"
#include "state.h"

typedef struct {
    const char *name;
    void (*index)(const u8 *text, size_t size, json_index *index, uint32_t *brackets);
    json_span span;
    /* Stage indexed trades while they are of the usual form, and note in the core how far that was. */
    void (*route)(core *c, const u8 *message);
} router_variant;

/* The one in use: at first the best that this machine can run. */
extern const router_variant *variant;

bool variant_use(const char *name);
/* Names of what this machine can run, best first; NULL at the end. */
const char *const *variant_names(void);

extern const router_variant variant_portable;
#if defined(__x86_64__)
extern const router_variant variant_sse2, variant_avx2;
#elif defined(__aarch64__)
extern const router_variant variant_neon;
#endif

#endif
