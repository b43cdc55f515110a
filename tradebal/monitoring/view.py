"""Draws a running system's figures: a live picture on a terminal, one plain line a second elsewhere."""

from __future__ import annotations

import io
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tradebal.monitoring.figures import Figures, Rates

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_BLOCKS = "▁▂▃▄▅▆▇█"
_HISTORY = 56
_BAR = 16


class View(Protocol):
    """Something that shows figures as they come."""

    def show(self, seconds: float, figures: Figures, rates: Rates) -> None:
        """Show what holds `seconds` after the start."""

    def close(self) -> None:
        """Give the terminal back."""


def open_view(title: str) -> View:
    """Return the live view if stdout is a terminal and rich is installed, else the plain one."""
    if sys.stdout.isatty():
        try:
            return LiveView(title)
        except ImportError:
            pass
    return PlainView()


class PlainView:
    """One line a second, for a log or a pipe."""

    def __init__(self) -> None:
        self._next = 0.0

    def show(self, seconds: float, figures: Figures, rates: Rates) -> None:
        """See `View.show`."""
        if seconds < self._next:
            return
        self._next = seconds + 1.0
        shards = " ".join(f"{rate:.0f}" for rate in rates.shards)
        print(
            f"t={seconds:.1f} connected={int(figures.connected)} rate={rates.routed:.0f}/s shards={shards} "
            f"routed={figures.routed} handled={figures.handled} backlog={figures.backlog} dropped={figures.dropped}",
            flush=True,
        )

    def close(self) -> None:
        """See `View.close`."""


class LiveView:
    """The picture that stays in place: rate over time, then each shard."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        """Draw on `console`, by default stdout's. Raises ImportError without rich."""
        from rich.live import Live

        self._title = title
        self._history: deque[float] = deque(maxlen=_HISTORY)
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, seconds: float, figures: Figures, rates: Rates) -> None:
        """See `View.show`."""
        self._history.append(rates.routed)
        self._live.update(draw(self._title, seconds, figures, rates, self._history), refresh=True)

    def close(self) -> None:
        """See `View.close`."""
        self._live.stop()


class PictureView:
    """Passes everything on to another view, and keeps the busiest moment for a picture."""

    def __init__(self, title: str, view: View) -> None:
        """Raises ImportError without rich."""
        import rich.console  # noqa: F401 (now, not when the show is over)

        self._title = title
        self._view = view
        self._history: deque[float] = deque(maxlen=_HISTORY)
        self._peak = -1.0
        self._drawn: RenderableType = ""

    def show(self, seconds: float, figures: Figures, rates: Rates) -> None:
        """See `View.show`."""
        self._view.show(seconds, figures, rates)
        self._history.append(rates.routed)
        if rates.routed >= self._peak:
            self._peak = rates.routed
            self._drawn = draw(self._title, seconds, figures, rates, self._history)

    def close(self) -> None:
        """See `View.close`."""
        self._view.close()

    def save(self, path: Path, command: str, below: str) -> None:
        """Write an SVG file of the terminal with `command`, its busiest moment, and the lines `below`."""
        from rich.console import Console
        from rich.text import Text

        console = Console(record=True, file=io.StringIO(), width=80, force_terminal=True, color_system="truecolor")
        console.print(Text(f"$ {command}", style="bold"), self._drawn, Text(below), sep="\n")
        console.save_svg(str(path), title=self._title)


def draw(title: str, seconds: float, figures: Figures, rates: Rates, history: deque[float]) -> RenderableType:
    """Compose the picture, 80 columns wide at the most."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        (title, "bold"),
        f"   {seconds:5.1f} s   ",
        ("live", "bold green") if figures.connected else ("not connected", "bold red"),
    )
    now = Text.assemble(
        (f"{rates.routed:>11,.0f}", "bold cyan"),
        " trades/s   ",
        (sparkline(history), "cyan"),
    )
    totals = Text.assemble(
        f"routed {figures.routed:,}   handled {figures.handled:,}   waiting {size(figures.backlog)}   ",
        (f"lost {figures.dropped:,}", "bold red" if figures.dropped else "green"),
        f"\nhighest rate of 8192 trades: {figures.highest:,.0f}/s",
    )
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    for name in ("shard", "trades/s", "", "handled", "in FIFO", "overflow"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    fastest = max((*rates.shards, 1.0))
    for number, (shard, rate) in enumerate(zip(figures.shards, rates.shards, strict=True)):
        table.add_row(
            str(number),
            f"{rate:,.0f}",
            Text("█" * round(_BAR * rate / fastest), style="cyan"),
            f"{shard.handled:,}",
            size(shard.fifo_bytes),
            Text(size(shard.overflow_bytes), style="yellow" if shard.overflow_bytes else ""),
        )
    return Group(head, now, totals, table)


def sparkline(history: deque[float]) -> str:
    """Draw the values as bars against the highest of them."""
    highest = max((*history, 1.0))
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(len(_BLOCKS) * value / highest))] for value in history)


def size(count: int) -> str:
    """Give a number of bytes as someone reads it: "312 KiB"."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
