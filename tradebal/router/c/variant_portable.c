/* The wide loops for any processor. */
#include "vector_portable.h"

#include "route_loop.h"
#include "scan_loops.h"
#include "variants.h"

const router_variant variant_portable = {"portable", index_brackets, span_wide, route_usual};
