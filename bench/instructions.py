"""Instructions a trade in the C core, counted by valgrind: a figure that repeats exactly, on any machine.

python bench/instructions.py            (needs valgrind)

Only core_process() is counted, that is: frames, UTF-8, JSON, symbols, and the copy into the shards' staging; no
system calls.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import block
from harness import OUT, BenchError, run_as_command

PER_FRAME = (128, 15, 3)
_SHARDS = 8
_BLOCKS = (1, 3)
"""Runs of one and of three blocks: what both do once, such as taking the first sample, drops out of the difference."""
_COLLECTED = re.compile(rb"Collected : (\d+)")


@dataclass(frozen=True)
class Count:
    """What one variant of the core needs."""

    variant: str
    per_frame: int
    instructions: float
    """A trade."""


def available() -> bool:
    """Whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def run(
    directory: Path, per_frame: tuple[int, ...] = PER_FRAME, variants: int | None = None, *, quotes: bool = False
) -> list[Count]:
    """Count for the variants that run under valgrind, best first (at most `variants` of them).

    With `quotes`, the same objects are marked as quotes, which the router skips.
    """
    texts = [text for _, text in block.trades()]
    if quotes:
        texts = [text.replace(b'"ev":"T"', b'"ev":"Q"') for text in texts]
    counts = []
    names = _valgrind(directory, "variants").stdout.decode().split()[:variants]
    for number in per_frame:
        path = directory / f"instructions-{number}"
        block.write_block(path, texts, number)
        for name in names:
            few, many = (_collected(_valgrind(directory, "feed", name, str(path), str(count))) for count in _BLOCKS)
            counts.append(Count(name, number, (many - few) / (_BLOCKS[1] - _BLOCKS[0]) / len(texts)))
    return counts


def _valgrind(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ["valgrind", "--tool=callgrind", "--toggle-collect=core_process"]
    command += [f"--callgrind-out-file={directory / 'callgrind.out'}", sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise BenchError(f"valgrind failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done


def _collected(done: subprocess.CompletedProcess[bytes]) -> int:
    found = _COLLECTED.search(done.stderr)
    if not found or not int(found[1]):
        raise BenchError("valgrind counted nothing: is core_process() still the C core's entry?")
    return int(found[1])


def _feed(variant: str, path: Path, blocks: int) -> None:
    """Give the block to a router through its sans-I/O calls; runs under valgrind."""
    from tradebal.router import native
    from tradebal.router.interface import Rule, Status

    native.use_variant(variant)
    router = native.Router(_SHARDS, Rule(b"ev", (b"T",), b"sym", notice_values=(b"status",)))
    data = path.read_bytes() * blocks
    at = 0
    while at < len(data):
        space = router.space()
        part = data[at : at + len(space)]
        space[: len(part)] = part
        space.release()
        router.received(len(part))
        if router.process() is not Status.INPUT:
            raise BenchError("the router stopped")
        at += len(part)
        for shard in range(_SHARDS):
            pending = router.pending(shard)
            size = len(pending)
            pending.release()
            router.sent(shard, size)
    counters = router.counters()
    if counters.trades + counters.skipped != block.TRADES * blocks:
        raise BenchError(f"{counters.trades} trades and {counters.skipped} skipped, not {block.TRADES * blocks}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inner", nargs="*", help=argparse.SUPPRESS)
    inner = parser.parse_args().inner
    if inner[:1] == ["variants"]:
        from tradebal.router import native

        print(*native.variants())
        return 0
    if inner[:1] == ["feed"]:
        _feed(inner[1], Path(inner[2]), int(inner[3]))
        return 0
    if not available():
        raise BenchError("valgrind isn't installed (apt install valgrind)")
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for count in run(Path(directory)):
            print(f"{count.per_frame:>4} a frame  {count.variant:<9} {count.instructions:.1f} instructions a trade")
        for count in run(Path(directory), PER_FRAME[:1], quotes=True):
            print(f"{count.per_frame:>4} a frame  {count.variant:<9} {count.instructions:.1f} instructions a quote")
    return 0


if __name__ == "__main__":
    run_as_command(main)
