"""Reads a trade's own time, in whichever of the usual ways its provider writes it."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_SCALES = ((1e11, 10**9), (1e14, 10**6), (1e17, 10**3), (1e20, 1))
"""A number below the first is in units of the second, in nanoseconds: seconds until the year 5138, then ms, µs, ns."""


def time_ns(value: object) -> int | None:
    """Return a decoded JSON value as nanoseconds since the epoch; None if it is no time.

    Numbers, and strings of digits, count seconds, milliseconds, microseconds or nanoseconds since the epoch, which
    their size tells apart for any time after 1973. Other strings are RFC 3339's, to the microsecond.
    """
    match value:
        case bool():
            return None
        case int() | float():
            return _scaled(value)
        case str() if value.isascii() and value.isdecimal() and len(value) < 20:
            return _scaled(int(value))
        case str():
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                return None
            since = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.fromtimestamp(0, UTC)
            return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
    return None


def _scaled(number: float) -> int | None:
    if not math.isfinite(number) or number <= 0:
        return None
    for limit, scale in _SCALES:
        if number < limit:
            return round(number * scale)
    return None
