"""The market's open: 800,000 trades/s for three seconds, 4 workers that count; how long until the backlog is gone.

    python bench/burst.py [--seconds S]

The naive client, which only decodes and counts, gets the same trades.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import flow
from harness import BenchError, compile_programs, run_as_command

WORKERS = 4
PEAK = 800_000
PER_FRAME = 128
# The founding article's morning, each step a third of a second.
_RAMP = (572, 1_500, 4_500, 33_000, 40_000, 53_000)


@dataclass(frozen=True)
class Burst:
    """What became of one burst."""

    name: str
    trades: int
    behind: float
    """Seconds from the moment at which the last trade was due until it was counted."""
    late: float
    """Seconds by which the provider had to send the last trade later, since it wasn't taken."""


def run(directory: Path, seconds: float) -> list[Burst]:
    """Send the burst to tradebal, then to the naive client; BenchError if a trade is missing."""
    phases = [*((rate, 0.33) for rate in _RAMP), (PEAK, seconds)]
    tally = directory / "tally"
    files = [Path(f"{tally}-{shard}") for shard in range(WORKERS)]
    with flow.balancer(directory / "burst", WORKERS, "handlers:Tally", f'file = "{tally}"') as balancer:
        ours = _burst("tradebal", balancer, phases, files)
    count = directory / "count"
    with flow.client(directory / "burst-naive", "count_client.py", count) as client:
        naive = _burst("websocket-client + orjson", client, phases, [count])
    return [ours, naive]


def _burst(name: str, under_test: flow.Flow, phases: flow.Phases, files: Sequence[Path]) -> Burst:
    sent = under_test.send(PER_FRAME, phases, 600)
    flow.wait_until(600, "the last trade", lambda: _tally(files)[0] >= sent.trades)
    trades, last = _tally(files)
    if trades != sent.trades:
        raise BenchError(f"{name}: {sent.trades} trades were sent, {trades} counted")
    return Burst(name, trades, (last - sent.due_ns) / 1e9, max(0.0, (sent.end_ns - sent.due_ns) / 1e9))


def _tally(files: Sequence[Path]) -> tuple[int, int]:
    both = [struct.unpack("=QQ", file.read_bytes()) for file in files]
    return sum(trades for trades, _ in both), max(when for _, when in both)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="at the peak rate (default: 3)")
    arguments = parser.parse_args()
    compile_programs("pace")
    with tempfile.TemporaryDirectory() as directory:
        for burst in run(Path(directory), arguments.seconds):
            print(
                f"{burst.name:<26} {burst.trades} trades, gone {burst.behind:.2f} s after the end, "
                f"sent {burst.late:.2f} s late"
            )
    return 0


if __name__ == "__main__":
    run_as_command(main)
