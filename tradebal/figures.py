"""What a running system shows of itself in its metrics files, as figures to look at: rates, backlog, losses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Metric

from tradebal import metrics


@dataclass(frozen=True)
class ShardFigures:
    """One shard at one moment; trades are totals since the balancer's, or the worker's, start."""

    routed: int = 0
    handled: int = 0
    fifo_bytes: int = 0
    fifo_capacity: int = 0
    overflow_bytes: int = 0
    dropped: int = 0

    @property
    def backlog(self) -> int:
        """Bytes that wait for the worker."""
        return self.fifo_bytes + self.overflow_bytes


@dataclass(frozen=True)
class Figures:
    """The whole system at one moment."""

    at: float
    """When the balancer published, seconds since the epoch."""
    connected: bool
    routed: int
    received_bytes: int
    rejects: int
    highest: float
    """Highest rate of 8192 trades, per second."""
    shards: tuple[ShardFigures, ...]

    @property
    def handled(self) -> int:
        """Trades that handlers have taken."""
        return sum(shard.handled for shard in self.shards)

    @property
    def dropped(self) -> int:
        """Trades dropped for a full shard."""
        return sum(shard.dropped for shard in self.shards)

    @property
    def backlog(self) -> int:
        """Bytes that wait for workers."""
        return sum(shard.backlog for shard in self.shards)


@dataclass(frozen=True)
class Rates:
    """Trades per second between two moments."""

    routed: float
    shards: tuple[float, ...]


def read(directory: Path) -> Figures | None:
    """Read the figures from a system's metrics directory; None where no balancer has published."""
    try:
        at = (directory / f"balancer{metrics.SUFFIX}").stat().st_mtime
    except OSError:
        return None
    units = metrics.read(directory)
    balancer = units.get("balancer")
    if balancer is None:
        return None
    routed = _by_shard(balancer, "tradebal_shard_trades_total")
    fifo = _by_shard(balancer, "tradebal_shard_fifo_bytes")
    capacity = _by_shard(balancer, "tradebal_shard_fifo_capacity_bytes")
    overflow = _by_shard(balancer, "tradebal_shard_overflow_bytes")
    dropped = _by_shard(balancer, "tradebal_shard_dropped_trades_total")
    handled: dict[int, int] = {}
    for unit, families in units.items():
        if unit.startswith("worker-"):
            handled |= _by_shard(families, "tradebal_worker_trades_total")
    return Figures(
        at=at,
        connected=metrics.value(balancer, "tradebal_connected") == 1,
        routed=int(metrics.value(balancer, "tradebal_trades_total")),
        received_bytes=int(metrics.value(balancer, "tradebal_received_bytes_total")),
        rejects=int(metrics.value(balancer, "tradebal_rejects_total")),
        highest=metrics.value(balancer, "tradebal_batch_rate_highest"),
        shards=tuple(
            ShardFigures(
                routed[shard],
                handled.get(shard, 0),
                fifo.get(shard, 0),
                capacity.get(shard, 0),
                overflow.get(shard, 0),
                dropped.get(shard, 0),
            )
            for shard in sorted(routed)
        ),
    )


def rates(before: Figures | None, now: Figures) -> Rates:
    """Compute rates between two moments; zeros where there is nothing to compare with."""
    if before is None or now.at - before.at < 0.001 or len(before.shards) != len(now.shards):
        return Rates(0.0, (0.0,) * len(now.shards))
    seconds = now.at - before.at
    return Rates(
        max(0.0, now.routed - before.routed) / seconds,
        tuple(max(0.0, new.routed - old.routed) / seconds for old, new in zip(before.shards, now.shards, strict=True)),
    )


def _by_shard(families: Iterable[Metric], name: str) -> dict[int, int]:
    return {
        int(sample.labels["shard"]): int(sample.value)
        for family in families
        for sample in family.samples
        if sample.name == name
    }
