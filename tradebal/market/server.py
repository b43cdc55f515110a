"""Serves a playback to websocket clients as a provider would: listens, and lets an account have one connection.

authority = ThrowAwayAuthority()
with Provider(playback, MassiveDialogue, tls=authority.server_context()) as provider:
…                                   # clients use provider.url
provider.finished.wait()            # a client has had the whole playback
provider.report()
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tradebal.errors import UserError
from tradebal.market.connection import ClientReport, Connection, Manners
from tradebal.market.dialogue import Dialogue
from tradebal.market.playback import Playback
from tradebal.market.sent_log import SentLog

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """Sums over all clients, and each of them."""

    trades: int
    frames: int
    bytes: int
    peak: int
    clients: list[ClientReport] = field(default_factory=list)


class Provider:
    """Listens, and serves the playback to each client from its own start.

    Starts in `__enter__` or `start`; `stop` closes all connections with 1001.
    """

    def __init__(
        self,
        playback: Playback,
        dialogue: Callable[[], Dialogue],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        manners: Manners | None = None,
        seed: int = 0,
        sent_log: SentLog | None = None,
    ) -> None:
        """Serve at `host`:`port` (0: any free one), behind TLS if `tls` is given; `seed` decides who is evicted."""
        self.playback = playback
        self.new_dialogue = dialogue
        self.host, self.port = host, port
        self.tls = tls
        self.manners = manners or Manners()
        self.sent_log = sent_log
        self.finished = threading.Event()
        """Set when a client has had the whole playback (and, with `close_at_end`, has been said goodbye to).

        Once for each client: whoever clears it waits for the next one.
        """
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._connections: list[Connection] = []
        self._accounts: dict[str, Connection] = {}
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where a client connects to; `port` is the real one once started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        paths = self.new_dialogue().paths
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}{paths[0] if paths else '/'}"

    def start(self) -> None:
        """Bind and listen; UserError (code 3) if the address is taken, (code 2) if it is not ours."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            self._listener = socket.create_server((self.host, self.port), family=family, backlog=64)
        except OSError as error:
            raise UserError(
                f"cannot listen on {self.host} port {self.port}: {error.strerror or error}",
                hint="name another address by --host or --port (0: any free one)",
                code=3 if error.errno == errno.EADDRINUSE else 2,
            ) from None
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), name="accept", daemon=True)
        self._acceptor.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop listening, close all connections, and wait up to `timeout` seconds for each goodbye."""
        if self._listener is None or self._acceptor is None:
            return
        self._stopping.set()
        # shutdown() wakes the accept() that close() alone would leave waiting.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self._listener = None
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.ask("stop")
        deadline = time.monotonic() + timeout
        for connection in connections:
            connection.thread.join(max(0.0, deadline - time.monotonic()))
            if connection.thread.is_alive():
                connection.ask("abort")
                connection.thread.join()

    def report(self) -> Report:
        """What was sent until now."""
        with self._lock:
            clients = [connection.report for connection in self._connections]
        return Report(
            trades=sum(client.trades for client in clients),
            frames=sum(client.frames for client in clients),
            bytes=sum(client.bytes for client in clients),
            peak=max((client.peak for client in clients), default=0),
            clients=clients,
        )

    def backlog(self) -> int:
        """Bytes that were due and that no socket has taken yet."""
        with self._lock:
            return sum(connection.queued for connection in self._connections)

    def claim(self, account: str, newcomer: Connection) -> None:
        """Make `newcomer` the account's only connection, or end it, if it already has one."""
        with self._lock:
            holder = self._accounts.get(account)
            if holder is newcomer:
                return
            victim = None
            if holder is not None:
                evict = self.manners.evict
                if evict == "random":
                    evict = self._random.choice(("newest", "oldest"))
                victim = newcomer if evict == "newest" else holder
            if victim is not newcomer:
                self._accounts[account] = newcomer
        if victim:
            victim.ask("displaced")

    def release(self, connection: Connection) -> None:
        """Let go of the accounts that the connection held."""
        with self._lock:
            for account in [name for name, holder in self._accounts.items() if holder is connection]:
                del self._accounts[account]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                _log.warning("cannot accept a client: %s", error)
                self._stopping.wait(0.1)
                continue
            with self._lock:
                number = len(self._connections) + 1
                connection = Connection(self, sock, number, f"{address[0]}:{address[1]}")
                self._connections.append(connection)
            connection.thread.start()
