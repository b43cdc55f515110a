"""Fuzzes the C core for a chosen time: variants and chunkings against each other first, then all against Python."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CORE = ROOT / "tradebal" / "router" / "c"

# All but api.c, which the harness stands in for.
CORE_FILES = tuple(sorted(file.stem for file in CORE.glob("*.c") if file.stem != "api"))
HARNESS_FILES = ("harness", "case", "drive", "rooms", "twin")
FLAGS = "-std=c11 -O2 -g -Wall -Wextra -fsanitize=address,undefined -fno-sanitize-recover=all"
# Coverage of the core alone guides; comparisons aren't traced, since they stand in the hottest loops of all.
COVERAGE = "-fsanitize-coverage=inline-8bit-counters,indirect-calls,pc-table"
COMMITTED = ("seeds", "corpus", "regressions")


def build(core: Path, directory: Path) -> Path:
    """Return the built harness."""
    directory.mkdir(parents=True, exist_ok=True)
    clang = shutil.which("clang")
    if not clang:
        sys.exit("fuzz: error: no clang here; hint: apt-get install clang libclang-rt-14-dev")
    flags = [*FLAGS.split(), f"-I{core}", f"-I{HERE}"]
    objects = []
    for name in CORE_FILES + HARNESS_FILES:
        of_core = name in CORE_FILES
        objects.append(directory / f"{name}.o")
        source = (core if of_core else HERE) / f"{name}.c"
        coverage = [COVERAGE] if of_core else []
        subprocess.run([clang, *flags, *coverage, "-c", source, "-o", objects[-1]], check=True)
    harness = directory / "harness"
    subprocess.run([clang, *flags, "-fsanitize=fuzzer", *objects, "-o", harness], check=True)
    return harness


def fuzz(harness: Path, name: str, seconds: float, directories: list[Path], with_twin: bool) -> bool:
    """Run the harness for so long; return whether it found nothing, and say what it did."""
    found = harness.parent / "found"
    found.mkdir(exist_ok=True)
    command = [
        harness,
        f"-max_total_time={max(1, round(seconds))}",
        f"-dict={HERE / 'json.dict'}",
        f"-artifact_prefix={found}/",
        "-max_len=2048",
        "-len_control=20",
        "-timeout=60",
        "-detect_leaks=0",
        "-print_final_stats=1",
        *directories,
    ]
    env = os.environ | {"ASAN_OPTIONS": "handle_abort=1:" + os.environ.get("ASAN_OPTIONS", "")}
    env.pop("TRADEBAL_TWIN", None)
    if with_twin:
        env["TRADEBAL_TWIN"] = f"exec {shlex.quote(sys.executable)} -m tests.fuzz.twin"
    log = harness.parent / f"{name}.log"
    began = time.monotonic()
    with log.open("wb") as output:
        code = subprocess.run(command, env=env, cwd=ROOT, stderr=output, check=False).returncode
    text = log.read_text(errors="backslashreplace")
    runs = re.findall(r"^stat::number_of_executed_units: *(\d+)", text, re.MULTILINE)
    coverage = re.findall(r"^#\d+\t.* cov: (\d+) ft: (\d+) corp: (\d+)", text, re.MULTILINE)
    edges, features, inputs = coverage[-1] if coverage else "???"
    print(
        f"{name}: seconds={time.monotonic() - began:.0f} executions={runs[-1] if runs else '?'} edges={edges} "
        f"features={features} corpus={inputs} result={'agreement' if not code else 'FINDING'}",
        flush=True,
    )
    if code:
        print(text[-6000:], file=sys.stderr)
        print(f"fuzz: the input is in {found}; see docs/testing.md for what to do with it", file=sys.stderr)
    return not code


def minimise(harness: Path, corpus: Path) -> None:
    """Put into corpus/ the fewest inputs that reach what seeds and regressions don't, to be committed."""
    kept = HERE / "corpus"
    kept.mkdir(exist_ok=True)
    merged = harness.parent / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    shutil.copytree(HERE / "seeds", merged)
    for path in (HERE / "regressions").glob("*"):
        shutil.copy(path, merged)
    before = {path.name for path in merged.iterdir()}
    quiet = ["-detect_leaks=0", "-max_len=400", "-set_cover_merge=1", "-use_counters=0"]
    subprocess.run([harness, *quiet, merged, kept, corpus], check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for path in merged.iterdir():
        if path.name not in before:
            shutil.copy(path, kept / path.name[:12])
    print(f"corpus: {len(list(kept.iterdir()))} inputs, {sum(path.stat().st_size for path in kept.iterdir())} bytes")


def main() -> int:
    """Return the exit code: 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="how long to run (default: 60)")
    parser.add_argument("--core", type=Path, default=CORE, metavar="DIR", help="the C core's sources")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "fuzz", metavar="DIR", help="what is kept here")
    parser.add_argument("--minimise", action="store_true", help="then renew the committed corpus from what was kept")
    args = parser.parse_args()
    harness = build(args.core.resolve(), args.build.resolve())
    corpus = harness.parent / "corpus"
    corpus.mkdir(exist_ok=True)
    directories = [corpus, *(HERE / name for name in COMMITTED if (HERE / name).is_dir())]
    half = args.seconds / 2
    good = fuzz(harness, "variants-and-chunkings", half, directories, with_twin=False) and fuzz(
        harness, "c-against-python", half, directories, with_twin=True
    )
    if good and args.minimise:
        minimise(harness, corpus)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
