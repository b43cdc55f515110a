"""What a balancer leaves to its successor, held by systemd in between: the FIFOs, the overflow, and where it stood.

Everything lives in kernel objects whose descriptors are parked (tradebal.systemd.notify), so it needs no farewell: what
a balancer that was killed had written is there as well.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import asdict, dataclass

from tradebal.stream import pipes
from tradebal.stream.framing import Framing, is_whole, mend
from tradebal.systemd.notify import Notifier, inherited

_log = logging.getLogger(__name__)

_NAME = re.compile(r"fifo-(?P<fifo>\d+)|overflow-(?P<overflow>\d+)-(?P<number>\d+)|(?P<state>state)")
_STATE_SIZE = 512
"""Bytes: less than a page, so that a kill can't leave half of it."""


@dataclass
class State:
    """Where a balancer stands."""

    framing: Framing
    ended: bool = False
    """Whether it came to its end itself, so that every shard's stream ends with a whole record."""
    heard_ns: int = 0
    """When it last heard from the provider while trades flowed (CLOCK_REALTIME); 0: never."""
    day: str = ""
    day_trades: int = 0
    """Trades routed on that day."""


class Handover:
    """The predecessor's things, if systemd has any, and the place for ours."""

    def __init__(self, notifier: Notifier, framing: Framing) -> None:
        """Take what is there; what was written in another framing is of no use to this one's readers, and given up.

        After a kill, a FIFO may end within a record. Where the framing can't mend that, and nothing in the overflow
        goes on with it, it is given up as well, so that a new one is made: its reader reads it to its end.
        """
        self._notifier = notifier
        self.keeps = notifier.keeps
        """Whether anything survives this process."""
        self.fifos: dict[int, int] = {}
        """Descriptor of each shard's FIFO."""
        self._overflow: dict[int, dict[int, int]] = {}
        self.before: State | None = None
        """Where the predecessor stood; None: there is none."""
        self._state_fd = -1
        self._take()
        self.remade: list[int] = []
        """Shards whose FIFO was given up since it may end within a record."""
        if self.before is None or self.before.framing != framing:
            self._give_up()
        elif not self.before.ended and mend(framing) is None:
            for shard, fd in list(self.fifos.items()):
                if not self._waits(shard) and not is_whole(pipes.look(fd), framing):
                    os.close(self.fifos.pop(shard))
                    self.forget_fifo(shard)
                    self.remade.append(shard)
        self.state = State(framing)
        if self.before:
            self.state.day, self.state.day_trades = self.before.day, self.before.day_trades
            self.state.heard_ns = self.before.heard_ns
        if self._state_fd < 0:
            self._state_fd = os.memfd_create("tradebal-state")
            notifier.park("state", self._state_fd)

    def overflow(self, shard: int) -> dict[int, int]:
        """Return the descriptors of what waited for the shard beyond its FIFO, oldest first, by number."""
        return dict(sorted(self._overflow.pop(shard, {}).items()))

    def save(self) -> None:
        """Note where we stand, for whoever comes after us."""
        os.pwrite(self._state_fd, json.dumps(asdict(self.state)).encode().ljust(_STATE_SIZE), 0)

    def park_fifo(self, shard: int, fd: int) -> None:
        """Have the FIFO outlive us."""
        self._notifier.park(f"fifo-{shard}", fd)

    def forget_fifo(self, shard: int) -> None:
        """Have it go with us."""
        self._notifier.forget(f"fifo-{shard}")

    def park_overflow(self, shard: int, number: int, fd: int) -> None:
        """Have a part of the shard's overflow outlive us."""
        self._notifier.park(f"overflow-{shard}-{number}", fd)

    def forget_overflow(self, shard: int, number: int) -> None:
        """Have it go: it is empty."""
        self._notifier.forget(f"overflow-{shard}-{number}")

    def close(self) -> None:
        """Close what we hold; what is parked stays. Overflow of shards that are no more is given up."""
        for shard in list(self._overflow):
            self._drop_overflow(shard)
        os.close(self._state_fd)

    def drop_surplus(self) -> None:
        """Give up the overflow of shards that nobody asked for."""
        for shard in list(self._overflow):
            self._drop_overflow(shard)

    def _take(self) -> None:
        for name, fd in inherited().items():
            match = _NAME.fullmatch(name)
            if match is None:
                os.close(fd)
            elif match["state"]:
                self._state_fd = fd
                self.before = _read_state(fd)
            elif match["fifo"]:
                self.fifos[int(match["fifo"])] = fd
            else:
                self._overflow.setdefault(int(match["overflow"]), {})[int(match["number"])] = fd

    def _give_up(self) -> None:
        for shard, fd in self.fifos.items():
            os.close(fd)
            self.forget_fifo(shard)
        self.fifos.clear()
        self.drop_surplus()

    def _waits(self, shard: int) -> bool:
        """Whether anything is in the shard's overflow; it begins where the FIFO ends, be that within a record."""
        return any(os.fstat(fd).st_size > os.lseek(fd, 0, os.SEEK_CUR) for fd in self._overflow.get(shard, {}).values())

    def _drop_overflow(self, shard: int) -> None:
        lost = 0
        for number, fd in self._overflow.pop(shard).items():
            lost += os.fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR)
            os.close(fd)
            self.forget_overflow(shard, number)
        if lost:
            _log.error("start: lost=%d bytes that waited for shard=%d before this start", lost, shard)


def _read_state(fd: int) -> State | None:
    try:
        return State(**json.loads(os.pread(fd, _STATE_SIZE, 0)))
    except (ValueError, TypeError):  # of another version
        return None
