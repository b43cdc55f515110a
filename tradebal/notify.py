"""Tells systemd how a unit does: ready, alive, stopping (sd_notify(3)); nothing where systemd didn't start it."""

from __future__ import annotations

import os
import time

import sdnotify


class Notifier:
    """One process's line to systemd."""

    def __init__(self) -> None:
        # SystemdNotifier without NOTIFY_SOCKET would leave an unused socket behind.
        self._notifier = sdnotify.SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        self.interval = self._watchdog_interval() if self._notifier else None
        """Seconds between two signs of life that the watchdog asks for; None: it asks for none."""
        self._next = 0.0

    def ready(self) -> None:
        """Say that the unit does what it is for."""
        self._send("READY=1")

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
