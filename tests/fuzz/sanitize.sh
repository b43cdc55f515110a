#!/usr/bin/env bash
# Runs the routers' tests on a C core that is built with AddressSanitizer and UndefinedBehaviorSanitizer, then on the
# usual one under Python's development mode and debug allocator. Usage: sanitize.sh [PYTHON [PYTEST ARGUMENT…]]
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$(realpath -s "${1:-.venv/bin/python}")
shift || true
cc=${CC:-gcc}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The tree's own core stays as it is: others may be using it.
cp -r pyproject.toml README.md LICENSE tradebal tests "$scratch"
rm -f "$scratch"/tradebal/router/*.so

tests=(tests/test_router_*.py tests/test_native_*.py tests/test_fuzz_corpus.py)

echo "== build with sanitizers"
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"
(
    cd "$scratch"
    CC=$cc CFLAGS="$sanitize" LDFLAGS="$sanitize" \
        "$python" -c 'import setuptools; setuptools.setup()' --quiet build_ext --inplace
    nm -D tradebal/router/*.so | grep -q __asan_init || { echo "sanitize: error: the core was built without sanitizers" >&2; exit 1; }
)

echo "== AddressSanitizer, UndefinedBehaviorSanitizer"
(
    cd "$scratch"
    # Three tests count resident memory, which AddressSanitizer keeps; the suite has run them, so they may be skipped.
    unset TRADEBAL_NO_SKIPS
    # Python's own allocations go through malloc, so that they are watched too; it never frees all of them at its end.
    LD_PRELOAD="$($cc -print-file-name=libasan.so) $($cc -print-file-name=libubsan.so)" \
        ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
        PYTHONMALLOC=malloc PYTHONPATH="$scratch" \
        "$python" -m pytest -q -p no:cacheprovider "$@" "${tests[@]}"
)

echo "== python -X dev"
"$python" -X dev -m pytest -q -p no:cacheprovider "$@" "${tests[@]}"
