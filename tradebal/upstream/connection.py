"""The websocket after its opening handshake: frames go out without ever blocking, bytes come in by whoever reads."""

from __future__ import annotations

import contextlib
import socket
from typing import Literal

from websocket import ABNF

from tradebal.tls.sockets import TlsSocket

MAX_QUEUED = 1 << 20
"""Bytes that may wait to be written before pongs are left out (RFC 6455, 5.5.3: only the newest ping needs one)."""


class Connection:
    """An open websocket on a non-blocking socket, which it owns.

    Sending queues a masked frame and writes what the socket takes at once; the rest waits for `flush`. An error while
    writing drops the queue silently: reading still yields what the peer sent before it left (often the reason), and
    then reports the end.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.sock = sock
        self._queue = bytearray()
        self._broken = False

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 once closed."""
        return self.sock.fileno()

    @property
    def tls(self) -> Literal["none", "kernel", "user"]:
        """Who decrypts. With "user", `receive_into` must read instead of recv on the descriptor.

        With "kernel" it must read where recv on the descriptor fails with EIO: at a TLS record that holds no data.
        """
        return self.sock.by if isinstance(self.sock, TlsSocket) else "none"

    @property
    def cipher(self) -> str:
        """TLS version and cipher suite; "none" without TLS."""
        return f"{self.sock.version}/{self.sock.cipher}" if isinstance(self.sock, TlsSocket) else "none"

    def receive_into(self, buffer: memoryview) -> int:
        """Read up to `len(buffer)` bytes; 0 means that the peer has ended the stream.

        BlockingIOError where nothing is there yet; any other OSError means that the connection is lost. Call it until
        BlockingIOError: OpenSSL may hold bytes that no select shows.
        """
        return self.sock.recv_into(buffer)

    def send_text(self, text: str) -> None:
        """Send a text message in one frame."""
        self._send(text.encode(), ABNF.OPCODE_TEXT)

    def send_ping(self, payload: bytes = b"") -> None:
        """Send a ping; `payload` has at most 125 bytes."""
        self._send(payload, ABNF.OPCODE_PING)

    def send_pong(self, payload: bytes) -> None:
        """Answer a ping with its payload (RFC 6455, 5.5.3)."""
        if len(self._queue) < MAX_QUEUED:
            self._send(payload, ABNF.OPCODE_PONG)

    def send_close(self, code: int, reason: str = "") -> None:
        """Send a close frame (RFC 6455, 5.5.1); 1005 stands for one without code. `reason` is cut to 123 bytes."""
        cut = reason.encode()[:123].decode("utf-8", "ignore").encode()
        self._send(b"" if code == 1005 else code.to_bytes(2, "big") + cut, ABNF.OPCODE_CLOSE)

    @property
    def wants_write(self) -> bool:
        """Whether `flush` should be called when the socket is writable."""
        return bool(self._queue)

    def flush(self) -> bool:
        """Write what the socket takes now; True when nothing is left to write."""
        while self._queue and not self._broken:
            try:
                # A retry must offer TLS at least the bytes of the refused try: the queue only grows in between.
                sent = self.sock.send(self._queue)
            except BlockingIOError:
                return False
            except OSError:
                self._broken = True
            else:
                del self._queue[:sent]
        if self._broken:
            self._queue.clear()
        return True

    def close(self) -> None:
        """Let go of the socket, at once and without a word to the peer."""
        self._queue.clear()
        with contextlib.suppress(OSError):
            self.sock.close()

    def _send(self, payload: bytes, opcode: int) -> None:
        self._queue += ABNF.create_frame(payload, opcode).format()
        self.flush()
