"""Shows a running system on a terminal, or as JSON, from nothing but its metrics files."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradebal.errors import UserError
from tradebal.monitoring import figures
from tradebal.monitoring.figures import Figures, Rates
from tradebal.monitoring.view import size, sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

_LOOK = 0.1
"""Seconds between two looks whether the balancer has published again."""
_PATIENCE = 5.0
"""Seconds after which what there is is shown, though the balancer has not published again."""
_HISTORY = 58
_SYMBOLS = 6
_MUCH = 16 << 20
"""Bytes that wait for workers which are worth someone's attention."""
_LINES_BESIDE_SHARDS = 12
"""Lines of the picture that aren't a shard's."""


def moments(directory: Path) -> Iterator[tuple[Figures, Rates]]:
    """Yield the figures each time that the balancer has published, or at least every few seconds if it hasn't.

    The first comes at once, without rates. Raises UserError if nobody has ever published there.
    """
    before: Figures | None = None
    while True:
        now = figures.read(directory)
        if now is None and before is None:
            raise UserError(
                f"no figures in {directory}",
                hint="start the balancer (tradebal run, or systemctl start tradebal.target), or say by --config or "
                "--directory where the running one keeps its files",
            )
        if now is None:  # its files are gone
            assert before is not None
            now = dataclasses.replace(before, up=False)
        yield now, figures.rates(before, now)
        before = now
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            time.sleep(_LOOK)
            if figures.published(directory) != before.at:
                break


def second(directory: Path) -> tuple[Figures, Rates]:
    """Return the figures with rates: those of the balancer's next publication."""
    both = moments(directory)
    next(both)
    return next(both)


def as_json(now: Figures, rates: Rates) -> dict[str, Any]:
    """Return one moment as what `--json` prints: the names are those of Figures, Rates and ShardFigures."""
    shards = [
        {"shard": number, "trades_per_second": rate, **dataclasses.asdict(shard)}
        for number, (shard, rate) in enumerate(zip(now.shards, rates.shards, strict=True))
    ]
    return {
        **{field.name: getattr(now, field.name) for field in dataclasses.fields(now) if field.name != "lags"},
        "trades_per_second": rates.routed,
        "lag_median": rates.lag_median,
        "lag_late": rates.lag_late,
        "handled": now.handled,
        "dropped": now.dropped,
        "backlog": now.backlog,
        "exceptions": now.exceptions,
        "shards": shards,
    }


def watch(directory: Path) -> None:
    """Draw the live picture until Ctrl-C."""
    from rich.live import Live

    history: deque[float] = deque(maxlen=_HISTORY)
    everything = moments(directory)
    first, _ = next(everything)
    with Live(auto_refresh=False, screen=sys.stdout.isatty()) as live:
        live.update(draw(first, Rates(0.0, (0.0,) * len(first.shards)), history, live.console.height), refresh=True)
        for now, rates in everything:
            history.append(rates.routed)
            live.update(draw(now, rates, history, live.console.height), refresh=True)


def draw(now: Figures, rates: Rates, history: deque[float], height: int, clock: float | None = None) -> RenderableType:
    """Compose the picture: 80 columns at most, and `height` lines, of which the busiest shards get what is left."""
    from rich.console import Group
    from rich.padding import Padding

    clock = time.time() if clock is None else clock
    upper = [_head(now, clock), *_flow(now, rates, history, clock), _losses(now)]
    return Group(*upper, Padding(_table(now, rates, height), (1, 0)), _top(now))


def _head(now: Figures, clock: float) -> RenderableType:
    from rich.text import Text

    if not now.up:
        state = (f"balancer is down (last heard of {_span(clock - now.at)} ago)", "bold white on red")
    elif now.connected:
        state = (f"live for {_span(clock - now.live_since)}", "bold green")
    else:
        state = (f"not connected: {now.state}", "bold red")
    tls = {"none": "no TLS", "user": "TLS", "kernel": "kernel TLS"}.get(now.tls, now.tls)
    return Text.assemble((f"tradebal {now.version}", "bold"), "   ", state, f"   {tls}, {now.router} router")


def _flow(now: Figures, rates: Rates, history: deque[float], clock: float) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text.assemble(
        (f"{rates.routed:>11,.0f}", "bold cyan"), " trades/s ", (sparkline(history), "cyan"), overflow="crop"
    )
    yield Text(
        f"8192 trades: now {now.last:,.0f}/s, minute {now.lowest_minute:,.0f} to {now.highest_minute:,.0f}, "
        f"best {now.highest:,.0f}",
        overflow="ellipsis",
        no_wrap=True,
    )
    silent = clock - now.last_data if now.last_data else None
    lag = "lag unknown"
    if rates.lag_median is not None and rates.lag_late is not None:
        lag = f"lag {_seconds(rates.lag_median)}, one in a hundred {_seconds(rates.lag_late)}"
    yield Text.assemble(
        lag,
        "   ",
        (
            "no data yet" if silent is None else f"last data {_seconds(max(0.0, silent))} ago",
            _alarm((silent or 0) > 15),
        ),
    )
    yield Text.assemble(
        f"routed {now.routed:,}   handled {now.handled:,}   ",
        (f"waiting {size(now.backlog)}", _alarm(now.backlog > _MUCH)),
    )


def _losses(now: Figures) -> RenderableType:
    from rich.text import Text

    parts = (
        ("lost", now.dropped, f"{now.dropped:,}"),
        ("rejects", now.rejects, f"{now.rejects:,}"),
        ("errors", now.exceptions, f"{now.exceptions:,}"),
        ("disconnects", now.disconnects, f"{now.disconnects:,}"),
        ("missed", now.gap_seconds, _span(now.gap_seconds)),
    )
    pieces = [(f"{name} {text}", _alarm(bool(bad)) or "green") for name, bad, text in parts]
    return Text("  ", no_wrap=True, overflow="ellipsis").join(Text(*piece) for piece in pieces)


def _table(now: Figures, rates: Rates, height: int) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="underline")
    for name in ("shard", "trades/s", "", "handled", "in FIFO", "full", "overflow", "oldest", "lost", "errors"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    room = max(1, height - _LINES_BESIDE_SHARDS)
    order = list(range(len(now.shards)))
    if len(order) > room:
        # Those that need someone's eye, then the busiest.
        order.sort(key=lambda number: (_troubled(now.shards[number]), rates.shards[number]), reverse=True)
        order = sorted(order[:room])
    fastest = max((*rates.shards, 1.0))
    for number in order:
        shard, rate = now.shards[number], rates.shards[number]
        full = shard.fifo_bytes / shard.fifo_capacity if shard.fifo_capacity else 0.0
        table.add_row(
            str(number),
            f"{rate:,.0f}",
            Text("█" * round(6 * rate / fastest), style="cyan"),
            f"{shard.handled:,}" if shard.up else Text("down", style="bold red"),
            size(shard.fifo_bytes),
            Text(f"{full:.0%}", style=_alarm(full >= 0.5)),
            Text(size(shard.overflow_bytes), style=_alarm(bool(shard.overflow_bytes))),
            Text(_seconds(shard.unread_age), style=_alarm(shard.unread_age > 5)),
            Text(_short(shard.dropped), style=_alarm(bool(shard.dropped))),
            Text(_short(shard.exceptions), style=_alarm(bool(shard.exceptions))),
        )
    if len(order) < len(now.shards):
        return Group(table, Text(f"… and {len(now.shards) - len(order)} more"))
    return table


def _top(now: Figures) -> RenderableType:
    from rich.text import Text

    if not now.top:
        return Text("")
    most = sorted(now.top.items(), key=lambda item: -item[1])[:_SYMBOLS]
    names = "   ".join(f"{symbol} {count:,}" for symbol, count in most)
    return Text(f"last minute: {names}", no_wrap=True, overflow="ellipsis")


def _troubled(shard: figures.ShardFigures) -> bool:
    return not shard.up or bool(shard.overflow_bytes or shard.dropped or shard.exceptions) or shard.unread_age > 5


def _alarm(bad: bool) -> str:
    return "bold red" if bad else ""


def _seconds(value: float) -> str:
    """Give a short time as someone reads it: "12 ms"."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else _span(value)


def _span(value: float) -> str:
    """Give a time to the second: "1:02:03"."""
    minutes, seconds = divmod(max(0, round(value)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _short(count: int) -> str:
    """Give a count in at most five characters: "12k"."""
    for unit in ("", "k", "M", "G"):
        if count < 10_000:
            return f"{count}{unit}"
        count //= 1000
    return f"{count}T"
