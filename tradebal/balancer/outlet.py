"""A shard's way out: its FIFO, what waits in memory while that is full, and marks of when it was received."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from tradebal.balancer.fifos import Fifo
from tradebal.balancer.overflow import Overflow
from tradebal.router.interface import Router, Sample
from tradebal.stream.marks import MarkWriter
from tradebal.systemd import events
from tradebal.systemd.log import Limited

_log = logging.getLogger(__name__)


class Outlet:
    """One shard. The router writes to the FIFO until that is full; then the overflow takes all until it has drained."""

    def __init__(self, router: Router, fifo: Fifo, overflow: Overflow, marks: MarkWriter) -> None:
        self.shard = fifo.shard
        self.fifo = fifo
        self.overflow = overflow
        self.injected = 0
        """Bytes of our own records in the shard's stream, beside those of the overflow; framing included."""
        self.stalled = bool(overflow.size)
        """Whether the FIFO is full, so that the router writes nothing to it."""
        self._router = router
        self._marks = marks
        if not self.stalled:
            router.set_output(self.shard, fifo.fd)

    @property
    def staged(self) -> int:
        """Bytes that the router holds for the shard."""
        return len(self._router.pending(self.shard))

    @property
    def waiting(self) -> int:
        """Bytes that would go with this process, whatever its FIFO holds."""
        return self.overflow.size + self.staged

    def prepend(self, data: bytes) -> None:
        """Have `data` follow what the FIFO and the overflow hold, ahead of all that is routed from now on."""
        self._router.set_output(self.shard, -1)
        self.overflow.put(memoryview(data), 0, drop=False)
        self.stalled = True

    def spill(self, *, drop: bool) -> int:
        """Move what the router holds into the overflow; returns how many trades were dropped."""
        staged = self._router.pending(self.shard)
        lost = self.overflow.put(staged, self._router.torn(self.shard), drop=drop)
        count = len(staged)
        staged.release()
        self._router.sent(self.shard, count)
        return lost

    def drain(self) -> bool:
        """Give the FIFO what waits, oldest first; True when nothing waits any more and the router writes again."""
        if not self.overflow.drain(self.fifo.fd):
            return False
        self.stalled = False
        self._router.set_output(self.shard, self.fifo.fd)
        return True

    def mark(self, sample: Sample) -> None:
        """Mark where the sample's first trade stands in the stream, so that the worker knows when it was received."""
        self._marks.mark(
            self.fifo.fd,
            behind=sample.behind - self.waiting,
            edits=self.injected + self.overflow.added,
            time_ns=sample.time_ns,
        )

    def close(self) -> None:
        """Leave the marks to the next balancer; FIFO and overflow have ends of their own."""
        self._marks.close()


class Outlets:
    """All shards' outlets, by number, and what is logged about them."""

    def __init__(self, router: Router, outlets: Sequence[Outlet], *, drop: bool, keeps: bool) -> None:
        """With `drop`, trades beyond the overflow's limit are dropped; `keeps`: the overflow outlives this process."""
        self.drop = drop
        self._router = router
        self._outlets = outlets
        self._keeps = keeps
        self._dropping = Limited(_log, per_second=1)
        self._filling = Limited(_log, per_second=10)

    def __getitem__(self, shard: int) -> Outlet:
        return self._outlets[shard]

    def __len__(self) -> int:
        return len(self._outlets)

    def __iter__(self) -> Iterator[Outlet]:
        return iter(self._outlets)

    @property
    def stalled(self) -> list[Outlet]:
        """Those whose FIFO is waited for."""
        return [outlet for outlet in self._outlets if outlet.stalled]

    @property
    def blocked(self) -> bool:
        """Whether when_full = "block" holds up the whole market for a full shard."""
        return not self.drop and any(outlet.overflow.full for outlet in self._outlets)

    def inject(self, record: bytes, framed: int) -> None:
        """Put a record of our own, of `framed` bytes with its framing, into every shard's stream."""
        for outlet in self._outlets:
            if not self._router.inject(outlet.shard, record):  # only a stalled shard's staging can be that full
                self.spill(outlet.shard)
                self._router.inject(outlet.shard, record)
            outlet.injected += framed
        self._router.flush()
        self.note_stalls()

    def note_stalls(self) -> None:
        """Take note of FIFOs that the router found full."""
        for shard in self._router.stalled():
            self._outlets[shard].stalled = True
        if self._keeps:
            # What waits in the router is lost with this process, what is in the overflow isn't.
            for outlet in self.stalled:
                if outlet.staged:
                    self.spill(outlet.shard)

    def spill(self, shard: int) -> None:
        """Move what the router holds for a shard into its overflow."""
        outlet = self._outlets[shard]
        if not outlet.overflow.size and outlet.staged:
            self._filling.warning(
                "overflow: shard=%d its FIFO is full; trades wait in memory",
                shard,
                extra=events.OVERFLOW_BEGAN(SHARD=shard),
            )
        if lost := outlet.spill(drop=self.drop):
            self._dropping.error(
                "overflow: shard=%d is full (limit=%d bytes); dropped=%d trades, in all=%d: its worker is too slow or "
                "stopped",
                shard,
                outlet.overflow.limit,
                lost,
                outlet.overflow.dropped,
                extra=events.DROPPED(SHARD=shard, DROPPED=lost),
            )

    def drain(self, wanted: Callable[[Outlet], bool] = lambda _: True) -> None:
        """Give the stalled FIFOs that are `wanted` what waits for them."""
        for outlet in self.stalled:
            if not wanted(outlet):
                continue
            waited = outlet.overflow.size
            if not outlet.drain():
                continue
            if waited:
                self._filling.info(
                    "overflow: shard=%d its worker has caught up",
                    outlet.shard,
                    extra=events.OVERFLOW_ENDED(SHARD=outlet.shard),
                )
            self._router.flush()
            self.note_stalls()

    def flush_log(self) -> None:
        """Log how many lines were left out; call it about once a second."""
        self._dropping.flush()
        self._filling.flush()

    def leave(self) -> None:
        """Bring everything to where the next balancer finds it."""
        for outlet in self._outlets:
            if outlet.staged:
                self.spill(outlet.shard)
            unread = outlet.fifo.unread()
            if waiting := outlet.overflow.close():
                _log.warning(
                    "stop: shard=%d unread=%d bytes, waiting=%d bytes: left to the next start of the unit if this is "
                    "a restart, else lost",
                    outlet.shard,
                    unread,
                    waiting,
                )

    def lose(self) -> None:
        """Log what nobody took in time."""
        for outlet in self._outlets:
            if unread := outlet.fifo.unread():
                _log.warning(
                    "stop: shard=%d unread=%d bytes in its FIFO, which only a worker that has it open will read",
                    outlet.shard,
                    unread,
                )
            staged = outlet.staged
            if lost := outlet.overflow.close() + staged:
                _log.error("stop: shard=%d lost=%d bytes that its worker did not take in time", outlet.shard, lost)
