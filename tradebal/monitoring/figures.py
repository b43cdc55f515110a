"""What a running system shows of itself in its metrics files, as figures to look at: rates, backlog, losses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from prometheus_client import Metric

from tradebal.monitoring import publish
from tradebal.text import printable


@dataclass(frozen=True)
class ShardFigures:
    """One shard at one moment; trades are totals since the balancer's, or the worker's, start."""

    routed: int = 0
    handled: int = 0
    fifo_bytes: int = 0
    fifo_capacity: int = 0
    overflow_bytes: int = 0
    dropped: int = 0
    unread_age: float = 0.0
    """Seconds that the oldest unread byte has waited."""
    exceptions: int = 0
    """Calls of the handler that failed."""
    up: bool = True
    """Whether the worker has published lately."""

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
    up: bool = True
    """Whether the balancer has published lately; if not, all of this is of the past."""
    version: str = ""
    router: str = ""
    tls: str = ""
    state: str = ""
    """Where the connection stands: live, login, connecting, …"""
    live_since: float = 0.0
    """When it became live, seconds since the epoch; 0 while it isn't."""
    last_data: float = 0.0
    """When bytes came last, likewise; 0: never."""
    disconnects: int = 0
    gap_seconds: float = 0.0
    """Seconds of the market missed while there was no connection."""
    last: float = 0.0
    """Latest rate of 8192 trades, per second."""
    highest_minute: float = 0.0
    lowest_minute: float = 0.0
    lags: tuple[tuple[float, int], ...] = ()
    """How many trades were under way for at most so many seconds, since the balancer's start."""
    top: Mapping[str, int] = field(default_factory=dict)
    """Symbols with the most trades in the last minute, most first."""

    @property
    def exceptions(self) -> int:
        """Calls of handlers that failed."""
        return sum(shard.exceptions for shard in self.shards)

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
    """What happened between two moments: trades per second, and how long trades were under way."""

    routed: float
    shards: tuple[float, ...]
    lag_median: float | None = None
    """Seconds from a trade's own time stamp to its receipt; None where nothing is known."""
    lag_late: float | None = None
    """The same, of the 99th percentile."""


_READ = (
    "tradebal_batch_rate_",
    "tradebal_build_info",
    "tradebal_connect",
    "tradebal_disconnects_total",
    "tradebal_last_data_",
    "tradebal_provider_lag_seconds_bucket",
    "tradebal_received_bytes_total",
    "tradebal_rejects_total",
    "tradebal_shard_",
    "tradebal_top_symbol_trades",
    "tradebal_trades_total",
    "tradebal_upstream_gap_seconds_total",
    "tradebal_worker_handler_exceptions_total",
    "tradebal_worker_trades_total",
)
"""What the names of the samples begin with that `read` looks at."""


def read(directory: Path) -> Figures | None:
    """Read the figures from a system's metrics directory; None where no balancer has published."""
    at = published(directory)
    units = publish.read(directory, _READ)
    balancer = units.get("balancer")
    if balancer is None or not at:
        return None
    oldest = time.time() - publish.STALE_AFTER
    routed = _by_shard(balancer, "tradebal_shard_trades_total")
    fifo = _by_shard(balancer, "tradebal_shard_fifo_bytes")
    capacity = _by_shard(balancer, "tradebal_shard_fifo_capacity_bytes")
    overflow = _by_shard(balancer, "tradebal_shard_overflow_bytes")
    dropped = _by_shard(balancer, "tradebal_shard_dropped_trades_total")
    ages = _by_shard(balancer, "tradebal_shard_unread_age_seconds")
    handled: dict[int, float] = {}
    exceptions: dict[int, float] = {}
    up: set[int] = set()
    for unit, families in units.items():
        if unit.startswith("worker-"):
            theirs = _by_shard(families, "tradebal_worker_trades_total")
            handled |= theirs
            exceptions |= _by_shard(families, "tradebal_worker_handler_exceptions_total")
            if _written(directory, unit) >= oldest:
                up.update(theirs)
    build = _labels(balancer, "tradebal_build_info")
    return Figures(
        at=at,
        connected=publish.value(balancer, "tradebal_connected") == 1,
        routed=int(publish.value(balancer, "tradebal_trades_total")),
        received_bytes=int(publish.value(balancer, "tradebal_received_bytes_total")),
        rejects=int(publish.value(balancer, "tradebal_rejects_total")),
        highest=publish.value(balancer, "tradebal_batch_rate_highest"),
        shards=tuple(
            ShardFigures(
                int(routed[shard]),
                int(handled.get(shard, 0)),
                int(fifo.get(shard, 0)),
                int(capacity.get(shard, 0)),
                int(overflow.get(shard, 0)),
                int(dropped.get(shard, 0)),
                ages.get(shard, 0.0),
                int(exceptions.get(shard, 0)),
                shard in up,
            )
            for shard in sorted(routed)
        ),
        up=at >= oldest,
        version=build.get("version", ""),
        router=build.get("router", ""),
        tls=build.get("tls", ""),
        state=_labels(balancer, "tradebal_connection_state").get("state", ""),
        live_since=publish.value(balancer, "tradebal_connected_timestamp_seconds"),
        last_data=publish.value(balancer, "tradebal_last_data_timestamp_seconds"),
        disconnects=int(publish.value(balancer, "tradebal_disconnects_total")),
        gap_seconds=publish.value(balancer, "tradebal_upstream_gap_seconds_total"),
        last=publish.value(balancer, "tradebal_batch_rate_last"),
        highest_minute=publish.value(balancer, "tradebal_batch_rate_highest_minute"),
        lowest_minute=publish.value(balancer, "tradebal_batch_rate_lowest_minute"),
        lags=tuple(
            (float(sample.labels["le"]), int(sample.value))
            for family in balancer
            for sample in family.samples
            if sample.name == "tradebal_provider_lag_seconds_bucket"
        ),
        top={
            printable(sample.labels["symbol"]): int(sample.value)
            for family in balancer
            for sample in family.samples
            if sample.name == "tradebal_top_symbol_trades"
        },
    )


def rates(before: Figures | None, now: Figures) -> Rates:
    """Compute rates between two moments; zeros where there is nothing to compare with."""
    if before is None or now.at - before.at < 0.001 or len(before.shards) != len(now.shards):
        return Rates(0.0, (0.0,) * len(now.shards))
    seconds = now.at - before.at
    counts = [(le, count - was) for (le, count), (_, was) in zip(now.lags, before.lags, strict=False)]
    return Rates(
        max(0.0, now.routed - before.routed) / seconds,
        tuple(max(0.0, new.routed - old.routed) / seconds for old, new in zip(before.shards, now.shards, strict=True)),
        quantile(0.5, counts),
        quantile(0.99, counts),
    )


def quantile(fraction: float, counts: list[tuple[float, int]]) -> float | None:
    """Estimate below which value that fraction of a histogram's observations lies, as Prometheus does; None: unknown.

    `counts` are (inclusive upper bound, observations up to it), ascending to infinity.
    """
    if not counts or counts[-1][1] <= 0:
        return None
    rank = fraction * counts[-1][1]
    for (lower, below), (upper, until) in pairwise([(0.0, 0), *counts]):
        if until >= rank:
            return lower if upper == float("inf") else lower + (upper - lower) * (rank - below) / (until - below)
    return None


def published(directory: Path) -> float:
    """Return when the balancer published last, in seconds since the epoch; 0: never."""
    return _written(directory, "balancer")


def _written(directory: Path, unit: str) -> float:
    """Return when the unit published, in seconds since the epoch; 0: never."""
    try:
        return (directory / f"{unit}{publish.SUFFIX}").stat().st_mtime
    except OSError:
        return 0.0


def _labels(families: Iterable[Metric], name: str) -> Mapping[str, str]:
    """Return the labels of that name's sample which is 1."""
    for family in families:
        for sample in family.samples:
            if sample.name == name and sample.value == 1:
                return {key: printable(text) for key, text in sample.labels.items()}
    return {}


def _by_shard(families: Iterable[Metric], name: str) -> dict[int, float]:
    return {
        int(sample.labels["shard"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }
