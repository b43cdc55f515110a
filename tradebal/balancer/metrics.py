"""Shows the balancer's state to Prometheus, read from the router's own counters when it is written, never per trade."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tradebal.balancer.fifos import Fifo
from tradebal.balancer.overflow import Overflow
from tradebal.balancer.stats import StatsLines
from tradebal.router.interface import Router


class LinkState(Protocol):
    """What is shown of the upstream connection."""

    @property
    def connected(self) -> bool:
        """Whether login and subscription are through."""

    @property
    def connects(self) -> int:
        """Connections that became live since the start."""

    @property
    def disconnects(self) -> dict[str, int]:
        """Lost connections and failed tries since the start, by reason; every reason is there from the start."""


class BalancerCollector(Collector):
    """One scrape's worth of the balancer's metrics."""

    def __init__(
        self,
        router: Router,
        link: LinkState,
        fifos: Sequence[Fifo],
        overflows: Sequence[Overflow],
        stats: StatsLines,
    ) -> None:
        """Read from these whenever collected."""
        self._router = router
        self._link = link
        self._fifos = fifos
        self._overflows = overflows
        self._stats = stats

    def register(self) -> CollectorRegistry:
        """Put the collector into a registry of its own."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def collect(self) -> Iterable[Metric]:
        """Yield every family, each series from the start."""
        counters = self._router.counters()
        yield CounterMetricFamily("tradebal_trades", "Trades routed to a shard.", counters.trades)
        yield CounterMetricFamily(
            "tradebal_trade_bytes", "Bytes of JSON of the trades routed to a shard.", counters.trade_bytes
        )
        yield CounterMetricFamily(
            "tradebal_received_bytes", "Bytes received from the provider, after TLS.", counters.bytes
        )
        yield CounterMetricFamily("tradebal_reads", "Reads that gave bytes from the provider.", counters.reads)
        yield CounterMetricFamily("tradebal_frames", "Websocket frames received.", counters.frames)
        yield CounterMetricFamily("tradebal_messages", "Websocket data messages received.", counters.messages)
        yield CounterMetricFamily(
            "tradebal_rejects",
            "Pieces of received messages that could not be routed: malformed JSON, or a trade without a symbol.",
            counters.rejects,
        )
        yield CounterMetricFamily("tradebal_writes", "Writes to FIFOs that took bytes.", counters.writes)
        yield GaugeMetricFamily(
            "tradebal_connected", "1 while logged in and subscribed at the provider, else 0.", int(self._link.connected)
        )
        yield CounterMetricFamily(
            "tradebal_connects", "Connections that got as far as being subscribed.", self._link.connects
        )
        disconnects = CounterMetricFamily(
            "tradebal_disconnects", "Connections lost and tries that failed, by reason.", labels=["reason"]
        )
        for reason, count in self._link.disconnects.items():
            disconnects.add_metric([reason], count)
        yield disconnects
        yield GaugeMetricFamily(
            "tradebal_batch_rate_highest",
            "Highest rate of 8192 trades since the start, per second.",
            self._stats.highest,
        )
        yield GaugeMetricFamily(
            "tradebal_batch_rate_last", "Rate of the latest 8192 trades, per second.", self._stats.last
        )
        router_info = GaugeMetricFamily(
            "tradebal_router_info", "Which router runs: native (C), or python (slow).", labels=["kind"]
        )
        router_info.add_metric([self._router.kind], 1)
        yield router_info
        yield from self._shards()

    def _shards(self) -> Iterable[Metric]:
        trades = CounterMetricFamily("tradebal_shard_trades", "Trades routed to the shard.", labels=["shard"])
        size = CounterMetricFamily(
            "tradebal_shard_bytes", "Bytes of JSON of the trades routed to the shard.", labels=["shard"]
        )
        dropped = CounterMetricFamily(
            "tradebal_shard_dropped_trades",
            "Trades dropped because the shard's FIFO and its overflow were full.",
            labels=["shard"],
        )
        unread = GaugeMetricFamily(
            "tradebal_shard_fifo_bytes", "Bytes in the shard's FIFO that its worker has not read.", labels=["shard"]
        )
        capacity = GaugeMetricFamily(
            "tradebal_shard_fifo_capacity_bytes", "Bytes that the shard's FIFO can hold.", labels=["shard"]
        )
        overflow = GaugeMetricFamily(
            "tradebal_shard_overflow_bytes", "Bytes that wait behind the shard's full FIFO.", labels=["shard"]
        )
        by_shard = zip(self._fifos, self._router.shard_counters(), self._overflows, strict=True)
        for fifo, counted, waiting in by_shard:
            label = [str(fifo.shard)]
            trades.add_metric(label, counted.trades)
            size.add_metric(label, counted.bytes)
            dropped.add_metric(label, waiting.dropped)
            unread.add_metric(label, fifo.unread())
            capacity.add_metric(label, fifo.capacity)
            overflow.add_metric(label, waiting.size)
        return trades, size, dropped, unread, capacity, overflow
