"""Keeps the one upstream connection: decides when to connect, log in, ping, close and try again, and logs why."""

from __future__ import annotations

import enum
import logging
import math
import random
import selectors
import time
from collections.abc import Callable
from typing import Protocol

from tradebal.config import Feed, Secret
from tradebal.monitoring.histogram import Histogram
from tradebal.router.interface import Event, EventKind
from tradebal.systemd import events
from tradebal.upstream import failures, proxies
from tradebal.upstream.backoff import Backoff
from tradebal.upstream.connection import Connection
from tradebal.upstream.connector import Connector
from tradebal.upstream.credentials import Credentials, placeholders
from tradebal.upstream.failures import REASONS, Failure
from tradebal.upstream.profiles import resolve
from tradebal.upstream.session import Outcome, Session
from tradebal.upstream.target import target

_LOG = logging.getLogger(__name__)

CLOSE_TIMEOUT = 1.0
"""Seconds that the peer has to end the connection after a close frame (RFC 6455, section 7.1.1)."""

_CLOSE_CODES = {
    # RFC 6455, section 7.4.1, and IANA's registry of websocket close codes.
    1000: "normal closure",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no code given",
    1007: "invalid data",
    1008: "policy violation",
    1009: "message too big",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
}


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

        WAITING ──try due──▶ CONNECTING ──handshake done──▶ LOGIN ──all topics answered──▶ LIVE
           ▲                      │                           │                             │
           ├────── failed ────────┘       close frame sent or received, by either of them   │
           │                                                  ▼                             ▼
           └──────── peer ended the connection, or 1 s ──── CLOSING ◀───────────────────────┘

    LOGIN and LIVE go to WAITING directly where the connection is silent or broken: nobody would answer a close frame.
    `stop` leads from WAITING and CONNECTING to STOPPED at once, from LOGIN and LIVE by way of CLOSING. `_enter` makes
    every transition.

    `now` is time.monotonic() everywhere. The owner's turn:

        wait for `fds()` and its own descriptors, at most until `next_deadline()`
        if the connection's socket is readable, or `opened` was just called:
            either: status = router.pump(link.connection.fileno(), budget)
            or:     n = link.connection.receive_into(router.space()); router.received(n); router.pump(-1, budget)
                    until BlockingIOError; which of the two, `link.connection.tls` says
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
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Check all that can be checked without a network; UserError (code 2) if the feed can't work as configured."""
        self.profile = resolve(feed)
        sent = [self.profile.url, *feed.headers.values(), *(step.send for step in self.profile.steps)]
        self._credentials = Credentials(key, sent, self.profile.subscribe, self.profile.name)
        headers = {name: self._credentials.header(text) for name, text in feed.headers.items()}
        self._target = target(self._credentials.url(self.profile.url), headers, feed)
        if self._target.tls is not None:
            self._target.tls.require()
        self._shown = self._credentials.show(self._target.shown)
        self._keyed = bool(placeholders(*sent) & {"key", "secret"})
        self._feed = feed
        self._listener = listener
        self._clock_ns = clock_ns
        self._backoff = Backoff(rng=rng)
        self._connector: Connector | None = None
        self._session: Session | None = None
        self._due = math.inf
        """End of the phase CONNECTING, CLOSING or WAITING."""
        self._retry_at = math.inf
        self._topics = self.profile.subscribe
        """What the connection was asked for."""
        self._stopping = False
        self._since = 0.0
        self._last_data = 0.0
        self._pinged: float | None = None
        """When a ping was sent that nothing has come after."""
        self._ping_sent: float | None = None
        """When a ping was sent whose pong hasn't come."""
        self._trades = 0
        self._flowed = False
        self._last_data_ns = 0
        self._outage_from_ns: int | None = None
        self.phase = Phase.WAITING
        self.connection: Connection | None = None
        self.connects = 0
        """Connections that became live since the start."""
        self.disconnects: dict[str, int] = dict.fromkeys(REASONS, 0)
        """Lost connections and failed tries since the start, by reason."""
        self.live_since_ns = 0
        """When the connection became live, CLOCK_REALTIME in nanoseconds; 0 while it isn't."""
        self.gaps = 0
        """Outages since the start that have ended."""
        self.gap_seconds = 0.0
        """How long they took, from the last data before to the first after, in seconds."""
        self.round_trips = Histogram(0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
        """Seconds from our pings to their pongs."""

    @property
    def tls(self) -> str:
        """Who decrypts the present connection: "kernel", "user" (OpenSSL in this process), or "none"."""
        return self.connection.tls if self.connection is not None else "none"

    @property
    def topics(self) -> tuple[int, int]:
        """Topics that the present connection was asked for, and how many the provider has answered."""
        return self._session.topics if self._session is not None else (len(self._topics), 0)

    @property
    def connected(self) -> bool:
        """Whether login and subscription are through."""
        return self.phase is Phase.LIVE

    @property
    def heard_ns(self) -> int:
        """When the provider was last heard while trades flowed (ns since the epoch); 0: not yet."""
        return self._last_data_ns if self._flowed else 0

    def resume(self, heard_ns: int) -> None:
        """Count trades as missing since then: when an earlier process last heard the provider. To be called first."""
        self._outage_from_ns = heard_ns

    def reconfigure(self, feed: Feed) -> None:
        """Take over topics and timeouts, on the connection that is there; nothing else may differ from before."""
        self._feed = feed
        self.profile = resolve(feed)
        self._credentials = self._credentials.for_topics(self.profile.subscribe)
        self._adjust_topics()

    def start(self, now: float) -> None:
        """Begin the first try."""
        if self._feed.profile != self.profile.name:
            _LOG.info("profile: %s is understood as %s", self._feed.profile, self.profile.name)
        if self._keyed and self._target.tls is None and not proxies.is_loopback(self._target.host):
            _LOG.warning("the key travels unencrypted: url=%s; use wss:// if the provider offers it", self._shown)
        self._connect(now)

    def stop(self, now: float) -> None:
        """Send a close frame, if there is a connection, and go to STOPPED as soon as the peer has answered (≤ 1 s)."""
        self._stopping = True
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        if self.connection is None:
            self._enter(Phase.STOPPED)
        elif self.phase is not Phase.CLOSING:
            _LOG.info("disconnecting: connected_for=%.1fs", now - self._since)
            self.live_since_ns = 0
            self.connection.send_close(1000)
            self._enter(Phase.CLOSING, now + CLOSE_TIMEOUT)

    def fds(self) -> list[tuple[int, int]]:
        """Return (descriptor, mask of selectors.EVENT_READ and EVENT_WRITE) of what the link waits for now."""
        if self._connector is not None:
            return [(self._connector.fileno(), selectors.EVENT_READ)]
        if self.connection is not None:
            write = selectors.EVENT_WRITE if self.connection.wants_write else 0
            return [(self.connection.fileno(), selectors.EVENT_READ | write)]
        return []

    def next_deadline(self) -> float:
        """Return when `tick` has something to do at the latest; math.inf if only a descriptor can change anything."""
        if self._session is None or self.phase not in (Phase.LOGIN, Phase.LIVE):
            return self._due
        answer = self._session.deadline()
        return min(self._silence_ends(), math.inf if answer is None else answer)

    def on_data(self, now: float, trades: int) -> None:
        """Note that bytes came: any sign of life counts as one. `trades` is the router's total.

        Call it too while not reading is the owner's own choice, else silence is taken for a dead connection.
        """
        self._heard(now)
        if trades != self._trades:
            self._trades = trades
            if self.phase is not Phase.CLOSING:
                self._flows()
            elif self._flowed:
                # What a connection brings after its loss was reported is not missing.
                self._outage_from_ns = self._last_data_ns

    def on_event(self, event: Event, now: float) -> None:
        """Act on what the router stopped at; REJECT is the owner's affair and ignored here."""
        if self.connection is None or self._session is None:
            return
        self._heard(now)
        if event.kind is EventKind.CLOSE:
            self._on_close(event, self.connection, self._session, now)
        elif self.phase is Phase.CLOSING:
            # After a close frame nothing more may be sent (RFC 6455, section 5.5.1).
            return
        elif event.kind is EventKind.PING:
            self.connection.send_pong(event.data)
        elif event.kind is EventKind.PONG:
            if self._ping_sent is not None:
                self.round_trips.observe(now - self._ping_sent)
                self._ping_sent = None
        elif event.kind is EventKind.MESSAGE:
            self._apply(self._session.message(event.data, now), now)
        elif event.kind is EventKind.VIOLATION:
            self.connection.send_close(event.code, event.reason)
            text = f"the provider broke the websocket protocol: code={event.code} cause={event.reason}"
            self._lost(Failure("violation", text), now)
            self._enter(Phase.CLOSING, now + CLOSE_TIMEOUT)

    def on_closed(self, now: float, error: OSError | None = None) -> None:
        """Note that the socket has ended, with `error` or by the peer's end of stream."""
        if self.connection is None or self._session is None:
            return
        if self.phase is not Phase.CLOSING:
            self._lost(self._named(failures.ended(error), self._session, now), now)
        self._drop()

    def tick(self, now: float) -> None:
        """Do what is due: take a finished handshake, write what is queued, ping, time out, try again."""
        if self._connector is not None:
            result = self._connector.result()
            if result is None and now >= self._due:
                result = self._connector.timed_out()
            if result is not None:
                self._connector.cancel()
                self._connector = None
                if isinstance(result, Connection):
                    self._opened(result, now)
                else:
                    self._failed(result, now)
        elif self.connection is not None:
            self.connection.flush()
            if self.phase is Phase.CLOSING:
                if now >= self._due:
                    self._drop()
            elif self._session is not None:
                self._watch(self.connection, self._session, now)
        elif self.phase is Phase.WAITING and now >= self._due:
            self._connect(now)

    def close(self) -> None:
        """Let go of every descriptor at once, without a word to the peer."""
        self._stopping = True
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        if self.connection is not None:
            self._drop()
        self._enter(Phase.STOPPED)

    def redact(self, text: str) -> str:
        """Return the text with the key and its usual encodings replaced; for anything that a provider sent."""
        return self._credentials.redact(text)

    def _enter(self, phase: Phase, until: float = math.inf) -> None:
        """Go to a phase that `tick` ends at `until`; LOGIN and LIVE have deadlines of their own (`next_deadline`)."""
        self.phase = phase
        self._due = until

    def _connect(self, now: float) -> None:
        _LOG.info("connecting: url=%s attempt=%d", self._shown, self._backoff.attempts + 1)
        self._enter(Phase.CONNECTING, now + self._feed.connect_timeout)
        self._since = now
        self._connector = Connector(self._target)
        self._connector.start()

    def _failed(self, failure: Failure, now: float) -> None:
        self._report("connect failed", failure, now)
        self._enter(Phase.WAITING, self._retry_at)

    def _opened(self, connection: Connection, now: float) -> None:
        cipher, by = connection.cipher, connection.tls
        _LOG.info("connected: url=%s tls=%s by=%s in=%.3fs", self._shown, cipher, by, now - self._since)
        self.connection = connection
        self._enter(Phase.LOGIN)
        self._since = self._last_data = now
        self._pinged = self._ping_sent = None
        self._flowed = False
        self._session = Session(self.profile, self._credentials, self._feed.login_timeout)
        self._topics = self.profile.subscribe
        self._listener.opened()
        self._apply(self._session.opened(now), now)

    def _apply(self, outcome: Outcome, now: float) -> None:
        if self.connection is None:
            return
        for text in outcome.send:
            self.connection.send_text(text)
        if outcome.failure is not None:
            self.connection.send_close(1000)
            self._lost(outcome.failure, now)
            self._enter(Phase.CLOSING, now + CLOSE_TIMEOUT)
        elif outcome.live:
            self._enter(Phase.LIVE)
            self.connects += 1
            self.live_since_ns = self._clock_ns()
            self._backoff.live(now)
            topics = self._credentials.show(",".join(self.profile.subscribe))
            _LOG.info(
                "live: profile=%s topics=%s login=%.3fs",
                self.profile.name,
                topics,
                now - self._since,
                extra=events.LIVE(CONNECTION=self.connects, URL=self._shown),
            )
            self._flows()
            self._adjust_topics()
            self._listener.live()

    def _adjust_topics(self) -> None:
        """Bring a live connection to the topics of the profile: first what is new, so that nothing is missed."""
        if self.connection is None or self.phase is not Phase.LIVE:
            return
        before, now = self._topics, self.profile.subscribe
        if self._session is not None:
            self._session.ask_for(now)
        for template, topics in (
            (self.profile.add, [topic for topic in now if topic not in before]),
            (self.profile.remove, [topic for topic in before if topic not in now]),
        ):
            if topics and template:
                self.connection.send_text(self._credentials.for_topics(topics).message(template))
        self._topics = now

    def _on_close(self, event: Event, connection: Connection, session: Session, now: float) -> None:
        if self.phase is Phase.CLOSING:
            self._drop()
            return
        connection.send_close(event.code)
        said = self._credentials.show(event.data)
        meaning = _CLOSE_CODES.get(event.code, "a code of the provider's own")
        text = f'the provider closed it: code={event.code} ({meaning}) said="{said}"'
        closed = Failure("closed", text, code=event.code)
        self._lost(self._named(closed, session, now), now)
        self._enter(Phase.CLOSING, now + CLOSE_TIMEOUT)

    def _named(self, failure: Failure, session: Session, now: float) -> Failure:
        """Put a loss down to what the provider has just named as trouble, if it has."""
        trouble = session.named(now)
        if trouble is None:
            return failure
        return Failure(trouble.reason, f"{failure.text}; {trouble.text}", trouble.retry, code=failure.code)

    def _watch(self, connection: Connection, session: Session, now: float) -> None:
        answer = session.deadline()
        if answer is not None and now >= answer:
            self._apply(session.expired(now), now)
        elif now >= self._silence_ends():
            if self._pinged is None:
                connection.send_ping()
                self._pinged = self._ping_sent = now
                return
            text = f"nothing came for {now - self._last_data:.1f} s, nor an answer to a ping"
            self._lost(Failure("silent", text), now)
            # No close frame: nobody is there to answer it.
            self._drop()

    def _silence_ends(self) -> float:
        # A ping must have been out for the whole timeout: after a pause of ours the silence is no fault of the peer.
        if self._pinged is not None:
            return self._pinged + self._feed.ping_timeout
        return self._last_data + self._feed.ping_interval

    def _heard(self, now: float) -> None:
        self._last_data = now
        self._last_data_ns = self._clock_ns()
        self._pinged = None

    def _flows(self) -> None:
        """Note that trades arrive from here on, which is where an outage ends."""
        self._flowed = True
        if self._outage_from_ns is not None:
            from_ns, self._outage_from_ns = self._outage_from_ns, None
            until_ns = self._clock_ns()
            self.gaps += 1
            self.gap_seconds += max(0, until_ns - from_ns) / 1e9
            self._listener.outage(from_ns, until_ns)

    def _lost(self, failure: Failure, now: float) -> None:
        self.live_since_ns = 0
        if self._flowed and self._outage_from_ns is None:
            self._outage_from_ns = self._last_data_ns
        self._backoff.lost(now)
        self._report("disconnected", failure, now, f" connected_for={now - self._since:.1f}s")

    def _report(self, what: str, failure: Failure, now: float, more: str = "") -> None:
        self.disconnects[failure.reason] += 1
        text = self._credentials.show(failure.text, 1000)
        if self._stopping:
            _LOG.info("%s: reason=%s%s: %s", what, failure.reason, more, text)
            return
        waits = {"at_once": self._backoff.at_once, "normal": self._backoff.next, "slow": self._backoff.slow}
        delay = max(waits[failure.retry](), failure.retry_after)
        self._retry_at = now + delay
        level = logging.ERROR if failure.retry == "slow" else logging.WARNING
        again = f"trying again in {delay:.1f} s (attempt {self._backoff.attempts + 1})"
        event = events.CONNECT_FAILED if self.connection is None else events.DISCONNECTED
        fields = event(REASON=failure.reason, CONNECTION=self.connects)
        if failure.code is not None:
            fields["journal"]["CODE"] = failure.code
        _LOG.log(level, "%s: reason=%s%s: %s; %s", what, failure.reason, more, text, again, extra=fields)

    def _drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None
        self._session = None
        if self._stopping:
            self._enter(Phase.STOPPED)
        else:
            self._enter(Phase.WAITING, self._retry_at)
        self._listener.closed()
