"""Writes to a descriptor that may stand still (a paused terminal, a pipe that nobody reads) without ever waiting."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat


class Output:
    """A way to what a descriptor such as stderr leads to. The descriptor itself stays in its mode: others share it.

    A pipe or terminal is opened again, without waiting; a socket is told so with each write. Where neither can be done,
    and for files, which never say that they are full, poll is asked before each write.
    """

    def __init__(self, fd: int) -> None:
        self._shared = fd
        self._own = -1
        self._socket: socket.socket | None = None
        self._polls = False
        with contextlib.suppress(OSError):
            mode = os.fstat(fd).st_mode
            if stat.S_ISSOCK(mode):
                self._socket = socket.socket(fileno=os.dup(fd))
            elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
                self._polls = True  # unless it can be opened again
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
                self._own = os.open(f"/proc/self/fd/{fd}", flags)

    def write(self, data: bytes) -> int:
        """Write what there is room for; returns how many bytes, 0 for none. OSError where nobody reads any more.

        Up to PIPE_BUF (4096) bytes go into a pipe whole or not at all (pipe(7)).
        """
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            if self._own >= 0:
                return os.write(self._own, data)
            if self._polls:
                data = data[: select.PIPE_BUF]  # for so many there is room in a pipe that polls as writable
                if not select.select([], [self._shared], [], 0)[1]:
                    return 0
            return os.write(self._shared, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Give back what was opened; the shared descriptor stays open."""
        if self._socket is not None:
            self._socket.close()
        if self._own >= 0:
            os.close(self._own)
        self._socket, self._own, self._polls = None, -1, True
