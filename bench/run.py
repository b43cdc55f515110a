"""Runs all benchmarks in one go, and writes bench/RESULTS.md and bench/throughput.svg.

python bench/run.py            everything; at least ten minutes
python bench/run.py --quick    each part once with little data: is all of it still right?
python bench/run.py --only throughput --shards 8 --per-frame 128,3 --rounds 3 --no-write
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import block
import burst
import instructions
import latency
import quiet
import report
import seen
import tls
from contenders import COMPILED, COPY, FLOOR, NAIVE, OURS, PICOWS, PYTHON, PYTHON_ROUNDS, ROTATE, TUNED
from harness import BenchError, Contender, Result, compile_programs, measure, run_as_command

PARTS = ("throughput", "tls", "instructions", "latency", "burst", "quiet", "seen")
CONTENDERS = (OURS, FLOOR, COPY, ROTATE, NAIVE, TUNED, PICOWS, PYTHON)
# Blocks for about half a CPU-second each; they are counted up front, so that all rounds do the same.
_BLOCKS = {OURS: 250, FLOOR: 300, COPY: 300, ROTATE: 300, NAIVE: 1, TUNED: 4, PICOWS: 6, PYTHON: 2}


def main() -> int:
    """Measure what was asked for, and write it down."""
    arguments = _arguments()
    wanted = [part for part in PARTS if part in arguments.only]
    contenders = [contender for contender in CONTENDERS if contender.name in arguments.contenders]
    _check(wanted, contenders, quick=arguments.quick)
    compile_programs("load", "floor", "pace", "relay")
    rounds = 1 if arguments.quick else arguments.rounds
    if "instructions" in wanted and not instructions.available():
        _say("instructions: valgrind isn't installed; left out")
        wanted.remove("instructions")
    began = time.monotonic()
    found = report.Findings({}, [], [], [], [], None, [], None)
    with tempfile.TemporaryDirectory(prefix="tradebal-bench-") as place:
        directory = Path(place)
        if "throughput" in wanted:
            found.throughput = _throughput(directory, contenders, arguments, rounds)
        if "tls" in wanted:
            found.tls = tls.run(directory, rounds, 1) if arguments.quick else tls.run(directory, rounds)
        if "instructions" in wanted:
            found.instructions = (
                instructions.run(directory, (128,), 1) if arguments.quick else instructions.run(directory)
            )
        if "latency" in wanted:
            found.latency = latency.run(directory, rounds, 0.5 if arguments.quick else 4)
        if "burst" in wanted:
            found.burst = burst.run(directory, 0.1 if arguments.quick else 3)
        if "quiet" in wanted:
            found.quiet = quiet.run(directory, 1, 100_000) if arguments.quick else quiet.run(directory, 20, 10_000_000)
        if "seen" in wanted:
            found.publishing, found.scrape = seen.run(directory, rounds, 0.5 if arguments.quick else 8)
    took = time.monotonic() - began
    if arguments.quick:
        _say(f"all outputs were right ({took:.0f} s); figures of a quick run mean nothing and aren't shown")
        return 0
    if arguments.write:
        for path in report.write(found, rounds):
            _say(f"written: {path}")
    else:
        print(report.markdown(found, rounds))
    _say(f"done in {took:.0f} s")
    return 0


def _throughput(
    directory: Path, contenders: list[Contender], arguments: argparse.Namespace, rounds: int
) -> dict[report.Cell, dict[Contender, list[Result]]]:
    made = block.trades()
    texts = [text for _, text in made]
    blocks = {number: block.write_block(directory / f"block-{number}", texts, number) for number in arguments.per_frame}
    expected = {
        number: block.write_expected(directory / f"expected-{number}", made, number) for number in arguments.shards
    }
    cells: dict[report.Cell, dict[Contender, list[Result]]] = {
        (per_frame, shards): {contender: [] for contender in contenders}
        for per_frame in arguments.per_frame
        for shards in arguments.shards
        if not arguments.quick or shards == 8 or per_frame == 128
    }
    # Round by round over all cells: a disturbance of some seconds then costs each cell at most one of its rounds.
    for number in range(rounds):
        for (per_frame, shards), cell in cells.items():
            for contender in contenders:
                if number >= PYTHON_ROUNDS and contender not in COMPILED:
                    continue
                repeats = 1 if arguments.quick else max(1, round(_BLOCKS[contender] * arguments.scale))
                place = directory / f"{contender.name}-{per_frame}-{shards}-{number}"
                try:
                    result = measure(contender, blocks[per_frame], expected[shards], shards, repeats, place)
                except BenchError as error:
                    raise BenchError(f"{contender.label}, {per_frame} a frame, {shards} shards: {error}") from error
                cell[contender].append(result)
                shown = "right" if arguments.quick else f"{result.rate / 1e6:8.3f} M trades per CPU-second"
                where = f"round {number + 1}/{rounds}  {per_frame:>3} a frame  {shards:>3} shards"
                _say(f"{where}  {contender.label:<26} {shown}")
    return cells


def _check(wanted: list[str], contenders: list[Contender], *, quick: bool) -> None:
    """Say clearly what would spoil the figures, before minutes are spent."""
    if "throughput" in wanted and PICOWS in contenders:
        missing = [name for name in ("picows", "uvloop") if importlib.util.find_spec(name) is None]
        if missing:
            raise BenchError(
                f"{' and '.join(missing)} missing; to get what is compared with: pip install -e '.[bench]'"
            )
    if wanted != ["throughput"] or OURS in contenders:
        try:
            from tradebal.router import native  # noqa: F401
        except ImportError as error:
            raise BenchError(f"the C core isn't there ({error}); see README.md for how to get it") from None
    if not quick and os.getloadavg()[0] > 0.5:
        _say(f"warning: other programs are at work (load average {os.getloadavg()[0]:.1f}); latencies will be off")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    def names(allowed: tuple[str, ...]) -> object:
        def parse(text: str) -> list[str]:
            chosen = text.split(",")
            if unknown := set(chosen) - set(allowed):
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(allowed)}")
            return chosen

        return parse

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    all_contenders = tuple(contender.name for contender in CONTENDERS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little data, all checks, no figures")
    parser.add_argument("--only", type=names(PARTS), default=list(PARTS), metavar="PART,…", help=", ".join(PARTS))
    parser.add_argument(
        "--contenders", type=names(all_contenders), default=list(all_contenders), metavar="NAME,…",
        help=", ".join(all_contenders),
    )  # fmt: skip
    parser.add_argument("--per-frame", type=numbers, default=[128, 15, 3], metavar="N,…", help="trades a frame")
    parser.add_argument("--shards", type=numbers, default=[1, 8, 64, 256], metavar="N,…")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times as much data in each throughput run")
    parser.add_argument(
        "--no-write", dest="write", action="store_false", help="print the results instead of writing RESULTS.md"
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_as_command(main)
