"""What a provider plays: prepared websocket frames and the times at which they are due.

A `Playback` is the session that every client gets from its own start; a `Chunk` is what falls due at one moment;
a `Block` is the bytes that a chunk came to for one client.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Wanted = Set[str] | None
"""Symbols that a client subscribed to; None for all."""


class Block(NamedTuple):
    """Whole websocket frames, ready to be written."""

    data: bytes
    frames: int
    trades: int
    first: int = 0
    """Sequence number of its first trade; 0 where trades are not numbered."""


class Chunk(Protocol):
    """What falls due at one moment of a playback."""

    @property
    def at(self) -> float:
        """Seconds from the start of the playback."""

    def render(self, wanted: Wanted, time_ms: int) -> Block:
        """Give the frames with what the client wants, stamped `time_ms` (epoch) where the playback stamps its trades.

        Called at most once for each client; a block without data is not sent.
        """


@dataclass(frozen=True, slots=True)
class Prepared:
    """A chunk whose frames are the same for every client and at any time, such as a recording's."""

    at: float
    block: Block

    def render(self, wanted: Wanted, time_ms: int) -> Block:  # noqa: ARG002
        """See `Chunk.render`."""
        return self.block


class Playback(Protocol):
    """A session that can be played any number of times, also side by side from several threads."""

    @property
    def paced(self) -> bool:
        """Whether the chunks' times are kept; if not, all is sent as fast as the client reads."""

    def chunks(self) -> Iterator[Chunk]:
        """Play from the start, in order of time."""
