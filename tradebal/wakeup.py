"""Ends a wait in poll from a signal handler or another thread."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from types import FrameType


class Wakeup:
    """A descriptor for a caller's poll that is readable from `wake`, or a signal, until `take`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor to poll; -1 once closed."""
        return self._reader

    def wake(self) -> None:
        """Make it readable; from any thread or signal handler, also after `close`, and without waiting."""
        with contextlib.suppress(OSError):  # full: readable already; closed: nobody polls it any more
            os.write(self._writer, b"\0")

    def take(self) -> bytes:
        """Make it unreadable; returns the numbers of the signals since the last call (0: `wake`), oldest first."""
        try:
            return os.read(self._reader, 4096)
        except BlockingIOError:
            return b""

    @contextlib.contextmanager
    def signals(self, handlers: Mapping[int, Callable[[int, FrameType | None], object]]) -> Iterator[None]:
        """Handle these signals, each of which wakes too; before and after, they do what they did. Main thread only.

        Without that, Python would restart a poll that a signal interrupted (PEP 475).
        """
        old_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in (self._reader, self._writer):
            if fd >= 0:
                os.close(fd)
        self._reader = self._writer = -1
