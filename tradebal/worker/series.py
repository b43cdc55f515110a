"""The worker's own metrics; counted per batch, never per trade."""

from __future__ import annotations

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tradebal.gap import REASONS, Gap
from tradebal.metrics import UnitCollector
from tradebal.trade_time import time_ns

_SECONDS = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class WorkerSeries:
    """Series of one worker; which worker it is, the publisher's `shard` label tells."""

    def __init__(self, registry: CollectorRegistry, unit: str, time_key: str) -> None:
        """Register all; trades hold their time under `time_key`, or, if that is empty, hold none."""
        registry.register(UnitCollector(unit))
        self._time_key = time_key

        def counter(name: str, text: str) -> Counter:
            return Counter(f"tradebal_worker_{name}", text, registry=registry)

        self.trades = counter("trades", "Trades that this shard's worker handed to its handler.")
        self.bytes = counter("bytes", "Bytes of those trades, framing included.")
        self.batches = counter("batches", "Batches in which it handed them over: one for each read from the FIFO.")
        self.undecodable = counter("undecodable", "Trades that the handler skipped because they aren't a JSON object.")
        self.exceptions = counter("handler_exceptions", "Calls of the handler that ended in an exception.")
        self.seconds = Histogram(
            "tradebal_worker_handler_seconds",
            "Time that the handler took for one batch, in seconds.",
            registry=registry,
            buckets=_SECONDS,
        )
        gaps = Counter(
            "tradebal_worker_gaps",
            "Places in the shard's stream where trades are missing: the upstream connection was lost (disconnect), "
            "this worker was too slow for too long (overflow), or a record was torn by a restart (restart).",
            ["reason"],
            registry=registry,
        )
        self._gaps = {reason: gaps.labels(reason) for reason in REASONS}

        self.last_read = Gauge(
            "tradebal_worker_last_read_timestamp_seconds",
            "When the worker read trades last, in seconds since the epoch; 0: never.",
            registry=registry,
        )
        self.provider_latency = Histogram(
            "tradebal_worker_provider_latency_seconds",
            "Time from a trade's own time stamp to when the handler was done with it, in seconds, of the first trade "
            "of each batch. It has the difference between the provider's clock and this machine's in it; less than "
            "none counts as none.",
            registry=registry,
            buckets=_LATENCIES,
        )

    def handled(self, first: bytes, done_ns: int) -> None:
        """Note that the handler was done at `done_ns` (CLOCK_REALTIME) with a batch, which this trade begins."""
        if not self._time_key:
            return
        try:
            trade = orjson.loads(first)
        except orjson.JSONDecodeError:
            return
        if isinstance(trade, dict) and (at := time_ns(trade.get(self._time_key))) is not None:
            self.provider_latency.observe(max(0, done_ns - at) / 1e9)

    def count_gap(self, gap: Gap) -> None:
        """Count it under its reason."""
        self._gaps[gap.reason].inc()
