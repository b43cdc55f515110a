"""What the balancer costs: CPU share on an ordinary minute, memory after an hour's worth of trades at full speed.

python bench/quiet.py [--seconds S] [--trades N]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import block
import flow
from contenders import FLOOR, OURS, ROTATE
from harness import compile_programs, cpu_seconds, measure, run_as_command

RATE, PER_FRAME, SHARDS = 2_000, 3, 8


@dataclass(frozen=True)
class Quiet:
    """What was found."""

    seconds: float
    shares: Mapping[str, float]
    """Of one core, 0..1, at RATE trades/s; by contender, ours first."""
    trades: int
    """Trades routed before memory was looked at."""
    resident: int
    """Bytes resident (VmRSS) then."""
    peak: int
    """The most that ever was (VmHWM)."""

    @property
    def share(self) -> float:
        """The balancer's."""
        return self.shares[OURS.label]


def run(directory: Path, seconds: float, trades: int) -> Quiet:
    """Measure both, one after the other."""
    shares = {OURS.label: _share(flow.balancer(directory / "quiet", SHARDS), seconds)}
    for bare in (FLOOR, ROTATE):
        shares[bare.label] = _share(flow.floor(directory / f"quiet-{bare.name}", bare, SHARDS), seconds)
    made = block.trades()
    frames = block.write_block(directory / "quiet.block", [text for _, text in made], 128)
    expected = block.write_expected(directory / "quiet.expected", made, SHARDS)
    repeats = max(1, -(-trades // frames.trades))
    memory: list[int] = []
    result = measure(
        OURS, frames, expected, SHARDS, repeats, directory / "memory", lambda pid: memory.extend(_memory(pid))
    )
    return Quiet(seconds, shares, result.trades, *memory)


def _share(started: AbstractContextManager[flow.Flow], seconds: float) -> float:
    with started as contender, _readers(contender.directory / "shards"):
        pid = contender.process.pid
        contender.send(PER_FRAME, [(RATE, 1)], 30)
        before, began = cpu_seconds(pid), time.monotonic()
        contender.send(PER_FRAME, [(RATE, seconds)], seconds + 30)
        return (cpu_seconds(pid) - before) / (time.monotonic() - began)


def _memory(pid: int) -> tuple[int, int]:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) << 10, int(fields["VmHWM"].split()[0]) << 10


@contextlib.contextmanager
def _readers(fifos: Path) -> Iterator[None]:
    """Read all FIFOs, and forget what comes."""
    fds = [os.open(fifos / f"shard-{shard}.fifo", os.O_RDONLY | os.O_NONBLOCK) for shard in range(SHARDS)]
    stop, stopper = os.pipe()

    def drain() -> None:
        with selectors.DefaultSelector() as selector:
            for fd in (*fds, stop):
                selector.register(fd, selectors.EVENT_READ)
            while all(key.fd != stop and os.read(key.fd, 1 << 20) for key, _ in selector.select()):
                pass

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield
    finally:
        os.close(stopper)
        thread.join()
        for fd in (*fds, stop):
            os.close(fd)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="at 2,000 trades/s (default: 20)")
    parser.add_argument("--trades", type=int, default=10_000_000, help="at full speed (default: 10 million)")
    arguments = parser.parse_args()
    compile_programs("pace", "load", "floor")
    with tempfile.TemporaryDirectory() as directory:
        found = run(Path(directory), arguments.seconds, arguments.trades)
    for name, share in found.shares.items():
        print(f"{share:.2%} of a core at {RATE}/s over {found.seconds:g} s: {name}")
    resident, peak = found.resident / 2**20, found.peak / 2**20
    print(f"{resident:.1f} MiB resident after {found.trades} trades, at most {peak:.1f} MiB")
    return 0


if __name__ == "__main__":
    run_as_command(main)
