"""The dashboard for finding out which shard or worker is the slow one, and why."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from panels import GREEN, ON, RED, YELLOW, bars, frame, lines, rate, spread

_THIS = ', shard=~"$shard"'
_SHARD = ON + _THIS


def build() -> dashboard.Dashboard:
    """Return the dashboard: all processes first, then one row for each shard and its worker."""
    made = frame("tradebal: shards & workers", "tradebal-shards", (__doc__ or ""), shards=True)
    made.with_row(dashboard.Row("All"))
    for panel in _all():
        made.with_panel(panel)
    made.with_row(dashboard.Row("Shard $shard").repeat("shard"))
    for panel in _one():
        made.with_panel(panel)
    return made


def _all() -> list:
    return [
        bars(
            "Waiting",
            "Age of the oldest unread trade of each shard; zero is up to date.",
            "s",
            f"max by (shard) (tradebal_shard_unread_age_seconds{{{_SHARD}}})",
            "shard {{shard}}",
            {None: GREEN, 1: YELLOW, 5: RED},
            width=6,
        ),
        lines(
            "Processor",
            "Share of one core that each process uses.",
            "percentunit",
            (rate("tradebal_unit_cpu_seconds_total", "instance, unit"), "{{unit}}"),
            width=6,
        ),
        lines(
            "Memory",
            "Resident memory of each process.",
            "bytes",
            (f"max by (instance, unit) (tradebal_unit_resident_memory_bytes{{{ON}}})", "{{unit}}"),
            width=6,
        ),
        lines(
            "Running for",
            "Time since each process started; a fall to zero is a restart.",
            "s",
            (f"time() - max by (instance, unit) (tradebal_unit_start_time_seconds{{{ON}}})", "{{unit}}"),
            width=6,
        ),
    ]


def _one() -> list:
    return [
        lines(
            "Trades in and out",
            "Trades per second: routed to the shard, and handed to the worker's handler.",
            "si: trades/s",
            (rate("tradebal_shard_trades_total", "shard", _THIS), "routed"),
            (rate("tradebal_worker_trades_total", "shard", _THIS), "handled"),
            width=6,
        ),
        lines(
            "Waiting bytes",
            "Unread bytes in the FIFO and behind it in memory, below what each can hold.",
            "bytes",
            (f"sum by (shard) (tradebal_shard_fifo_bytes{{{_SHARD}}})", "in the FIFO"),
            (f"sum by (shard) (tradebal_shard_fifo_capacity_bytes{{{_SHARD}}})", "FIFO holds"),
            (f"sum by (shard) (tradebal_shard_overflow_bytes{{{_SHARD}}})", "in overflow"),
            (f"sum by (shard) (tradebal_shard_overflow_limit_bytes{{{_SHARD}}})", "overflow holds"),
            width=6,
        ),
        lines(
            "Oldest unread",
            "How long the shard's oldest unread trade has waited, and when the worker last read one.",
            "s",
            (f"max by (shard) (tradebal_shard_unread_age_seconds{{{_SHARD}}})", "oldest unread"),
            (f"time() - max by (shard) (tradebal_worker_last_read_timestamp_seconds{{{_SHARD}}} > 0)", "last read"),
            width=6,
        ),
        lines(
            "Handler's time",
            "Time that the handler took for one batch of trades.",
            "s",
            *spread("tradebal_worker_handler_seconds", "shard", _THIS),
            width=6,
            logarithmic=True,
        ),
        lines(
            "Trades per batch",
            "How many trades the worker gets from one read; more of them means that it is behind.",
            "short",
            (
                f"{rate('tradebal_worker_trades_total', 'shard', _THIS)}"
                f" / ({rate('tradebal_worker_batches_total', 'shard', _THIS)} > 0)",
                "trades per batch",
            ),
            width=6,
        ),
        lines(
            "Bytes read",
            "Bytes of trades that the worker reads from its FIFO per second.",
            "Bps",
            (rate("tradebal_worker_bytes_total", "shard", _THIS), "bytes"),
            width=6,
        ),
        lines(
            "From exchange to handler",
            "From the trade's own time stamp to the handler's end.",
            "s",
            *spread("tradebal_worker_provider_latency_seconds", "shard", _THIS),
            width=12,
            logarithmic=True,
        ),
        lines(
            "From receipt to handler",
            "From the balancer's receipt of a trade to the handler's end: our own share.",
            "s",
            *spread("tradebal_worker_latency_seconds", "shard", _THIS),
            width=12,
            logarithmic=True,
        ),
    ]
