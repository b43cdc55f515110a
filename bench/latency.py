"""Time from the provider's send() to the worker's handler, beside a bare socket → FIFO → reader relay in the same run.

python bench/latency.py [--rounds N] [--seconds S]
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import arrivals
import flow
from harness import HERE, OUT, BenchError, compile_programs, run_as_command

RATES = ((2_000, 3), (50_000, 15))
"""Trades/s, and the trades a frame that go with it on a real day."""
PERCENTILES = (50.0, 99.0, 99.9)
NAMES = {
    "tradebal": "tradebal balancer → tradebal worker",
    "balancer": "tradebal balancer, read in C",
    "relay": "bare relay, read in C",
    "python": "bare relay, read in Python",
}
"""What is measured, in this order."""
COMPARED = (("tradebal", "relay"), ("tradebal", "python"), ("balancer", "relay"))
"""Names of which the first is told as a multiple of the second."""
_READERS: dict[str, list[str | Path]] = {
    "relay": [OUT / "relay", "read"],
    "python": [sys.executable, HERE / "reader.py"],
}
_REST = 0.5
"""Seconds that the last trades get to arrive."""
_STAMP = re.compile(rb'"i":"(\d{19})"}')


@dataclass(frozen=True)
class Latency:
    """Microseconds at PERCENTILES, of one run or the medians of several."""

    name: str
    rate: int
    values: tuple[float, ...]


def read_log(path: Path) -> Iterator[int]:
    """Give each trade's nanoseconds from its stamp to the read that completed it."""
    rest = b""
    for when, data in arrivals.read(path):
        chunk = rest + data
        end = 0
        for found in _STAMP.finditer(chunk):
            yield when - int(found[1])
            end = found.end()
        rest = chunk[end:]


def percentiles(nanoseconds: list[int]) -> tuple[float, ...]:
    """Give microseconds at PERCENTILES (nearest rank)."""
    ordered = sorted(nanoseconds)
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] / 1000 for p in PERCENTILES)


def run(directory: Path, rounds: int, seconds: float, shards: int = 1) -> list[Latency]:
    """Measure all at each rate, in turn; gives the medians over the rounds, in the order of NAMES."""
    results = []
    for rate, per_frame in RATES:
        measured: dict[str, list[tuple[float, ...]]] = {name: [] for name in NAMES}
        phases = [(rate, 0.3), (rate, seconds)]
        for number in range(rounds):
            place = directory / f"latency-{shards}-{rate}-{number}"
            log = directory / f"{place.name}.log"
            logs = [Path(f"{log}-{shard}") for shard in range(shards)]
            flows = {
                "tradebal": (flow.balancer(place, shards, "handlers:Stamp", f'log = "{log}"'), logs),
                "balancer": (flow.read_balancer(directory / f"{place.name}-read", logs, _READERS["relay"]), logs),
            }
            for name, reader in _READERS.items():
                flows[name] = flow.relay(directory / f"{place.name}-{name}", log, reader), [log]
            for name, (opened, written) in flows.items():
                with opened as each:
                    sent = each.send(per_frame, phases, seconds + 30)
                    time.sleep(_REST)
                measured[name].append(_latencies(written, sent.trades))
        for name, values in measured.items():
            medians = tuple(statistics.median(column) for column in zip(*values, strict=True))
            results.append(Latency(name, rate, medians))
    return results


def _latencies(logs: list[Path], sent: int) -> tuple[float, ...]:
    found = [nanoseconds for log in logs for nanoseconds in read_log(log)]
    if len(found) != sent:
        raise BenchError(f"{sent} trades were sent, {len(found)} arrived")
    return percentiles(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--shards", type=int, default=1, help="shards, each with a worker of its own (default: 1)")
    arguments = parser.parse_args()
    compile_programs("pace", "relay")
    with tempfile.TemporaryDirectory() as directory:
        for line in run(Path(directory), arguments.rounds, arguments.seconds, arguments.shards):
            values = (f"p{p:g} {value:.0f} us" for p, value in zip(PERCENTILES, line.values, strict=True))
            print(f"{line.rate:>6}/s {line.name:<9}", *values)
    return 0


if __name__ == "__main__":
    run_as_command(main)
