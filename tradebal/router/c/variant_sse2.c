/* The wide loops for SSE2. */
#if defined(__x86_64__)
#include "vector_sse2.h"

#include "route_loop.h"
#include "scan_loops.h"
#include "variants.h"

const router_variant variant_sse2 = {"sse2", index_brackets, span_wide, route_usual};
#else
typedef int nothing_for_this_processor; /* ISO C wants a declaration */
#endif
