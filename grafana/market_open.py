"""The dashboard that someone watches at 09:29:55: live? how fast? does anything fall behind? was anything lost?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from panels import (
    BLUE,
    EMPTY_UNTIL_LOSS,
    GREEN,
    ON,
    RED,
    YELLOW,
    bars,
    figure,
    frame,
    grown,
    heat,
    lines,
    quantile,
    rate,
    rows,
    spread,
)

_BACKLOG = (
    f"(tradebal_shard_fifo_bytes{{{ON}}} + tradebal_shard_overflow_bytes{{{ON}}})"
    f" / (tradebal_shard_fifo_capacity_bytes{{{ON}}} + tradebal_shard_overflow_limit_bytes{{{ON}}})"
)


def build() -> dashboard.Dashboard:
    """Return the dashboard: along the path of the data, from the provider to the workers, then what was lost."""
    made = frame("tradebal: market open", "tradebal-market-open", (build.__doc__ or ""), shards=False)
    for title, panels in {
        "At a glance": _glance(),
        "In: what the provider sends": _incoming(),
        "Balance: how it is taken in": _balance(),
        "Shards: who gets it": _shards(),
        "Workers: what becomes of it": _workers(),
        "Lost: empty as long as nothing is": _lost(),
    }.items():
        made.with_row(dashboard.Row(title))
        for panel in panels:
            made.with_panel(panel)
    return made


def _glance() -> list:
    green_is_zero = {None: GREEN, 1e-9: RED}
    return [
        figure(
            "Live",
            "Whether every machine shown is logged in and subscribed at the provider.",
            "none",
            f"min(tradebal_connected{{{ON}}})",
            {None: RED, 1: GREEN},
            words={"0": "NOT LIVE", "1": "LIVE"},
        ),
        figure(
            "Last trade",
            "Seconds since the provider last sent trades; the longest of the machines shown.",
            "s",
            f"max(time() - (tradebal_last_trade_timestamp_seconds{{{ON}}} > 0))",
            {None: GREEN, 5: YELLOW, 10: RED},
            decimals=1,
        ),
        figure(
            "Trades now",
            "Trades that come in per second, over the latest scrapes.",
            "si: trades/s",
            rate("tradebal_trades_total"),
            {None: BLUE},
        ),
        figure(
            "Highest today",
            "The highest rate at which 8192 trades in a row came in since midnight in New York.",
            "si: trades/s",
            f"max(max_over_time(tradebal_batch_rate_highest_minute{{{ON}}}[$__range]))",
            {None: BLUE},
            today=True,
        ),
        figure(
            "Lag",
            "Median age of trades when they come in, by the provider's time stamps and this machine's clock.",
            "s",
            f"histogram_quantile(0.5, sum by (le) (rate(tradebal_provider_lag_seconds_bucket{{{ON}}}[1m])))",
            {None: GREEN, 0.5: YELLOW, 2: RED},
        ),
        figure(
            "Backlog",
            "The fullest shard: what waits for its worker, as a share of what can wait before trades are lost.",
            "percentunit",
            f"max({_BACKLOG})",
            {None: GREEN, 0.5: YELLOW, 0.8: RED},
            decimals=1,
        ),
        figure(
            "Dropped today",
            "Trades lost since midnight in New York because a worker was too slow for too long.",
            "short",
            f"sum(max_over_time(tradebal_shard_dropped_trades_total{{{ON}}}[$__range]))",
            green_is_zero,
            today=True,
        ),
        figure(
            "Missed today",
            "Time since midnight in New York for which there was no connection between two that were live.",
            "s",
            f"sum(max_over_time(tradebal_upstream_gap_seconds_total{{{ON}}}[$__range]))",
            green_is_zero,
            today=True,
        ),
    ]


def _incoming() -> list:
    return [
        lines(
            "Trades",
            "Trades routed per second, and the extremes of the rate over 8192 trades within the last minute.",
            "si: trades/s",
            (rate("tradebal_trades_total", "instance"), "{{instance}}"),
            (f"max(tradebal_batch_rate_highest_minute{{{ON}}}) > 0", "highest of 8192, last minute"),
            (f"min(tradebal_batch_rate_lowest_minute{{{ON}}} > 0)", "lowest of 8192, last minute"),
            width=12,
            logarithmic=True,
        ),
        heat(
            "Rate of each 8192 trades",
            "How fast 8192 trades in a row came: each column a moment, darker where more batches had that rate.",
            "si: trades/s",
            "tradebal_batch_rate",
            width=12,
        ),
        lines(
            "Lag of the provider",
            "Age of trades when they come in, by the provider's time stamps and our clock. The lowest "
            "is the network; below zero, clocks disagree.",
            "s",
            *spread("tradebal_provider_lag_seconds"),
            (f"min(tradebal_provider_lag_lowest_seconds{{{ON}}})", "lowest, last minute"),
        ),
        lines(
            "Bytes",
            "Bytes per second: received from the provider (after TLS), in trades, and written to FIFOs.",
            "Bps",
            (rate("tradebal_received_bytes_total"), "received"),
            (rate("tradebal_trade_bytes_total"), "in trades"),
            (rate("tradebal_written_bytes_total"), "written to FIFOs"),
        ),
        rows(
            "Busiest symbols",
            "The 20 symbols with most trades in the last minute, estimated from samples.",
            "short",
            f"sort_desc(topk(20, sum by (symbol) (tradebal_top_symbol_trades{{{ON}}})))",
            {"symbol": "Symbol", "Value": "Trades, last minute"},
            legend="{{symbol}}",
        ),
        lines(
            "Connection",
            "The state that the connection is in: 1 for the present one. Anything but live means that trades "
            "are missed.",
            "short",
            (f"max by (state) (tradebal_connection_state{{{ON}}})", "{{state}}"),
            (f"max(tradebal_connected{{{ON}}})", "connected"),
            top=1.1,
        ),
        lines(
            "Age of the connection",
            "How long the present connection has been live, and how often one became live.",
            "s",
            (f"time() - (tradebal_connected_timestamp_seconds{{{ON}}} > 0)", "{{instance}}, live for"),
            (f"time() - (tradebal_last_data_timestamp_seconds{{{ON}}} > 0)", "{{instance}}, last byte"),
        ),
        lines(
            "Topics",
            "Topics of the subscription, asked for and answered by the provider: one that it doesn't answer brings no "
            "trades.",
            "short",
            (f"sum by (state) (tradebal_topics{{{ON}}})", "{{state}}"),
        ),
        lines(
            "Round trips",
            "To the provider and back: the kernel's smoothed figure for the connection, and our pings (sent "
            "only after 10 seconds of silence).",
            "s",
            (f"max by (instance) (tradebal_tcp_round_trip_seconds{{{ON}}})", "{{instance}}, TCP"),
            (quantile(0.5, "tradebal_ping_round_trip_seconds"), "pings"),
        ),
    ]


def _balance() -> list:
    return [
        lines(
            "Unread in the kernel",
            "Bytes received that the balancer has not read yet. If this grows, the balancer itself "
            "falls behind, and the provider may cut it off.",
            "bytes",
            (f"max by (instance) (tradebal_receive_queue_bytes{{{ON}}})", "{{instance}}"),
            filled=True,
        ),
        lines(
            "Reads, frames, writes",
            "System calls and websocket frames per second: the more trades each carries, the cheaper a trade.",
            "ops",
            (rate("tradebal_reads_total"), "reads"),
            (rate("tradebal_frames_total"), "frames"),
            (rate("tradebal_writes_total"), "writes"),
            (rate("tradebal_messages_total", "kind"), "messages: {{kind}}"),
            (rate("tradebal_notices_total"), "notices of the provider"),
            (rate("tradebal_skipped_objects_total"), "skipped objects"),
            logarithmic=True,
        ),
        lines(
            "Balancer's processor",
            "Share of one core that the balancer uses; at 100 % it is at its limit.",
            "percentunit",
            (rate("tradebal_unit_cpu_seconds_total", "instance", ', unit="balancer"'), "{{instance}}"),
            filled=True,
        ),
        lines(
            "Trades per frame",
            "How many trades the provider puts into one websocket frame, by batches of 8192.",
            "short",
            *spread("tradebal_batch_trades_per_frame"),
        ),
        lines(
            "Per batch of 8192",
            "Reads and frames that 8192 trades took, in the median.",
            "short",
            (quantile(0.5, "tradebal_batch_reads"), "reads"),
            (quantile(0.5, "tradebal_batch_frames"), "frames"),
            logarithmic=True,
        ),
        lines(
            "Bytes per batch of 8192",
            "Bytes received for 8192 trades, in the median.",
            "bytes",
            (quantile(0.5, "tradebal_batch_bytes"), "bytes"),
        ),
        figure(
            "Latest of 8192",
            "The rate of the latest batch of 8192 trades.",
            "si: trades/s",
            f"max(tradebal_batch_rate_last{{{ON}}})",
            {None: BLUE},
            width=6,
        ),
        figure(
            "Highest of 8192 since the start",
            "The highest rate of a batch since the balancer started.",
            "si: trades/s",
            f"max(tradebal_batch_rate_highest{{{ON}}})",
            {None: BLUE},
            width=6,
        ),
        figure(
            "Lowest of 8192 since the start",
            "The lowest rate of a batch since the balancer started.",
            "si: trades/s",
            f"min(tradebal_batch_rate_lowest{{{ON}}})",
            {None: BLUE},
            width=6,
        ),
        figure(
            "Connections since the start",
            "How often a connection became live; more than one means that one was lost.",
            "short",
            f"sum(tradebal_connects_total{{{ON}}})",
            {None: GREEN, 2: YELLOW},
            width=6,
        ),
    ]


def _shards() -> list:
    mine = f"sum by (shard) (rate(tradebal_shard_trades_total{{{ON}}}[1m]))"
    return [
        lines(
            "Trades by shard",
            "Trades routed to each shard per second, stacked: the top edge is all of them.",
            "si: trades/s",
            (rate("tradebal_shard_trades_total", "shard"), "shard {{shard}}"),
            stacked=True,
        ),
        bars(
            "Skew",
            "Each shard's share of trades in the last minute, as a multiple of its fair share; 1 is even.",
            "x",
            f"{mine} / on () group_left () (avg({mine}) > 0)",
            "shard {{shard}}",
            {None: GREEN, 1.5: YELLOW, 3: RED},
        ),
        lines(
            "Backlog by shard",
            "What waits for each shard's worker, as a share of what can wait before trades are lost.",
            "percentunit",
            (f"max by (shard) ({_BACKLOG})", "shard {{shard}}"),
            filled=True,
        ),
        lines(
            "Oldest unread trade",
            "How long the oldest trade in each shard has waited for its worker; zero is up to date.",
            "s",
            (f"max by (shard) (tradebal_shard_unread_age_seconds{{{ON}}})", "shard {{shard}}"),
            width=12,
        ),
        lines(
            "Bytes by shard",
            "Bytes of trades routed to each shard per second.",
            "Bps",
            (rate("tradebal_shard_bytes_total", "shard"), "shard {{shard}}"),
            width=12,
        ),
    ]


def _workers() -> list:
    return [
        lines(
            "Handled",
            "Trades that each worker handed to its handler per second, stacked.",
            "si: trades/s",
            (rate("tradebal_worker_trades_total", "shard"), "worker {{shard}}"),
            stacked=True,
        ),
        lines(
            "From exchange to handler",
            "From the trade's own time stamp to the handler's end, for 99 % of trades; includes the provider's lag.",
            "s",
            (quantile(0.99, "tradebal_worker_provider_latency_seconds", "shard"), "worker {{shard}}"),
            logarithmic=True,
        ),
        lines(
            "From receipt to handler",
            "From the balancer's receipt of a trade to the handler's end, for 99 % of trades: our own share.",
            "s",
            (quantile(0.99, "tradebal_worker_latency_seconds", "shard"), "worker {{shard}}"),
            logarithmic=True,
        ),
        rows(
            "Processes",
            "Each process: 1 if it wrote its figures within the last 10 seconds, else 0.",
            "short",
            f"sort_desc(tradebal_up{{{ON}}})",
            {"instance": "Machine", "unit": "Process", "Value": "Up"},
            legend="{{instance}} {{unit}}",
            width=12,
        ),
        rows(
            "Builds",
            "What runs: router native is the C core; tls kernel is the kernel's, user is OpenSSL's, none is ws.",
            "short",
            f"tradebal_build_info{{{ON}}}",
            {"instance": "Machine", "version": "Version", "python": "Python", "router": "Router", "tls": "TLS"},
            legend="{{instance}} {{version}}",
            width=12,
        ),
    ]


def _lost() -> list:
    def lost(title: str, text: str, query: str, legend: str) -> object:
        return lines(title, f"{EMPTY_UNTIL_LOSS} {text}", "short", (query, legend), width=6)

    return [
        lost(
            "Dropped trades",
            "Trades for which neither FIFO nor overflow had room.",
            grown("tradebal_shard_dropped_trades_total", "shard"),
            "shard {{shard}}",
        ),
        lost(
            "Outages",
            "Connections that were away and came back; the market between is missing.",
            grown("tradebal_upstream_gaps_total", "instance"),
            "{{instance}}",
        ),
        lost(
            "Seconds missed",
            "How long these outages were.",
            grown("tradebal_upstream_gap_seconds_total", "instance"),
            "{{instance}}",
        ),
        lost(
            "Disconnects",
            "Lost connections and failed tries, by reason.",
            grown("tradebal_disconnects_total", "reason"),
            "{{reason}}",
        ),
        lost(
            "Rejected",
            "Received data that could not be routed, by reason; kept in rejects.ndjson.",
            grown("tradebal_rejects_total", "reason"),
            "{{reason}}",
        ),
        lost(
            "Gaps told to handlers",
            "Places in the shards' streams where trades are missing, by reason.",
            grown("tradebal_worker_gaps_total", "reason"),
            "{{reason}}",
        ),
        lost(
            "Handler exceptions",
            "Calls of a handler that raised.",
            grown("tradebal_worker_handler_exceptions_total", "shard"),
            "worker {{shard}}",
        ),
        lost(
            "Undecodable",
            "Trades that a handler skipped, as they are no JSON object.",
            grown("tradebal_worker_undecodable_total", "shard"),
            "worker {{shard}}",
        ),
    ]
