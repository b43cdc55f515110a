"""The TLS handshake, in user space; who decrypts what follows is settled at its end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from tradebal.tls import kernel, keys, records
from tradebal.tls.keylog import KeyLog, Secret
from tradebal.tls.keys import Suite, TrafficKey
from tradebal.tls.memory import wipe
from tradebal.tls.records import ContentType, HandshakeType
from tradebal.tls.sockets import KernelSocket, Rekeying, UserSocket

_RANDOM = slice(6, 38)
"""Where a ServerHello message holds the server's random (RFC 5246, section 7.4.1.3)."""
_EXPLICIT_NONCE_SIZE = 8
"""Bytes with which TLS 1.2's records begin, encrypted by AES-GCM (RFC 5288, section 3)."""


class DeclinedError(Exception):
    """The kernel can't take over this connection; the text says why."""


class Handshake:
    """A client's handshake on a connected socket.

    OpenSSL is given one record at a time, so that nothing beyond the handshake has left the kernel when it ends.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str) -> None:
        """Prepare it; certificate and name are checked as `context` says."""
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._server_random = b""
        self._last_sent = b""

    @property
    def version(self) -> str:
        """TLS version, as OpenSSL names it."""
        return self._tls.version() or ""

    @property
    def cipher(self) -> str:
        """Cipher suite, as OpenSSL names it."""
        return (self._tls.cipher() or ("",))[0]

    def run(self) -> None:
        """Do it, all of it within the socket's timeout.

        Raises what ssl.SSLSocket.do_handshake does: TimeoutError, ssl.SSLError, any other OSError.
        """
        timeout = self._sock.gettimeout()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    self._send()
                    if record := self._record(deadline):
                        self._incoming.write(record)
                    else:
                        self._incoming.write_eof()
                    continue
                except ssl.SSLError:
                    with contextlib.suppress(OSError):
                        self._send()  # the alert that says why
                    raise
                self._send()
                return
        finally:
            self._sock.settimeout(timeout)

    def to_user(self) -> UserSocket:
        """Go on with OpenSSL in this process."""
        return UserSocket(self._sock, self._tls, self._incoming, self._outgoing)

    def to_kernel(self, log: KeyLog) -> KernelSocket:
        """Give the kernel the keys, which `log` holds the secrets of.

        DeclinedError if it can't take them; then `to_user` is still possible.
        """
        suite = keys.find_suite(self.cipher)
        if suite is None or self.version not in ("TLSv1.2", "TLSv1.3"):
            raise DeclinedError(f"the kernel has no {self.version} with {self.cipher}, which the server chose")
        try:
            kernel.attach(self._sock)
        except OSError as error:
            raise DeclinedError(f"the kernel's TLS can't be had ({error.strerror})") from None
        secrets = log.secrets()
        try:
            return (
                self._to_kernel_1_3(suite, secrets)
                if self.version == "TLSv1.3"
                else self._to_kernel_1_2(suite, secrets)
            )
        finally:
            wipe(*(secret for _, secret in secrets.values()))

    def _to_kernel_1_3(self, suite: Suite, secrets: dict[str, Secret]) -> KernelSocket:
        receiving = secrets["SERVER_TRAFFIC_SECRET_0"].secret
        sending = secrets["CLIENT_TRAFFIC_SECRET_0"].secret
        server, client = keys.traffic_key(receiving, suite), keys.traffic_key(sending, suite)
        try:
            self._set_keys(kernel.TLS_1_3, suite, server, client)
            rekeying = None
            if self._can_rekey(suite, server):
                rekeying = Rekeying(suite, bytearray(receiving), bytearray(sending))
        finally:
            server.wipe()
            client.wipe()
        kernel.expect_no_padding(self._sock)
        return KernelSocket(self._sock, self.version, self.cipher, rekeying)

    def _to_kernel_1_2(self, suite: Suite, secrets: dict[str, Secret]) -> KernelSocket:
        client_random, master = secrets["CLIENT_RANDOM"]
        client, server = keys.key_block(master, client_random, self._server_random, suite)
        # Each side has sent one record with these keys, its Finished message. An explicit nonce must be unique, and may
        # be a counter (RFC 5288, section 3): the kernel counts on from the one that OpenSSL chose.
        *_, finished = records.split(self._last_sent)
        used = int.from_bytes(finished.payload[:_EXPLICIT_NONCE_SIZE], "big")
        nonce = ((used + 1) % (1 << 64)).to_bytes(_EXPLICIT_NONCE_SIZE, "big")
        try:
            self._set_keys(kernel.TLS_1_2, suite, server, client, 1, nonce)
        finally:
            server.wipe()
            client.wipe()
        return KernelSocket(self._sock, self.version, self.cipher, None)

    def _set_keys(
        self,
        version: int,
        suite: Suite,
        server: TrafficKey,
        client: TrafficKey,
        sequence: int = 0,
        nonce: bytes = bytes(8),
    ) -> None:
        try:
            kernel.set_key(self._sock, kernel.RX, version, suite, server, sequence)
        except OSError as error:
            # Nothing has changed so far: what has no keys passes through.
            text = f"the kernel refused {self.version} with {self.cipher} ({error.strerror})"
            raise DeclinedError(text) from None
        kernel.set_key(self._sock, kernel.TX, version, suite, client, sequence, nonce)

    def _can_rekey(self, suite: Suite, server: TrafficKey) -> bool:
        """Whether the kernel takes keys more than once (Linux 6.14): asked for by giving it the same key again."""
        try:
            kernel.set_key(self._sock, kernel.RX, kernel.TLS_1_3, suite, server)
        except OSError:
            return False
        return True

    def _send(self) -> None:
        if flight := self._outgoing.read():
            self._last_sent = flight
            self._sock.sendall(flight)

    def _record(self, deadline: float | None) -> bytes:
        """Receive the next record; b"" at the end of the stream.

        Of what isn't TLS it receives only what a header takes, which OpenSSL then judges.
        """
        header = self._exactly(records.HEADER_SIZE, deadline)
        size = records.payload_size(header) if header else None
        if size is None:
            return header
        payload = self._exactly(size, deadline)
        if size and not payload:
            return b""
        if not self._server_random and (header[0], *payload[:1]) == (ContentType.HANDSHAKE, HandshakeType.SERVER_HELLO):
            self._server_random = payload[_RANDOM]
        return header + payload

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        """Receive `size` bytes; b"" if the stream ends before."""
        data = bytearray()
        while len(data) < size:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the TLS handshake takes too long")
                self._sock.settimeout(left)
            more = self._sock.recv(size - len(data))
            if not more:
                return b""
            data += more
        return bytes(data)
