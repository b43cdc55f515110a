"""Tells systemd how a unit does: ready, alive, stopping (sd_notify(3)); nothing where systemd didn't start it."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import sdnotify

_FIRST_FD = 3
"""SD_LISTEN_FDS_START (sd_listen_fds(3))."""


class Notifier:
    """One process's line to systemd."""

    def __init__(self) -> None:
        # SystemdNotifier without NOTIFY_SOCKET would leave an unused socket behind.
        self._notifier = sdnotify.SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        self.interval = self._watchdog_interval() if self._notifier else None
        """Seconds between two signs of life that the watchdog asks for; None: it asks for none."""
        self.keeps = self._notifier is not None and os.environ.get("FDSTORE", "0") != "0"
        """Whether `park` reaches anyone. FDSTORE is the size of the unit's store (systemd.exec(5)); systemd before 254
        doesn't set it, so our unit does."""
        self._next = 0.0

    def ready(self) -> None:
        """Say that the unit does what it is for."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the unit ends, by its own will or on request."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Give the watchdog its sign of life, if one is due; cheap to call often."""
        if self.interval is not None and (now := time.monotonic()) >= self._next:
            self._next = now + self.interval
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Set the one line that `systemctl status` shows."""
        self._send(f"STATUS={text}")

    def park(self, name: str, fd: int) -> None:
        """Have systemd keep a copy of the descriptor, which `inherited` gives to the unit's next process.

        `name` is printable, has no colon, and is no other descriptor's. Not polled: its hangup doesn't end the copy.
        """
        if self._notifier is not None and self._notifier.socket is not None:
            state = f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}".encode()
            with contextlib.suppress(OSError):
                socket.send_fds(self._notifier.socket, [state], [fd])

    def forget(self, name: str) -> None:
        """Have systemd close its copy of the descriptor of that name."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def close(self) -> None:
        """Close the socket."""
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()

    def _send(self, state: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(state)

    @staticmethod
    def _watchdog_interval() -> float | None:
        """Half of WATCHDOG_USEC, if that is meant for this process (sd_watchdog_enabled(3))."""
        try:
            if int(os.environ.get("WATCHDOG_PID", os.getpid())) != os.getpid():
                return None
            microseconds = int(os.environ["WATCHDOG_USEC"])
        except (KeyError, ValueError):
            return None
        return microseconds / 2e6 if microseconds > 0 else None


def inherited() -> dict[str, int]:
    """Take the descriptors that systemd passed to this process, by name (sd_listen_fds_with_names(3)).

    Only once: then they are the caller's, and no child of this process gets them.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    descriptors = dict(zip(names, range(_FIRST_FD, _FIRST_FD + int(os.environ.get("LISTEN_FDS", "0"))), strict=False))
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    for fd in descriptors.values():
        os.set_inheritable(fd, False)
    return descriptors
