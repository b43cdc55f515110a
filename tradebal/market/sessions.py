"""How busy the simulated market is from moment to moment, and how many trades a provider then puts into one frame."""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

FULL_RATE = 800_000
"""Trades a second at the peak of an open, and of a full-speed replay."""

FULL_FRAME = 128
"""Trades in a frame at FULL_RATE."""

_FRAMES = ((572, 1.2), (2_300, 2.6), (50_000, 15.0), (FULL_RATE, float(FULL_FRAME)))
"""Mean trades in a frame by trades a second, as the founding system saw them; between them on a log-log line."""

STEADY_RATE = 2_500
BURST_RATE = 80_000
_BURST_REST = 3_500


@dataclass(frozen=True)
class Session:
    """A shape of activity. `rate` gives trades a second at a time in seconds from the start; None: unpaced."""

    name: str
    rate: Callable[[float], float] | None
    duration: float
    """Seconds; may be infinite."""
    about: str = ""


def trades_per_frame(rate: float) -> float:
    """Mean number of trades that a provider puts into one frame at `rate` trades a second."""
    if rate <= _FRAMES[0][0]:
        return _FRAMES[0][1]
    if rate >= FULL_RATE:
        return FULL_FRAME
    upper = bisect.bisect_right(_FRAMES, rate, key=lambda point: point[0])
    (rate0, size0), (rate1, size1) = _FRAMES[upper - 1], _FRAMES[upper]
    part = math.log(rate / rate0) / math.log(rate1 / rate0)
    return math.exp(math.log(size0) + part * math.log(size1 / size0))


def market_open(duration: float = 20.0, peak: float = FULL_RATE) -> Session:
    """09:30 as the founding article saw it on 27 November 2020, within `duration` seconds.

    The quiet of 572 trades a second and its rise to 1,500 take the first third; 4,500, 33,000, 40,000, 53,000 and the
    peak of 800,000 then follow each other within one second. The peak holds for a second or two (a fortieth of what
    is left, in longer sessions than a minute), and activity decays to the day's 3,500.
    """
    opening = 0.3 * duration
    climb = min(0.8, 0.1 * duration)
    steps = [
        (opening + part * climb, rate) for part, rate in ((0, 4_500), (0.25, 33_000), (0.5, 40_000), (0.75, 53_000))
    ]
    top = opening + climb
    fall = top + max(min(1.5, 0.15 * duration), 0.7 * duration / 40)
    decay = 0.035 * duration

    def rate(at: float) -> float:
        if at < opening:
            return 572 if at < opening / 2 else 572 + (1_500 - 572) * (2 * at / opening - 1)
        if at < top:
            return min(peak, max(step for begin, step in steps if at >= begin))
        if at < fall:
            return peak
        return 3_500 + max(0.0, peak - 3_500) * math.exp((fall - at) / decay)

    return Session("open", rate, duration, "the market open: 572 to 800,000 trades/s within a second, then decay")


def steady(duration: float = math.inf, rate: float = STEADY_RATE) -> Session:
    """An ordinary hour: always the same rate."""
    return Session("steady", lambda _: rate, duration, "always the same rate, by default 2,500 trades/s")


def burst(duration: float = 60.0, peak: float = BURST_RATE, seed: int = 0) -> Session:
    """Midday: 3,500 a second, with bursts to 80,000 of a few tenths of a second every few seconds."""
    dice = random.Random(f"bursts {seed}")
    ends: list[tuple[float, float]] = []
    at = 0.0

    def rate(now: float) -> float:
        nonlocal at
        while at <= now:
            begin = at + dice.uniform(1.5, 5.0)
            at = begin + dice.uniform(0.2, 0.8)
            ends.append((begin, at))
        place = bisect.bisect_right(ends, now, key=lambda span: span[0]) - 1
        return peak if place >= 0 and now < ends[place][1] else min(peak, _BURST_REST)

    return Session("burst", rate, duration, "midday: 3,500 trades/s, with bursts to 80,000")


def full_speed(duration: float = math.inf) -> Session:
    """As fast as the client reads, 128 trades a frame."""
    return Session("max", None, duration, "as fast as the client reads, 128 trades a frame")
