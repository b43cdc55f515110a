"""Keeps what a provider sends: the balancer's own link, with a file where the shards would be."""

from __future__ import annotations

import logging
import math
import select
import selectors
import time
from pathlib import Path

from tradebal.config import Feed, Secret
from tradebal.recordings.format import FLUSH_INTERVAL, Header, Kind, Writer, utc_now
from tradebal.recordings.sift import Sift
from tradebal.router import make_router, warn_if_slow
from tradebal.router.frames import BINARY, server_frame
from tradebal.router.interface import Event, EventKind, Status
from tradebal.systemd.log import Limited
from tradebal.upstream.connection import Connection
from tradebal.upstream.link import Link, Phase
from tradebal.wakeup import Wakeup

_log = logging.getLogger(__name__)

PROGRESS_INTERVAL = 1.0
"""Seconds between two progress lines."""

_LOGGED = 4096
"""Bytes of a message that are searched for the key before a log line quotes the first 100 characters of them."""

_TURN = 0.02
"""Seconds with the socket after which timers get their turn."""


class Recorder:
    """One upstream connection into one file, until `stop`, a time or a size; reconnects as the balancer does.

    Each message is kept whole, as it was received, with the time of the read that completed it. Messages of the
    login, and those that made the link end the connection, are marked (and cleared of the key, should the provider
    have repeated it). Notes tell when a connection was opened, live and lost, and between which times trades may be
    missing.
    """

    def __init__(
        self,
        feed: Feed,
        key: Secret | None,
        path: Path,
        *,
        append: bool = False,
        duration: float = math.inf,
        max_size: int | None = None,
        progress: bool = True,
    ) -> None:
        """Open the file; UserError if it or the feed can't be used. `duration` is seconds, `max_size` bytes."""
        self._link = Link(feed, key, self)
        profile = self._link.profile
        self._router = make_router(1, None, max_message=feed.max_message)
        warn_if_slow(self._router, _log)
        self._sift = Sift(profile.rule)
        header = Header(profile.name, profile.url, utc_now(), profile.subscribe, profile.rule)
        self._writer = Writer(path, header, append=append)
        if self._writer.notice:
            _log.warning("%s", self._writer.notice)
        if append:
            self._writer.note(time.time_ns(), event="started", subscribe=profile.subscribe)
        self._until = time.monotonic() + duration
        self._max_size = max_size
        self._progress = progress
        self._rejects = Limited(_log, per_second=1)
        self._stopping = False
        self._ended = False
        self._more = False
        self._wakeup = Wakeup()
        self.messages = 0
        """Messages kept, without those of logins."""
        self.message_bytes = 0
        """Bytes of those messages."""
        self.gaps = 0
        """Outages while recording."""

    @property
    def trades(self) -> int:
        """Trades in the messages kept."""
        return self._sift.trades

    @property
    def connects(self) -> int:
        """How often login and subscription succeeded."""
        return self._link.connects

    def stop(self) -> None:
        """Have `run` say goodbye to the provider and return; from any thread or signal handler."""
        self._stopping = True
        self._wakeup.wake()

    def run(self) -> None:
        """Record until stopped; RecordingError if the file can't take more (what it has is kept)."""
        try:
            with self._writer:
                self._link.start(time.monotonic())
                next_progress = time.monotonic() + PROGRESS_INTERVAL
                while self._link.phase is not Phase.STOPPED:
                    now = time.monotonic()
                    if self._enough(now):
                        self._stopping = True
                        self._link.stop(now)
                    if now >= next_progress:
                        next_progress = now + PROGRESS_INTERVAL
                        self._say_progress()
                    self._turn(now, next_progress)
                    self._writer.tick()
                self._writer.note(time.time_ns(), event="stopped", messages=self.messages, trades=self.trades)
        finally:
            self._ended = True
            self._link.close()
            self._wakeup.close()

    # What the link tells (tradebal.upstream.link.Listener)

    def opened(self) -> None:
        """Begin a new connection, and read at once: TLS may hold bytes that no poll shows."""
        self._router.reset()
        self._more = True
        self._writer.note(time.time_ns(), event="connected")

    def live(self) -> None:
        """Note that the flow begins."""
        self._writer.note(time.time_ns(), event="live")

    def outage(self, from_ns: int, until_ns: int) -> None:
        """Note where trades may be missing."""
        self.gaps += 1
        self._writer.note(time.time_ns(), event="gap", from_ns=from_ns, until_ns=until_ns)

    def closed(self) -> None:
        """Note that the connection is gone."""
        self._more = False
        if not self._ended:
            self._writer.note(time.time_ns(), event="disconnected")

    # The loop

    def _enough(self, now: float) -> bool:
        full = self._max_size is not None and self._writer.size >= self._max_size
        return self._stopping or now >= self._until or full

    def _turn(self, now: float, next_progress: float) -> None:
        """Wait until something can be done, and do it."""
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        for fd, mask in self._link.fds():
            reading = select.POLLIN if mask & selectors.EVENT_READ else 0
            poller.register(fd, reading | (select.POLLOUT if mask & selectors.EVENT_WRITE else 0))
        until = min(next_progress, self._link.next_deadline(), now + FLUSH_INTERVAL)
        if not self._stopping:
            until = min(until, self._until)
        timeout = 0.0 if self._more else max(0.0, until - now)
        connection = self._link.connection
        ready = {fd for fd, _ in poller.poll(math.ceil(timeout * 1000))}
        if self._wakeup.fileno() in ready:
            self._wakeup.take()
        if connection is not None and (self._more or connection.fileno() in ready):
            self._receive(connection)
        self._link.tick(time.monotonic())

    def _receive(self, connection: Connection) -> None:
        """Take in what the provider has sent, for at most `_TURN`."""
        deadline = time.monotonic() + _TURN
        self._more = False
        while self._link.connection is connection:
            now = time.monotonic()
            if now >= deadline:
                self._more = True
                return
            try:
                with self._router.space() as space:
                    count = connection.receive_into(space)
            except BlockingIOError:
                return
            except OSError as error:
                self._link.on_closed(now, error)
                return
            if not count:
                self._link.on_closed(now)
                return
            time_ns = time.time_ns()
            self._router.received(count)
            self._link.on_data(now, self._sift.trades)
            while self._link.connection is connection and self._router.process() is Status.EVENT:
                event = self._router.event()
                if event.kind is EventKind.MESSAGE:
                    self._keep(event, time_ns, now)
                else:
                    self._link.on_event(event, now)

    def _keep(self, message: Event, time_ns: int, now: float) -> None:
        phase = self._link.phase
        trades, rejects = self._sift.trades, self._sift.rejects
        others = self._sift.feed(server_frame(message.data, message.code))
        traded = self._sift.trades > trades
        if traded:
            # Before the message is written: a gap that it ends stands in front of it.
            self._link.on_data(now, self._sift.trades)
        for event in others:
            self._link.on_event(event, now)
        if self._sift.rejects > rejects:
            self._rejects.warning(
                "recorded, but not routable: %d bytes that begin with %s",
                len(message.data),
                _printable(self._link.redact(message.data[:_LOGGED].decode(errors="replace"))[:100]),
            )
        binary = message.code == BINARY
        if not traded and (phase is Phase.LOGIN or self._link.phase is not phase):
            data = message.data if binary else self._link.redact(message.data.decode()).encode()
            self._writer.write(time_ns, Kind.LOGIN_BINARY if binary else Kind.LOGIN_TEXT, data)
            return
        self.messages += 1
        self.message_bytes += len(message.data)
        self._writer.write(time_ns, Kind.BINARY if binary else Kind.TEXT, message.data)

    def _say_progress(self) -> None:
        self._rejects.flush()
        if self._progress:
            _log.info(
                "recording: state=%s messages=%d trades=%d bytes=%d file=%d gaps=%d",
                self._link.phase.value,
                self.messages,
                self.trades,
                self.message_bytes,
                self._writer.size,
                self.gaps,
            )


def _printable(text: str) -> str:
    """Escape control characters, so that a message can forge no log line and steer no terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
