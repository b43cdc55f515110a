/* Chooses the variant at run time, by what the processor can do. */
#include "variants.h"

static const router_variant *const variants[] = {
#if defined(__x86_64__)
    &variant_avx2,
    &variant_sse2,
#elif defined(__aarch64__)
    &variant_neon,
#endif
    &variant_portable,
};

#define VARIANTS (sizeof variants / sizeof variants[0])

static const router_variant *usable[VARIANTS];
static const char *names[VARIANTS + 1];

const router_variant *variant = &variant_portable;

static bool machine_has(const char *name)
{
#if defined(__x86_64__)
    if (!strcmp(name, variant_avx2.name))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
               __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("pclmul");
#endif
    (void)name;
    return true;
}

__attribute__((constructor)) static void choose(void)
{
    size_t count = 0;
    for (size_t i = 0; i < VARIANTS; i++)
        if (machine_has(variants[i]->name)) {
            usable[count] = variants[i];
            names[count++] = variants[i]->name;
        }
    variant = usable[0];
}

bool variant_use(const char *name)
{
    for (size_t i = 0; names[i]; i++)
        if (!strcmp(names[i], name)) {
            variant = usable[i];
            return true;
        }
    return false;
}

const char *const *variant_names(void)
{
    return names;
}
