"""A histogram that the data path can afford: prometheus-client's own costs several times as much an observation."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Histogram:
    """Counts of observations by size; used by one thread."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, *bounds: float) -> None:
        """Count into buckets with these inclusive upper bounds, ascending; one for what is larger is added."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self._counts)

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """Return it as Prometheus' metric of that name and help text."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return HistogramMetricFamily(
            name, text, buckets=list(zip(bounds, accumulate(self._counts), strict=True)), sum_value=self._sum
        )
