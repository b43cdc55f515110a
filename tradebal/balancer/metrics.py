"""Shows the balancer's state to Prometheus, read from the router's own counters when it is written, never per trade."""

from __future__ import annotations

import platform
import socket
import struct
import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import tradebal
from tradebal.balancer.outlet import Outlets
from tradebal.balancer.samples import Samples
from tradebal.balancer.stats import StatsLines
from tradebal.balancer.unread import UnreadAge
from tradebal.balancer.watch import Watch
from tradebal.monitoring.publish import UnitCollector
from tradebal.router.interface import EventKind, Router
from tradebal.stream import pipes
from tradebal.stream.framing import OVERHEAD, Framing
from tradebal.upstream.link import Link, Phase

_TCP_INFO_RTT = 68
"""Offset of tcpi_rtt (smoothed round trip, microseconds, 32 bits) in struct tcp_info (linux/tcp.h)."""

_COUNTERS = (
    ("trades", "trades", "Trades routed to a shard."),
    ("trade_bytes", "trade_bytes", "Bytes of JSON of the trades routed to a shard."),
    ("received_bytes", "bytes", "Bytes received from the provider, after TLS."),
    ("reads", "reads", "Reads that gave bytes from the provider."),
    ("frames", "frames", "Websocket frames received, control frames included."),
    ("writes", "writes", "Writes to FIFOs that took bytes."),
    (
        "skipped_objects",
        "skipped",
        "Received objects of a type that the feed's profile neither routes nor needs, such as quotes: skipped.",
    ),
    ("written_bytes", "written", "Bytes that these writes took. What went through an overflow isn't among them."),
)
"""(metric, field of the router's Counters, help)."""

_CONTROL = {"ping": EventKind.PING, "pong": EventKind.PONG, "close": EventKind.CLOSE}


class BalancerCollector(Collector):
    """One scrape's worth of the balancer's metrics."""

    def __init__(
        self,
        router: Router,
        link: Link,
        outlets: Outlets,
        stats: StatsLines,
        watch: Watch,
        samples: Samples,
        framing: Framing,
    ) -> None:
        """Read from these whenever collected."""
        self._router = router
        self._link = link
        self._outlets = outlets
        self._stats = stats
        self._watch = watch
        self._samples = samples
        self._overhead = OVERHEAD[framing]
        self._ages = [UnreadAge() for _ in outlets]

    def register(self) -> CollectorRegistry:
        """Put the collector into a registry of its own."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        registry.register(UnitCollector("balancer"))
        return registry

    def collect(self) -> Iterable[Metric]:
        """Yield every family, each series from the start."""
        yield self._build()
        yield from self._data()
        yield from self._batches(int(time.time()))
        yield from self._looked_into(int(time.time()))
        yield from self._connection()
        yield from self._shards(time.monotonic())

    def _build(self) -> Metric:
        labels = {
            "version": tradebal.__version__,
            "python": platform.python_version(),
            "router": self._router.kind,
            "tls": self._link.tls,
        }
        build = GaugeMetricFamily(
            "tradebal_build_info",
            "Always 1. The labels say which router runs: native (C), or python (slow); and who decrypts the present "
            "connection: the kernel, OpenSSL in the process (user), or nobody (none).",
            labels=list(labels),
        )
        build.add_metric(list(labels.values()), 1)
        return build

    def _data(self) -> Iterable[Metric]:
        counters = self._router.counters()
        for name, field, text in _COUNTERS:
            yield CounterMetricFamily(f"tradebal_{name}", text, getattr(counters, field))
        kinds = self._watch.kinds
        messages = CounterMetricFamily(
            "tradebal_messages",
            "Websocket messages received, by kind: data (text or binary), or the control frames ping, pong and close.",
            labels=["kind"],
        )
        messages.add_metric(["data"], counters.messages)
        for kind, event in _CONTROL.items():
            messages.add_metric([kind], kinds[event])
        yield messages
        yield CounterMetricFamily(
            "tradebal_notices",
            "Parts of data messages that are neither trades nor skipped: the provider's status messages and the like.",
            kinds[EventKind.MESSAGE],
        )
        rejects = CounterMetricFamily(
            "tradebal_rejects",
            "Pieces of received messages that could not be routed, by what is wrong with them. They are kept in "
            "rejects.ndjson.",
            labels=["reason"],
        )
        for reason, count in self._watch.rejects.items():
            rejects.add_metric([reason], count)
        yield rejects
        for name, text, at_ns in (
            ("data", "bytes came from the provider", self._watch.last_data_ns),
            ("trade", "trades came from the provider", self._watch.last_trade_ns),
        ):
            yield GaugeMetricFamily(
                f"tradebal_last_{name}_timestamp_seconds",
                f"When {text} last, in seconds since the epoch; 0: never.",
                at_ns / 1e9,
            )

    def _batches(self, second: int) -> Iterable[Metric]:
        stats, watch = self._stats, self._watch
        yield watch.rate.family("tradebal_batch_rate", "Rates of each 8192 trades, in trades per second.")
        for name, text, value in (
            ("last", "Rate of the latest 8192 trades, per second.", stats.last),
            (
                "highest",
                "Highest rate of 8192 trades since the start, per second, as they were taken in: above the provider's "
                "own where they had waited on the way.",
                stats.highest,
            ),
            ("lowest", "Lowest rate of 8192 trades since the start, per second.", stats.lowest if stats.last else 0.0),
            ("highest_minute", "Highest such rate in the last minute, per second.", watch.rates.highest(second)),
            ("lowest_minute", "Lowest rate of 8192 trades in the last minute, per second.", watch.rates.lowest(second)),
        ):
            yield GaugeMetricFamily(f"tradebal_batch_rate_{name}", f"{text} 0 without any.", value)
        yield watch.reads.family(
            "tradebal_batch_reads", "Reads that each 8192 trades took; 0 where they were in the buffer already."
        )
        yield watch.frames.family("tradebal_batch_frames", "Websocket frames that each 8192 trades came in.")
        yield watch.trades_per_frame.family("tradebal_batch_trades_per_frame", "Trades a frame, of each 8192 trades.")
        yield watch.bytes.family("tradebal_batch_bytes", "Bytes received for each 8192 trades.")

    def _looked_into(self, second: int) -> Iterable[Metric]:
        samples = self._samples
        yield samples.lag.family(
            "tradebal_provider_lag_seconds",
            "Time from a trade's own time stamp to its receipt, in seconds, of at most 25 trades a second. It has the "
            "difference between the provider's clock and this machine's in it; less than none counts as none.",
        )
        yield GaugeMetricFamily(
            "tradebal_provider_lag_lowest_seconds",
            "Lowest such time in the last minute, as measured. Below 0, this machine's clock or the provider's is "
            "wrong. 0 without any.",
            samples.lags.lowest(second),
        )
        top = GaugeMetricFamily(
            "tradebal_top_symbol_trades",
            "Trades of the 20 symbols that had most of them in the last minute, estimated from samples.",
            labels=["symbol"],
        )
        for symbol, count in samples.top(second):
            top.add_metric([symbol], count)
        yield top

    def _connection(self) -> Iterable[Metric]:
        link = self._link
        yield GaugeMetricFamily(
            "tradebal_connected", "1 while logged in and subscribed at the provider, else 0.", int(link.connected)
        )
        state = GaugeMetricFamily(
            "tradebal_connection_state", "1 for where the connection stands now, 0 for the others.", labels=["state"]
        )
        for phase in Phase:
            state.add_metric([phase.value], int(phase is link.phase))
        yield state
        yield GaugeMetricFamily(
            "tradebal_connected_timestamp_seconds",
            "When the present connection was subscribed, in seconds since the epoch; 0 while there is none.",
            link.live_since_ns / 1e9,
        )
        yield CounterMetricFamily(
            "tradebal_connects", "Connections that got as far as being subscribed.", link.connects
        )
        topics = GaugeMetricFamily(
            "tradebal_topics",
            "Topics of the subscription: asked for, and answered by the provider on the present connection.",
            labels=["state"],
        )
        for name, count in zip(("asked", "answered"), link.topics, strict=True):
            topics.add_metric([name], count)
        yield topics
        disconnects = CounterMetricFamily(
            "tradebal_disconnects", "Connections lost and tries that failed, by reason.", labels=["reason"]
        )
        for reason, count in link.disconnects.items():
            disconnects.add_metric([reason], count)
        yield disconnects
        yield CounterMetricFamily(
            "tradebal_upstream_gaps",
            "Times without a connection that are over, in which trades were missed.",
            link.gaps,
        )
        yield CounterMetricFamily(
            "tradebal_upstream_gap_seconds", "How long these took: seconds of the market missed.", link.gap_seconds
        )
        yield link.round_trips.family(
            "tradebal_ping_round_trip_seconds",
            "Time from our pings to their pongs, in seconds. A ping is only sent when nothing has come for a while.",
        )
        waiting, round_trip = _kernel_figures(link.connection.sock if link.connection is not None else None)
        yield GaugeMetricFamily(
            "tradebal_tcp_round_trip_seconds",
            "Round trip of the connection as the kernel measures it, in seconds; 0 without a connection.",
            round_trip,
        )
        yield GaugeMetricFamily(
            "tradebal_receive_queue_bytes",
            "Bytes that came and that the balancer hasn't received from the kernel yet.",
            waiting,
        )

    def _shards(self, now: float) -> Iterable[Metric]:
        def gauge(name: str, text: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"tradebal_shard_{name}", text, labels=["shard"])

        def counter(name: str, text: str) -> CounterMetricFamily:
            return CounterMetricFamily(f"tradebal_shard_{name}", text, labels=["shard"])

        trades = counter("trades", "Trades routed to the shard.")
        size = counter("bytes", "Bytes of JSON of the trades routed to the shard.")
        dropped = counter("dropped_trades", "Trades dropped because the shard's FIFO and its overflow were full.")
        unread = gauge("fifo_bytes", "Bytes in the shard's FIFO that its worker has not handled.")
        capacity = gauge("fifo_capacity_bytes", "Bytes that the shard's FIFO can hold.")
        overflow = gauge("overflow_bytes", "Bytes that wait in memory behind the shard's full FIFO.")
        limit = gauge("overflow_limit_bytes", "Bytes that may wait behind the shard's full FIFO.")
        age = gauge(
            "unread_age_seconds",
            "How long the oldest byte that the shard's worker has not handled has waited, in seconds, to within the "
            "time between two writes of these figures; 0 where it keeps up.",
        )
        by_shard = zip(self._outlets, self._router.shard_counters(), self._ages, strict=True)
        for outlet, counted, ages in by_shard:
            fifo, waiting = outlet.fifo, outlet.overflow
            label = [str(fifo.shard)]
            in_fifo = fifo.unread()
            length = counted.bytes + counted.trades * self._overhead + outlet.injected + waiting.added
            behind = in_fifo + outlet.waiting
            trades.add_metric(label, counted.trades)
            size.add_metric(label, counted.bytes)
            dropped.add_metric(label, waiting.dropped)
            unread.add_metric(label, in_fifo)
            capacity.add_metric(label, fifo.capacity)
            overflow.add_metric(label, waiting.size)
            limit.add_metric(label, waiting.limit)
            age.add_metric(label, ages.look(now, length, behind))
        return trades, size, dropped, unread, capacity, overflow, limit, age


def _kernel_figures(sock: socket.socket | None) -> tuple[int, float]:
    """Return what the kernel holds unread of a connection, in bytes, and its round trip in seconds; 0 for unknown."""
    if sock is None:
        return 0, 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RTT + 4)
        return pipes.unread(sock.fileno()), struct.unpack_from("I", info, _TCP_INFO_RTT)[0] / 1e6
    except (OSError, ValueError, struct.error):  # closed meanwhile, or no TCP
        return 0, 0.0
