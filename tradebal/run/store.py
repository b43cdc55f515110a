"""Keeps a unit's descriptors over its restarts, as systemd's file descriptor store does (FileDescriptorStoreMax=).

The unit sends them with sd_notify's protocol (FDSTORE=1, FDNAME=…; sd_pid_notify_with_fds(3)) and gets them back as
sd_listen_fds_with_names(3) describes, so that it needs no code of its own for a supervisor that isn't systemd.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from tradebal.stream import pipes

_log = logging.getLogger(__name__)

CAPACITY = 8192
"""Descriptors that are kept at most, as in tradebal-balancer.service."""

_MESSAGE = 4096
"""Bytes of a notification that are read; sd_notify(3) sends less."""

_NAME = re.compile(r"[!-9;-~]{1,255}")
"""A descriptor's name: printable, without a colon, which separates names in LISTEN_FDNAMES (systemd.exec(5))."""


class Store:
    """One unit's descriptors, by name, and the socket that they come by."""

    def __init__(self) -> None:
        """Make the socket, in a directory that only this user can enter."""
        self._directory = Path(tempfile.mkdtemp(prefix="tradebal-notify-"))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        path = self._directory / "notify"
        self._socket.bind(str(path))
        self.env = {"NOTIFY_SOCKET": str(path), "FDSTORE": str(CAPACITY)}
        """What the unit finds the store by."""
        self.kept: dict[str, int] = {}
        """Descriptors by name, as they were sent."""

    def fileno(self) -> int:
        """Descriptor that is readable when `receive` has something to do."""
        return self._socket.fileno()

    def receive(self) -> None:
        """Take in all that the unit has sent so far."""
        while True:
            try:
                data, descriptors, flags, _ = socket.recv_fds(self._socket, _MESSAGE, 16)
            except BlockingIOError:
                return
            if flags & socket.MSG_CTRUNC:
                _log.warning("store: a descriptor was not kept: too many open files in this process")
            fields = dict(line.partition("=")[::2] for line in data.decode("utf-8", "replace").splitlines())
            name = fields.get("FDNAME", "")
            if fields.get("FDSTORE") == "1" and len(descriptors) == 1 and self._has_room_for(name):
                self._forget(name)
                self.kept[name] = descriptors.pop()
            elif fields.get("FDSTOREREMOVE") == "1":
                self._forget(name)
            for fd in descriptors:
                os.close(fd)

    def unread(self) -> int:
        """Return the bytes in kept pipes and files that nobody has taken."""
        left = 0
        for name, fd in self.kept.items():
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                left += pipes.unread(fd)
            elif name.startswith("overflow-"):
                left += os.fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR)
        return left

    def close(self) -> None:
        """Give up everything; a named FIFO that nobody else would remove goes from its directory as well."""
        for name, fd in list(self.kept.items()):
            _unlink(fd)
            self._forget(name)
        self._socket.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _has_room_for(self, name: str) -> bool:
        if _NAME.fullmatch(name) and len(self.kept) < CAPACITY:
            return True
        _log.warning("store: a descriptor was not kept: name=%r kept=%d", name[:64], len(self.kept))
        return False

    def _forget(self, name: str) -> None:
        if name in self.kept:
            os.close(self.kept.pop(name))


def _unlink(fd: int) -> None:
    ours = os.fstat(fd)
    if not stat.S_ISFIFO(ours.st_mode):
        return
    with contextlib.suppress(OSError):
        path = Path(f"/proc/self/fd/{fd}").readlink()
        there = path.lstat()
        if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            path.unlink()
