"""Bounds what a server may send in answer to the opening handshake, which websocket-client reads without a limit."""

from __future__ import annotations

import re
import socket
from typing import Any

import websocket

MAX_HEAD = 64 << 10
"""Bytes of the answer's status line and header fields at most."""
MAX_BODY = 64 << 10
"""Bytes of the body that a refusal may bring at most; nobody reads it."""

_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3})")


class AnswerTooLongError(Exception):
    """The answer to the opening handshake exceeds `MAX_HEAD`, or, with `status` (the HTTP status), `MAX_BODY`."""

    def __init__(self, status: int | None) -> None:
        super().__init__("the answer to the opening handshake is too long")
        self.status = status


class _Bounded:
    """A connected socket for the time of the opening handshake: all of it, but for a `recv` that counts."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._head = bytearray()
        self._body = 0
        self._in_body = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def recv(self, size: int) -> bytes:
        """Receive up to `size` bytes; AnswerTooLongError beyond the limits."""
        data = self.sock.recv(size)
        if self._in_body:
            self._body += len(data)
            if self._body > MAX_BODY:
                status = _STATUS.match(self._head)
                raise AnswerTooLongError(int(status[1]) if status else None)
            return data
        self._head += data
        # websocket-client strips each line of the head, and takes an empty one for its end.
        if data == b"\n" and not self._head[self._head.rfind(b"\n", 0, -1) + 1 :].strip():
            self._in_body = True
        elif len(self._head) > MAX_HEAD:
            raise AnswerTooLongError(None)
        return data


class BoundedWebSocket(websocket.WebSocket):
    """websocket-client's WebSocket, whose `connect` raises AnswerTooLongError where a server's answer never ends."""

    _bounded: _Bounded | None = None

    def _get(self) -> _Bounded | None:
        return self._bounded

    def _set(self, sock: socket.socket | None) -> None:
        self._bounded = None if sock is None else _Bounded(sock)

    sock: Any = property(_get, _set)
    """The socket as `connect` uses it, once TCP, proxy and TLS are through; its own `sock` is the socket itself."""
