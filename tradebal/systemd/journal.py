"""Writes to systemd's journal by its native protocol, which a stream of lines can't replace: it carries fields."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"


class Journal:
    """One process's way to the journal. Nothing here waits: lines that the journal has no room for are counted."""

    def __init__(self, path: str = SOCKET) -> None:
        """Connect; OSError where there is no journal."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.left_out = 0
        """Entries that found no room so far."""

    def send(self, fields: Mapping[str, object]) -> bool:
        """Write an entry; False if it was left out. Names of fields are upper case (systemd.journal-fields(7))."""
        try:
            self._socket.send(b"".join(_field(name, str(value).encode()) for name, value in fields.items()))
        except OSError:
            self.left_out += 1
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _field(name: str, value: bytes) -> bytes:
    """Return a field as systemd's documentation has it (Native Journal Protocol): with a length if it has a newline."""
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
