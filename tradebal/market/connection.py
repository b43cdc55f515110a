"""One client of a simulated provider: handshake, dialogue, pace, backlog and close, in a thread of its own.

The `websockets` package's sans-I/O protocol reads what the client sends and answers handshakes, pings and closes;
trades are frames that the playback prepared, and go to the socket as they are.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosedError, InvalidState
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from tradebal.market.dialogue import POLICY_VIOLATION, Dialogue
from tradebal.market.playback import Block, Chunk, Playback
from tradebal.market.sent_log import SentLog
from tradebal.router.frames import server_frame
from tradebal.wakeup import Wakeup

_log = logging.getLogger(__name__)
_protocol_log = logging.getLogger("tradebal.market.protocol")
_protocol_log.setLevel(logging.WARNING)

_ROUND = 256 << 10
"""Bytes rendered at most before the socket gets its turn."""
_TURN = 4 << 20
"""Bytes written at most before the client is listened to again."""
_LATE = 0.5
"""Seconds of lateness of our own up to which a paced playback catches up; beyond them its schedule moves."""
_HANDSHAKE_TIMEOUT = 10.0
_DRAIN_TIMEOUT = 1.0
_NORMAL_CLOSURE = 1000
_GOING_AWAY = 1001


@dataclass(frozen=True)
class Manners:
    """How a provider treats its clients; times are seconds."""

    login_timeout: float = 10.0
    ping_every: float = 30.0
    """0: never."""
    buffer_limit: int = 256 << 20
    """Unread bytes for which a client is cut off as a slow consumer; 0: the playback waits for the client instead."""
    evict: Literal["random", "newest", "oldest"] = "random"
    """Which one dies of two connections of an account."""
    close_timeout: float = 30.0
    """How long a client may take to read what is left and answer a close."""
    close_at_end: bool = False
    """Close with 1000 when a client has had the whole playback; else stay connected, as after the market's close."""


@dataclass
class ClientReport:
    """What one client was sent. Counts are of blocks that its socket took whole."""

    client: int
    peer: str
    trades: int = 0
    frames: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """From the first block to the last."""
    peak: int = 0
    """Most trades within one second (ten neighbouring tenths)."""
    dropped: int = 0
    """Trades that were due but given up when the connection ended."""
    late: float = 0.0
    """Seconds by which the schedule moved because this process was too slow for it."""
    pongs: int = 0
    finished: bool = False
    """Whether it had the whole playback."""
    ended: str = ""
    """Why the connection ended; empty while it lasts."""


class Host(Protocol):
    """What a connection needs of the provider that accepted it."""

    playback: Playback
    manners: Manners
    tls: ssl.SSLContext | None
    sent_log: SentLog | None
    finished: threading.Event

    def new_dialogue(self) -> Dialogue:
        """Return this client's own dialogue."""

    def claim(self, account: str, newcomer: Connection) -> None:
        """Make `newcomer` the account's only connection, or end it."""

    def release(self, connection: Connection) -> None:
        """Let go of the accounts that the connection held."""


class _Out(NamedTuple):
    """Bytes on their way to the socket, and the block that they are, if they are one."""

    data: memoryview
    block: Block | None


class Connection:
    """One client: handshake, dialogue, playback and close, in its own thread."""

    def __init__(self, provider: Host, sock: socket.socket, number: int, peer: str) -> None:
        """Serve the accepted socket `sock` once `thread` is started; the thread closes it."""
        self.report = ClientReport(number, peer)
        self.thread = threading.Thread(target=self._run, name=f"client-{number}", daemon=True)
        self._provider = provider
        self._manners = provider.manners
        self._sock = sock
        self._dialogue = provider.new_dialogue()
        self._protocol = ServerProtocol(max_size=1 << 20, logger=_protocol_log)
        self._fragments: list[bytes] = []
        self._asked: collections.deque[str] = collections.deque()
        self._wakeup = Wakeup()
        self._wake_lock = threading.Lock()
        """Held by whoever writes to or closes the descriptor: its number may soon be another's."""
        self._over = False
        self._eof_sent = False
        self._eof_wanted = False
        self._deadline = math.inf
        """When to give up on a goodbye."""
        self._next_ping = math.inf
        self._login_by = math.inf

        self._out: collections.deque[_Out] = collections.deque()
        self._offset = 0
        """Bytes of the first of `_out` that are already sent."""
        self._blocked = False
        self.queued = 0
        """Bytes in `_out` that are not yet sent."""

        self._chunks: Iterator[Chunk] | None = None
        self._chunk: Chunk | None = None
        self._start = 0.0
        self._first_sent = 0.0
        self._announced = False
        self._tenths: collections.Counter[int] = collections.Counter()

    def ask(self, what: str) -> None:
        """Have the connection's own thread do something: stop, abort or displaced. From any thread."""
        self._asked.append(what)
        with self._wake_lock:
            self._wakeup.wake()

    # Life

    def _run(self) -> None:
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._provider.tls:
                self._sock.settimeout(_HANDSHAKE_TIMEOUT)
                self._sock = self._provider.tls.wrap_socket(self._sock, server_side=True)
            self._sock.setblocking(False)
            self._serve()
        except OSError as error:
            self._end(f"lost: {error}")
        finally:
            self._sock.close()
            self._provider.release(self)
            with self._wake_lock:
                self._wakeup.close()
            report = self.report
            report.dropped += sum(out.block.trades for out in self._out if out.block)
            self._out.clear()
            report.ended = report.ended or "connection ended"
            report.finished = report.finished and not report.dropped
            self._announce_finish()
            _log.info(
                "client ended: client=%d reason=%r trades=%d frames=%d bytes=%d seconds=%.3f peak=%d dropped=%d "
                "late=%.3f",
                report.client,
                report.ended,
                report.trades,
                report.frames,
                report.bytes,
                report.seconds,
                report.peak,
                report.dropped,
                report.late,
            )

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        self._deadline = time.monotonic() + _HANDSHAKE_TIMEOUT
        while not self._over:
            now = time.monotonic()
            self._keep_times(now)
            self._produce(now)
            self._send()
            if self._over:
                return
            poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._out else 0))
            for fd, _ in poll.poll(self._patience()):
                if fd == self._wakeup.fileno():
                    self._wakeup.take()
                else:
                    self._receive()
            while self._asked:
                self._do(self._asked.popleft())

    def _patience(self) -> int:
        """Milliseconds until something is due."""
        if self._out and not self._blocked:
            return 0
        due = min(self._deadline, self._next_ping, self._login_by)
        if self._chunk and self._may_produce():
            due = min(due, self._start + self._chunk.at if self._provider.playback.paced else 0.0)
        return min(1000, max(0, math.ceil((due - time.monotonic()) * 1000))) if due < math.inf else 1000

    def _keep_times(self, now: float) -> None:
        if now >= self._deadline:
            self._end("gave up waiting for the client")
        elif now >= self._login_by:
            self._login_by = math.inf
            self._refuse(self._dialogue.timed_out(), "login timed out")
        elif now >= self._next_ping:
            self._next_ping = now + self._manners.ping_every
            self._protocol.send_ping(str(time.time_ns()).encode())
            self._take_protocol_output()

    def _do(self, what: str) -> None:
        if what == "abort":
            self._end("stopped before the client said goodbye")
        elif self._protocol.state is State.CONNECTING:
            self._end("stopped")
        elif what == "stop":
            self._close(_GOING_AWAY, "stopped")
        elif what == "displaced":
            self._refuse(self._dialogue.displaced(), "account has another connection")

    def _end(self, why: str) -> None:
        self._over = True
        self.report.ended = self.report.ended or why

    # From the client

    def _receive(self) -> None:
        while not self._over:
            try:
                data = self._sock.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                self._protocol.receive_eof()
                self._end("client closed" if self._protocol.close_rcvd else "client hung up")
                return
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                self._handle(event)
            if self._protocol.state is not State.OPEN and self._chunk:
                # The client broke the protocol, and a close frame is on its way: nothing may follow it.
                self._stop_playing()
            self._take_protocol_output()

    def _handle(self, event: Any) -> None:
        if isinstance(event, Request):
            self._handshake(event)
        elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._fragments.append(bytes(event.data))
            if event.fin:
                message = b"".join(self._fragments).decode("utf-8", "replace")
                self._fragments.clear()
                self._converse(message)
        elif event.opcode is Opcode.PONG:
            self.report.pongs += 1
        elif event.opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            self.report.ended = self.report.ended or f"client closed: code={received.code if received else 1005}"
            self._stop_playing()

    def _handshake(self, request: Request) -> None:
        dialogue = self._dialogue
        path = urlsplit(request.path).path
        if dialogue.paths and path not in dialogue.paths:
            self._protocol.send_response(self._protocol.reject(HTTPStatus.NOT_FOUND, "404 page not found\n"))
            self.report.ended = f"unknown path: {path}"
            return
        self._protocol.send_response(self._protocol.accept(request))
        if self._protocol.state is not State.OPEN:
            self.report.ended = "handshake refused"
            return
        now = time.monotonic()
        self._deadline = math.inf
        self._login_by = now + self._manners.login_timeout
        if self._manners.ping_every:
            self._next_ping = now + self._manners.ping_every
        _log.info(
            "client connected: client=%d peer=%s path=%s tls=%s",
            self.report.client,
            self.report.peer,
            path,
            (self._sock.version() if isinstance(self._sock, ssl.SSLSocket) else None) or "no",
        )
        self._take_protocol_output()
        self._say(dialogue.opened())
        self._follow_dialogue()

    def _converse(self, message: str) -> None:
        if self._protocol.state is not State.OPEN:
            return
        answers = self._dialogue.received(message)
        if self._dialogue.refused:
            self._refuse(answers, "login refused")
            return
        self._say(answers)
        self._follow_dialogue()

    def _follow_dialogue(self) -> None:
        dialogue = self._dialogue
        if dialogue.logged_in:
            self._login_by = math.inf
        if dialogue.playing and self._chunks is None:
            _log.info("playing: client=%d", self.report.client)
            self._chunks = self._provider.playback.chunks()
            self._chunk = next(self._chunks, None)
            self._start = time.monotonic()
            if self._chunk is None:
                self._finish_playback()
        if dialogue.account is not None:
            self._provider.claim(dialogue.account, self)

    # To the client

    def _say(self, messages: list[str]) -> None:
        for message in messages:
            self._queue(server_frame(message.encode()))

    def _queue(self, data: bytes, block: Block | None = None) -> None:
        self._out.append(_Out(memoryview(data), block))
        self.queued += len(data)

    def _take_protocol_output(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._queue(data)
            else:
                # The protocol's sign that our side of the stream ends here.
                self._eof_wanted = True
        if self._eof_wanted and not self._eof_sent:
            self._deadline = min(self._deadline, time.monotonic() + self._manners.close_timeout)

    def _may_produce(self) -> bool:
        if self._manners.buffer_limit and self._provider.playback.paced:
            return True
        return self.queued < _ROUND

    def _produce(self, now: float) -> None:
        """Render what is due, whether or not the socket has room: what it doesn't take is the client's backlog."""
        paced = self._provider.playback.paced
        limit = self._manners.buffer_limit
        if paced and limit and self._chunk and now - self._start - self._chunk.at > _LATE:
            # Nobody but this process made the playback late. Caught up with in one go, it would be a burst that no
            # schedule asked for, and the client would pay for it.
            moved = now - self._start - self._chunk.at
            self._start += moved
            self.report.late += moved
        rendered = 0
        while self._chunk and rendered < _ROUND and self._may_produce():
            if paced and self._start + self._chunk.at > now:
                break
            block = self._chunk.render(self._dialogue.wanted, time.time_ns() // 1_000_000)
            if block.data:
                if self._provider.sent_log and block.trades:
                    self._provider.sent_log.add(self.report.client, block, time.monotonic_ns())
                self._queue(block.data, block)
                rendered += len(block.data)
            assert self._chunks is not None
            self._chunk = next(self._chunks, None)
            if self._chunk is None:
                self._finish_playback()
        if limit and paced and self.queued > limit:
            self._refuse(self._dialogue.too_slow(), "slow consumer")

    def _finish_playback(self) -> None:
        self.report.finished = True
        if self._manners.close_at_end:
            self._close(_NORMAL_CLOSURE, "end of playback")

    def _announce_finish(self) -> None:
        if self.report.finished and not self._announced:
            self._announced = True
            self._provider.finished.set()

    def _send(self) -> None:
        sent = 0
        self._blocked = False
        while self._out and sent < _TURN:
            data, block = self._out[0]
            try:
                count = self._sock.send(data[self._offset :])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._blocked = True
                return
            sent += count
            self.queued -= count
            self._offset += count
            if self._offset == len(data):
                self._out.popleft()
                self._offset = 0
                if block:
                    self._count(block)
        if sent and self._protocol.state is not State.OPEN:
            self._deadline = time.monotonic() + self._manners.close_timeout
        if not self._out:
            if not self._manners.close_at_end:
                self._announce_finish()
            if self._eof_wanted and not self._eof_sent:
                self._send_eof()

    def _count(self, block: Block) -> None:
        now = time.monotonic()
        report = self.report
        self._first_sent = self._first_sent or now
        report.trades += block.trades
        report.frames += block.frames
        report.bytes += len(block.data)
        report.seconds = now - self._first_sent
        tenth = int(now * 10)
        self._tenths[tenth] += block.trades
        report.peak = max(report.peak, sum(self._tenths[tenth - back] for back in range(10)))

    # Goodbye

    def _refuse(self, last_words: list[str], why: str) -> None:
        if self._protocol.state is not State.OPEN:
            return
        self._stop_playing()
        self._say(last_words)
        self._close(POLICY_VIOLATION, why, reason="")

    def _close(self, code: int, why: str, reason: str = "") -> None:
        if self._protocol.state is not State.OPEN:
            return
        self.report.ended = self.report.ended or why
        if code != _NORMAL_CLOSURE:
            self._stop_playing()
        with contextlib.suppress(InvalidState, ConnectionClosedError):
            self._protocol.send_close(code, reason)
        self._take_protocol_output()
        self._chunk = None
        self._login_by = self._next_ping = math.inf
        self._deadline = time.monotonic() + self._manners.close_timeout

    def _stop_playing(self) -> None:
        """Give up what is due but not begun, so that a close doesn't wait behind it."""
        self._chunk = None
        if not self._out:
            return
        # A block in the middle of being written has to be completed: the peer would take what follows for its rest.
        begun = [self._out.popleft()] if self._offset or self._blocked else []
        self.report.dropped += sum(out.block.trades for out in self._out if out.block)
        kept = [out for out in self._out if out.block is None]
        self._out = collections.deque(begun + kept)
        self.queued = sum(len(out.data) for out in self._out) - self._offset

    def _send_eof(self) -> None:
        self._eof_sent = True
        self._deadline = time.monotonic() + _DRAIN_TIMEOUT
        # Closing at once could reset the connection under data that the client has not read yet, so only our side is
        # closed here; the client's end of file, or the deadline, ends the rest.
        with contextlib.suppress(OSError):
            if isinstance(self._sock, ssl.SSLSocket):
                self._sock.unwrap()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
