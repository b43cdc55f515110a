"""What being seen costs: CPU share of publishing metrics, and a scrape of 256 shards.

python bench/seen.py [--seconds S] [--rounds N]
"""

from __future__ import annotations

import argparse
import http.client
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import flow
from harness import BenchError, any_cpu, cpu_seconds, run_as_command, running

SHARDS = (8, 256)
SCRAPES = 20
_SELDOM = 60.0
"""Seconds between two publications where there are as good as none."""
_TIMEOUT = 30.0


@dataclass(frozen=True)
class Publishing:
    """A balancer that waits for trades: CPU share of one core, 0..1, the medians of the rounds."""

    shards: int
    each_second: float
    """Metrics are published each second, as by default."""
    never: float


@dataclass(frozen=True)
class Scrape:
    """A scrape of the balancer's and the workers' files: medians."""

    shards: int
    bytes: int
    """Of the answer."""
    wall: float
    """Seconds from the request to the answer's last byte."""
    cpu: float
    """Seconds of the exporter."""
    reading: float
    """Seconds that it takes to read the same files and do nothing with them."""


def run(directory: Path, rounds: int, seconds: float) -> tuple[list[Publishing], Scrape]:
    """Measure both."""
    found = []
    for shards in SHARDS:
        each_second, never = [], []
        for number in range(rounds):
            for shares, interval in ((each_second, 1.0), (never, _SELDOM)):
                place = directory / f"seen-{shards}-{number}-{interval:g}"
                with flow.balancer(place, shards, metrics=f"interval = {interval}") as balancer:
                    shares.append(_share(balancer.process.pid, seconds))
        found.append(Publishing(shards, statistics.median(each_second), statistics.median(never)))
    return found, _scrape(directory / "scrape", SHARDS[-1])


def _share(pid: int, seconds: float) -> float:
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - began)


def _scrape(directory: Path, shards: int) -> Scrape:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with flow.balancer(directory, shards, metrics=f'address = "127.0.0.1:{port}"'):
        metrics = directory / "shards" / "metrics"
        flow.wait_until(_TIMEOUT, "the balancer's metrics", (metrics / "balancer.prom").exists)
        command = [sys.executable, "-m", "tradebal", "exporter", "--config", directory / "tradebal.toml"]
        with running(command, directory / "exporter.log", any_cpu()) as exporter:
            flow.wait_until(_TIMEOUT, "the exporter", lambda: _answers(port))
            sizes, wall, cpu, reading = [], [], [], []
            for _ in range(SCRAPES):
                _publish_workers(metrics, shards)
                before, began = cpu_seconds(exporter.pid), time.perf_counter()
                text = _get(port, "/metrics")
                wall.append(time.perf_counter() - began)
                cpu.append(cpu_seconds(exporter.pid) - before)
                for name in ("tradebal_shard_trades_total", "tradebal_worker_trades_total"):
                    if (series := text.count(f"\n{name}{{".encode())) != shards:
                        raise BenchError(f"{series} series of {name} instead of {shards}")
                sizes.append(len(text))
                began = time.perf_counter()
                for path in metrics.glob("*.prom"):
                    path.read_bytes()
                reading.append(time.perf_counter() - began)
    return Scrape(shards, *(statistics.median(values) for values in (sizes, wall, cpu, reading)))


def _publish_workers(directory: Path, shards: int) -> None:
    """Write what so many workers would, each with a registry of its own."""
    from prometheus_client import CollectorRegistry

    from tradebal.monitoring.publish import Publisher
    from tradebal.worker.series import WorkerSeries

    for shard in range(shards):
        registry = CollectorRegistry()
        WorkerSeries(registry, f"worker-{shard}", "t")
        Publisher(registry, directory, f"worker-{shard}", {"shard": str(shard)}).publish()


def _answers(port: int) -> bool:
    try:
        return bool(_get(port, "/-/healthy"))
    except OSError:
        return False


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise BenchError(f"{path}: {answer.status} {answer.reason}")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement (default: 8)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        published, scrape = run(Path(directory), arguments.rounds, arguments.seconds)
    for each in published:
        print(f"{each.shards} shards: {each.each_second:.2%} of a core, {each.never:.2%} without publishing")
    print(
        f"scrape of {scrape.shards} shards: {scrape.wall * 1e3:.0f} ms, CPU {scrape.cpu * 1e3:.0f} ms, "
        f"{scrape.bytes:,.0f} bytes; reading the files alone: {scrape.reading * 1e3:.0f} ms"
    )
    return 0


if __name__ == "__main__":
    run_as_command(main)
