"""Draws the throughput chart: horizontal bars, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 760
_LEFT = 232
_RIGHT = 76
_BAR, _GAP = 15, 6
_HEAD, _GROUP_HEAD, _GROUP_GAP, _FOOT = 44, 24, 12, 44
_FONT = "font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"
# Greys and hues of middle lightness: on white and on black each has a contrast of at least 3:1. The style sheet
# improves on that where the viewer honours it.
_STYLE = (
    f"text{{{_FONT};font-size:12px;fill:#757b82}} .title{{font-size:15px;font-weight:600}} .group{{font-weight:600}}"
    " .value{font-variant-numeric:tabular-nums} .grid{stroke:#8b929a;stroke-opacity:.3} .spread{stroke:#757b82}"
    " @media (prefers-color-scheme:light){text{fill:#3d444d} .spread{stroke:#1f2328}}"
    " @media (prefers-color-scheme:dark){text{fill:#c3cad2} .spread{stroke:#f0f6fc}}"
)


@dataclass(frozen=True)
class Bar:
    """One measured figure, with the range of the rounds."""

    label: str
    value: float
    low: float
    high: float
    colour: str


@dataclass(frozen=True)
class Group:
    """Bars under a common heading."""

    heading: str
    bars: Sequence[Bar]


def nice_step(largest: float, ticks: int = 5) -> float:
    """Give a round distance between ticks for an axis from 0 to `largest`."""
    rough = largest / ticks
    power = 10.0 ** len(str(int(rough))) / 10 if rough >= 1 else 0.1
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)


def draw(title: str, axis: str, groups: Sequence[Group]) -> str:
    """Give the chart as SVG text; values and axis are in the same unit."""
    largest = max(bar.high for group in groups for bar in group.bars)
    step = nice_step(largest)
    end = step * -(-largest // step)
    scale = (_WIDTH - _LEFT - _RIGHT) / end
    bottom = _HEAD + sum(_GROUP_HEAD + len(group.bars) * (_BAR + _GAP) + _GROUP_GAP for group in groups)
    parts = [f'<text class="title" x="12" y="24">{escape(title)}</text>']
    for tick in range(round(end / step) + 1):
        x = _LEFT + tick * step * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_HEAD}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick * step:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">{escape(axis)}</text>')
    y = float(_HEAD)
    for group in groups:
        parts.append(f'<text class="group" x="12" y="{y + 16}">{escape(group.heading)}</text>')
        y += _GROUP_HEAD
        for bar in group.bars:
            parts += _bar(bar, y, scale)
            y += _BAR + _GAP
        y += _GROUP_GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + _FOOT}" width="{_WIDTH}" '
        f'height="{bottom + _FOOT}" role="img" aria-label="{escape(title)}">\n<style>{_STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _bar(bar: Bar, y: float, scale: float) -> list[str]:
    width = max(bar.value * scale, 1)
    middle = y + _BAR / 2
    text = f"{bar.value:.1f}" if bar.value >= 1 else f"{bar.value:.2f}"
    return [
        f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{bar.colour}"/>',
        f'<line class="spread" x1="{_LEFT + bar.low * scale:.1f}" y1="{middle}" '
        f'x2="{_LEFT + bar.high * scale:.1f}" y2="{middle}"/>',
        f'<text class="value" x="{_LEFT + max(width, bar.high * scale) + 6:.1f}" y="{middle + 4}">{text}</text>',
    ]
