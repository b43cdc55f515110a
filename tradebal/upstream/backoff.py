"""Says how long to wait before the next try, so that clients don't hammer a provider in trouble."""

from __future__ import annotations

import random


class Backoff:
    """Exponential backoff with full jitter: each delay is drawn between 0 and a ceiling that doubles up to a cap.

    Times are seconds. A login alone proves nothing (a provider may accept it and then cut the connection, again and
    again), so only a minute of healthy flow brings the ceiling back to its base.
    """

    def __init__(
        self,
        base: float = 0.25,
        cap: float = 30.0,
        *,
        healthy_after: float = 60.0,
        slow: tuple[float, float] = (30.0, 60.0),
        rng: random.Random | None = None,
    ) -> None:
        self._base = base
        self._cap = cap
        self._healthy_after = healthy_after
        self._slow = slow
        self._rng = rng or random.Random()
        self._live_since: float | None = None
        self._doublings = 0
        self.attempts = 0
        """Delays given since the last healthy flow: the number of the try that follows."""

    def live(self, now: float) -> None:
        """Note that trades flow from `now` on."""
        self._live_since = now

    def lost(self, now: float) -> None:
        """Note that the flow has ended; if it was long enough, the next delay starts from the base again."""
        if self._live_since is not None and now - self._live_since >= self._healthy_after:
            self._doublings = 0
            self.attempts = 0
        self._live_since = None

    def next(self) -> float:
        """Return the delay before the next try, for a failure that may pass at any moment."""
        ceiling = min(self._cap, self._base * 2.0**self._doublings)
        if ceiling < self._cap:
            self._doublings += 1
        self.attempts += 1
        return self._rng.uniform(0.0, ceiling)

    def at_once(self) -> float:
        """Return no delay for a loss that is nobody's fault, once after healthy flow; then the usual ones."""
        if self.attempts:
            return self.next()
        self.attempts += 1
        return 0.0

    def slow(self) -> float:
        """Return the delay before the next try, for a failure that somebody has to put right."""
        self.attempts += 1
        return self._rng.uniform(*self._slow)
