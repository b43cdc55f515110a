"""Keeps the one upstream connection: decides when to connect, log in, ping, close and try again, and says why."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from typing import Protocol

from tradebal.config import Feed, Secret
from tradebal.router.interface import Event
from tradebal.upstream.connection import Connection

REASONS: tuple[str, ...] = ()
"""Every value that the metrics label `reason` can take."""


class Phase(enum.Enum):
    """Where the link stands."""

    WAITING = "waiting"
    """No connection; the next try is at `next_deadline`."""
    CONNECTING = "connecting"
    LOGIN = "login"
    LIVE = "live"
    """Every subscription has been answered."""
    CLOSING = "closing"
    """A close frame has been sent; the peer has a second to end the connection. What it still sends is good."""
    STOPPED = "stopped"


class Listener(Protocol):
    """What the link's owner does when something changes. Called inside the link's own methods."""

    def opened(self) -> None:
        """Say that `link.connection` is a new websocket: reset the router, then read at once, before any select."""

    def live(self) -> None:
        """Say that every subscription has been answered."""

    def outage(self, from_ns: int, until_ns: int) -> None:
        """Say that trades between the two times (ns since the epoch) are missing; a gap record belongs here.

        Comes at the first sign of flow after a loss: the last subscription answer, or a trade if one came earlier.
        """

    def closed(self) -> None:
        """Say that `link.connection` is None again: stop reading. What the router has staged stays good."""


class Link:
    """The policy of the upstream connection, driven by its owner's loop; it reads from no socket and never blocks.

    `now` is time.monotonic() everywhere. The owner's turn:

        wait for `fds()` and its own descriptors, at most until `next_deadline()`
        if the connection's socket is readable, or `opened` was just called:
            plain:  status = router.pump(link.connection.fileno(), budget)
            TLS:    n = link.connection.receive_into(router.space()); router.received(n); router.pump(-1, budget)
                    until BlockingIOError: OpenSSL may hold bytes that no select shows
            bytes came:      link.on_data(now, trades)
            EVENT:           link.on_event(router.event(), now); go on only if link.connection is still there
            CLOSED, ERROR, 0 bytes, OSError:    link.on_closed(now, error)
        link.tick(now)
    """

    def __init__(
        self,
        feed: Feed,
        key: Secret | None,
        listener: Listener,
        *,
        rng: random.Random | None = None,
        clock_ns: Callable[[], int] = ...,  # type: ignore[assignment]
    ) -> None:
        """Check all that can be checked without a network; UserError if the feed can't work as configured."""
        self.phase = Phase.WAITING
        self.connection: Connection | None = None
        self.connects = 0
        """Connections that became live since the start."""
        self.disconnects: dict[str, int] = dict.fromkeys(REASONS, 0)
        """Lost connections and failed tries since the start, by reason."""

    @property
    def connected(self) -> bool:
        """Whether login and subscription are through."""
        return self.phase is Phase.LIVE

    def start(self, now: float) -> None:
        """Begin the first try."""

    def stop(self, now: float) -> None:
        """Send a close frame, if there is a connection, and go to STOPPED as soon as the peer has answered (≤ 1 s)."""

    def fds(self) -> list[tuple[int, int]]:
        """Return (descriptor, mask of selectors.EVENT_READ and EVENT_WRITE) of what the link waits for now."""
        raise NotImplementedError

    def next_deadline(self) -> float:
        """Return when `tick` has something to do at the latest; math.inf if only a descriptor can change anything."""
        raise NotImplementedError

    def on_data(self, now: float, trades: int) -> None:
        """Note that bytes came: any sign of life counts as one. `trades` is the router's total.

        Call it too while not reading is the owner's own choice, else silence is taken for a dead connection.
        """

    def on_event(self, event: Event, now: float) -> None:
        """Act on what the router stopped at; REJECT is the owner's affair and ignored here."""

    def on_closed(self, now: float, error: OSError | None = None) -> None:
        """Note that the socket has ended, with `error` or by the peer's end of stream."""

    def tick(self, now: float) -> None:
        """Do what is due: take a finished handshake, write what is queued, ping, time out, try again."""

    def close(self) -> None:
        """Let go of every descriptor at once, without a word to the peer."""

    def redact(self, text: str) -> str:
        """Return the text with the key and its usual encodings replaced; for anything that a provider sent."""
        raise NotImplementedError
