"""Gets a handshake's secrets out of OpenSSL, by its key log: in memory, in no file system."""

from __future__ import annotations

import binascii
import os
import ssl
from types import TracebackType
from typing import NamedTuple

from tradebal.tls.memory import own, wipe


class Secret(NamedTuple):
    """A line of a key log."""

    client_random: bytes
    secret: bytearray


class KeyLog:
    """Has a context log its handshake's secrets into anonymous memory, which is overwritten at the end of the block."""

    def __init__(self, context: ssl.SSLContext) -> None:
        """Take a context that serves one handshake only."""
        self._context = context

    def __enter__(self) -> KeyLog:
        self._fd = os.memfd_create("tls-secrets", os.MFD_CLOEXEC)
        self._context.keylog_filename = f"/proc/self/fd/{self._fd}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.keylog_filename = None  # type: ignore[assignment]
        os.pwrite(self._fd, bytes(os.fstat(self._fd).st_size), 0)
        os.close(self._fd)

    def secrets(self) -> dict[str, Secret]:
        """Return what was logged, by label; the caller wipes it."""
        log = bytearray(os.fstat(self._fd).st_size)
        os.preadv(self._fd, [log], 0)
        try:
            return parse(log)
        finally:
            wipe(log)


def parse(log: bytearray) -> dict[str, Secret]:
    """Return the secrets of one handshake by their labels (RFC 9850: the SSLKEYLOGFILE format)."""
    secrets = {}
    with memoryview(log) as view:
        start = 0
        while (end := log.find(b"\n", start)) >= 0:
            first, second = log.find(b" ", start, end), log.rfind(b" ", start, end)
            if log[start] != ord("#") and start < first < second:
                client_random = binascii.unhexlify(view[first + 1 : second])
                secret = own(binascii.unhexlify(view[second + 1 : end]))
                secrets[log[start:first].decode()] = Secret(client_random, secret)
            start = end + 1
    return secrets
