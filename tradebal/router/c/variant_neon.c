/* The wide loops for NEON. */
#if defined(__aarch64__)
#include "vector_neon.h"

#include "route_loop.h"
#include "scan_loops.h"
#include "variants.h"

const router_variant variant_neon = {"neon", index_brackets, span_wide, route_usual};
#else
typedef int nothing_for_this_processor; /* ISO C wants a declaration */
#endif
