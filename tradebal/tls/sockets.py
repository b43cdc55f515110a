"""Sockets behind TLS, read and written like plain ones: decrypted by the kernel, or by OpenSSL in this process."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Literal, cast

from tradebal.tls import kernel, keys, records
from tradebal.tls.keys import Suite
from tradebal.tls.memory import wipe
from tradebal.tls.records import AlertError, ContentType, HandshakeType, RecordError, RekeyError, TlsError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_LOG = logging.getLogger(__name__)

_MAX_ASIDE = 32
"""Records in a row that are no data, after which they count as an attack."""

_RECEIVED_AT_ONCE = 128 << 10
"""Bytes of records that user space takes from the kernel with one call."""
_MAX_PLAINTEXT = 1 << 14
"""Bytes in a record (RFC 8446, section 5.1)."""

_WARNING = 1
_REQUESTED = 1

_BROKEN_RECORD = frozenset(
    {
        # The names of OpenSSL's SSL_R_ codes, which stay when the wording of an error changes. From version 3.2 on the
        # first stands for all of the others.
        "RECORD_LAYER_FAILURE",
        "BAD_RECORD_TYPE",
        "DATA_LENGTH_TOO_LONG",
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        "ENCRYPTED_LENGTH_TOO_LONG",
        "LENGTH_TOO_SHORT",
        "PACKET_LENGTH_TOO_LONG",
        "WRONG_VERSION_NUMBER",
    }
)


def translate(error: ssl.SSLError) -> TlsError:
    """Return what an error of OpenSSL's means once the handshake is done, in the terms of tradebal.tls.records."""
    reason = error.reason or ""
    if reason in _BROKEN_RECORD:
        return RecordError("a TLS record that the peer didn't encrypt")
    _, is_alert, name = reason.partition("_ALERT_")
    if is_alert:
        return AlertError(name.lower())
    return TlsError((reason or "ended by the peer").replace("_", " ").lower())


class TlsSocket(socket.socket):
    """A connected socket behind TLS. It takes over the descriptor of the one that it is made from, and its timeout."""

    by: Literal["kernel", "user"]
    """Who decrypts: the kernel, so that recv on the descriptor gives data too, or OpenSSL in this process."""

    def __init__(self, sock: socket.socket, version: str, cipher: str) -> None:
        """Name version and cipher suite as OpenSSL does."""
        timeout = sock.gettimeout()
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.settimeout(timeout)
        self.version = version
        self.cipher = cipher

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive up to `bufsize` bytes; see `recv_into`."""
        buffer = bytearray(bufsize)
        return bytes(buffer[: self.recv_into(buffer, 0, flags)])


class Rekeying:
    """What a KeyUpdate needs: the present traffic secrets of TLS 1.3, which stay here for as long as the connection."""

    def __init__(self, suite: Suite, receiving: bytearray, sending: bytearray) -> None:
        self._suite = suite
        self._secrets = {kernel.RX: receiving, kernel.TX: sending}

    def advance(self, sock: socket.socket, direction: int) -> None:
        """Give the kernel the next key of a direction."""
        secret = self._secrets[direction]
        keys.update(secret, self._suite)
        key = keys.traffic_key(secret, self._suite)
        try:
            kernel.set_key(sock, direction, kernel.TLS_1_3, self._suite, key)
        finally:
            key.wipe()

    def wipe(self) -> None:
        """Overwrite the secrets."""
        wipe(*self._secrets.values())


class KernelSocket(TlsSocket):
    """TLS by the kernel.

    recv on the descriptor gives data, or fails with EIO at a record that holds none, again and again, until `recv`
    or `recv_into` has dealt with it.
    """

    by = "kernel"

    def __init__(self, sock: socket.socket, version: str, cipher: str, rekeying: Rekeying | None) -> None:
        """Take over a socket whose keys the kernel has; without `rekeying` a KeyUpdate ends the connection."""
        super().__init__(sock, version, cipher)
        self._rekeying = rekeying
        self._messages = records.Messages()

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive what there is; 0 at the end of the stream, which may be said by close_notify.

        TlsError where the peer gives up, or sends what can't be followed.
        """
        for _ in range(_MAX_ASIDE):
            try:
                return super().recv_into(buffer, nbytes, flags)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
            if not self._take_record():
                return 0
        raise TlsError("too many TLS records in a row that hold no data")

    def close(self) -> None:
        """Close it, and forget the secrets."""
        if self._rekeying is not None:
            self._rekeying.wipe()
        super().close()

    def _take_record(self) -> bool:
        """Deal with the record that recv stops at; False if it ends the stream."""
        record = kernel.receive_record(self, _MAX_PLAINTEXT)
        if record is None:
            return False
        content_type, content = record
        if content_type == ContentType.ALERT:
            return self._on_alert(content)
        if content_type != ContentType.HANDSHAKE:
            raise TlsError(f"a TLS record of type {content_type}")
        for message, body in self._messages.feed(content):
            if message == HandshakeType.KEY_UPDATE and self.version == "TLSv1.3":
                self._on_key_update(body)
            # Nothing is resumed here; and a client may ignore a wish to renegotiate (RFC 5246, section 7.4.1.1).
            elif message not in (HandshakeType.NEW_SESSION_TICKET, HandshakeType.HELLO_REQUEST):
                raise TlsError(f"a TLS handshake message of type {message}")
        return True

    def _on_alert(self, content: bytes) -> bool:
        level, name = records.alert(content)
        if name == "close_notify":
            return False
        # TLS 1.3 has no warnings but these two; whatever the level says, all others are fatal (RFC 8446, section 6).
        if name == "user_canceled" or (level == _WARNING and self.version != "TLSv1.3"):
            _LOG.warning("tls alert: name=%s level=warning", name)
            return True
        raise AlertError(name)

    def _on_key_update(self, body: bytes) -> None:
        if self._rekeying is None:
            raise RekeyError("new keys (KeyUpdate), which this kernel can't follow")
        try:
            self._rekeying.advance(self, kernel.RX)
            if body == bytes([_REQUESTED]):
                kernel.send_record(self, ContentType.HANDSHAKE, bytes([HandshakeType.KEY_UPDATE, 0, 0, 1, 0]))
                self._rekeying.advance(self, kernel.TX)
        except OSError as error:
            raise RekeyError(f"new keys (KeyUpdate), which the kernel didn't take ({error.strerror})") from None
        _LOG.info("tls: both sides have new keys" if body == bytes([_REQUESTED]) else "tls: the provider has new keys")


class UserSocket(TlsSocket):
    """TLS by OpenSSL in this process.

    Records are received many at a time, and OpenSSL reads them from memory: an SSLSocket would have it ask the kernel
    twice for each. So it may hold bytes that no poll shows: read until BlockingIOError.
    """

    by = "user"

    def __init__(
        self, sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        """Take over a socket after the handshake of `tls`, which reads from `incoming` and writes to `outgoing`."""
        cipher = tls.cipher()
        super().__init__(sock, tls.version() or "", cipher[0] if cipher else "")
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._records = bytearray(_RECEIVED_AT_ONCE)
        self._unsent = bytearray()
        self._taken = 0
        """Bytes of data in `_unsent` that `send` hasn't owned up to."""
        self._ended = False
        self._error: TlsError | None = None

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive what there is of decrypted bytes, many records at a time; 0 at the end of the stream.

        `flags` must be 0. TlsError where the stream is broken, or the peer gives up.
        """
        assert not flags
        with memoryview(buffer) as whole, whole[: nbytes or len(whole)] as wanted:
            while not (count := self._decrypt(wanted)):
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return 0
                if received := super().recv_into(self._records):
                    with memoryview(self._records) as taken:
                        self._incoming.write(taken[:received])
                else:
                    self._incoming.write_eof()
            return count

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """Encrypt and send; BlockingIOError where the socket takes less than was encrypted.

        The next call then must begin with the same bytes: it sends the rest and tells their number.
        """
        assert not flags
        if not self._taken:
            with memoryview(data) as view, view[:_MAX_PLAINTEXT] as chunk:
                self._taken = self._tls.write(chunk)
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def _decrypt(self, wanted: memoryview) -> int:
        """Fill the buffer from what was received; note what it ends with."""
        filled = 0
        try:
            while filled < len(wanted) and not self._ended:
                with wanted[filled:] as space:
                    count = cast(int, self._tls.read(len(space), space))
                filled += count
                self._ended = not count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            self._ended = True
        except ssl.SSLError as error:
            self._ended, self._error = True, translate(error)
        if self._outgoing.pending:  # an answer to a KeyUpdate, or an alert
            with contextlib.suppress(OSError):
                self._flush()
        return filled

    def _flush(self) -> None:
        self._unsent += self._outgoing.read()
        while self._unsent:
            del self._unsent[: super().send(self._unsent)]
