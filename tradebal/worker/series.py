"""The worker's own metrics; counted per batch, never per trade."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from tradebal.gap import REASONS, Gap

_SECONDS = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


class WorkerSeries:
    """Series of one worker; which worker it is, the publisher's `shard` label tells."""

    def __init__(self, registry: CollectorRegistry) -> None:
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

    def count_gap(self, gap: Gap) -> None:
        """Count it under its reason."""
        self._gaps[gap.reason].inc()
