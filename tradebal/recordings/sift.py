"""Tells trades from the rest in websocket frames exactly as a balancer does, because it asks the same router."""

from __future__ import annotations

from tradebal.recordings.format import MAX_PAYLOAD
from tradebal.router import make_router
from tradebal.router.interface import Event, EventKind, Rule, Status


class Sift:
    """Counts trades, and hands out what isn't one."""

    def __init__(self, rule: Rule) -> None:
        self._router = make_router(1, rule, max_message=MAX_PAYLOAD)
        self.trades = 0
        """Trades seen until now."""
        self.rejects = 0
        """Pieces until now that a balancer couldn't route."""

    def feed(self, frames: bytes) -> list[Event]:
        """Take whole, unmasked frames; return their MESSAGE events."""
        router = self._router
        found = []
        rest = memoryview(frames)
        while rest:
            with router.space() as space:
                part = min(len(space), len(rest))
                space[:part] = rest[:part]
            router.received(part)
            rest = rest[part:]
            while (status := router.process()) is not Status.INPUT:
                if status is Status.EVENT:
                    event = router.event()
                    if event.kind is EventKind.MESSAGE:
                        found.append(event)
                self._drain()
        self._drain()
        counters = router.counters()
        self.trades, self.rejects = counters.trades, counters.rejects
        return found

    def _drain(self) -> None:
        with self._router.pending(0) as staged:
            count = len(staged)
        self._router.sent(0, count)
        self._router.batches()
