"""The worker's own metrics; counted per batch, never per trade."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tradebal.monitoring.histogram import Histogram
from tradebal.monitoring.publish import UnitCollector
from tradebal.stream.batch import Batch
from tradebal.stream.gap import REASONS, Gap
from tradebal.stream.trade_time import time_ns

_SECONDS = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SHORT_LATENCIES = (5e-5, 1e-4, 2.5e-4, 5e-4, *_LATENCIES)
_SPACING_NS = 10_000_000
"""Time between two looks into a trade, in nanoseconds: one takes longer than all else that is counted."""


class WorkerSeries(Collector):
    """Series of one worker; which worker it is, the publisher's `shard` label tells."""

    def __init__(self, registry: CollectorRegistry, unit: str, time_key: str) -> None:
        """Register all; trades hold their time under `time_key`, or, if that is empty, hold none."""
        self._time_key = time_key
        self._batches = self._trades = self._bytes = self._undecodable = 0
        self._gaps = dict.fromkeys(REASONS, 0)
        self._last_read_ns = self._looked_ns = 0
        self._seconds = Histogram(*_SECONDS)
        self._latency = Histogram(*_SHORT_LATENCIES)
        self._provider_latency = Histogram(*_LATENCIES)
        self.exceptions = 0
        """Calls of the handler that ended in one."""
        registry.register(UnitCollector(unit))
        registry.register(self)

    def handled(self, batch: Batch, seconds: float, done_ns: int) -> None:
        """Count a batch that took the handler so long, and that it was done with at `done_ns` (CLOCK_REALTIME)."""
        self._batches += 1
        self._trades += len(batch)
        self._bytes += len(batch.raw)
        self._undecodable += batch.undecodable
        self._last_read_ns = batch.received_ns
        self._seconds.observe(seconds)
        if self._time_key and not 0 <= done_ns - self._looked_ns < _SPACING_NS:
            self._looked_ns = done_ns
            if (at := self._time(batch.lines()[0])) is not None:
                self._provider_latency.observe(max(0, done_ns - at) / 1e9)

    def late(self, seconds: Iterable[float]) -> None:
        """Count how long trades took from the balancer's receipt to when they were handled."""
        for latency in seconds:
            self._latency.observe(latency)

    def missed(self, gap: Gap) -> None:
        """Count a gap under its reason."""
        self._gaps[gap.reason] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield every family, each series from the start."""
        for name, text, value in (
            ("trades", "Trades that this shard's worker handed to its handler.", self._trades),
            ("bytes", "Bytes of those trades, framing included.", self._bytes),
            ("batches", "Batches in which it handed them over: one for each read from the FIFO.", self._batches),
            ("undecodable", "Trades that the handler skipped because they aren't a JSON object.", self._undecodable),
            ("handler_exceptions", "Calls of the handler that ended in an exception.", self.exceptions),
        ):
            yield CounterMetricFamily(f"tradebal_worker_{name}", text, value)
        yield self._seconds.family(
            "tradebal_worker_handler_seconds", "Time that the handler took for one batch, in seconds."
        )
        gaps = CounterMetricFamily(
            "tradebal_worker_gaps",
            "Places in the shard's stream where trades are missing: the upstream connection was lost (disconnect), "
            "this worker was too slow for too long (overflow), or a record was torn by a restart (restart).",
            labels=["reason"],
        )
        for reason, count in self._gaps.items():
            gaps.add_metric([reason], count)
        yield gaps
        yield GaugeMetricFamily(
            "tradebal_worker_last_read_timestamp_seconds",
            "When the worker read trades last, in seconds since the epoch; 0: never.",
            self._last_read_ns / 1e9,
        )
        yield self._latency.family(
            "tradebal_worker_latency_seconds",
            "Time from the balancer's receipt of a trade to when the handler was done with it, in seconds, of at most "
            "25 trades a second of all shards.",
        )
        yield self._provider_latency.family(
            "tradebal_worker_provider_latency_seconds",
            "Time from a trade's own time stamp to when the handler was done with it, in seconds, of at most 100 "
            "trades a second. It has the difference between the provider's clock and this machine's in it; less than "
            "none counts as none.",
        )

    def _time(self, record: bytes) -> int | None:
        try:
            trade = orjson.loads(record)
        except orjson.JSONDecodeError:
            return None
        return time_ns(trade.get(self._time_key)) if isinstance(trade, dict) else None
