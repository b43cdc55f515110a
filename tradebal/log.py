"""Log lines that fit where they go: a terminal, a file, or systemd's journal."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_COLOURS = ((logging.ERROR, "\x1b[31m"), (logging.WARNING, "\x1b[33m"))
_RESET = "\x1b[0m"


def setup(unit: str, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send this process's log to stderr (or `stream`); `unit`, such as "balancer" or "worker-0", names its lines.

    Where the stream is the journal's (sd_daemon(3), JOURNAL_STREAM), each line begins with its priority as `<N>`,
    and time and unit are left to the journal.
    """
    stream = stream or sys.stderr
    handler = _Handler(stream)
    if is_journal(stream):
        handler.setFormatter(_JournalFormatter())
    else:
        handler.setFormatter(_PlainFormatter(unit, colours=wants_colour(stream)))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def is_journal(stream: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream leads to the journal: JOURNAL_STREAM names its device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return env.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def wants_colour(stream: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour what is written there: a terminal, and no NO_COLOR (https://no-color.org)."""
    return not env.get("NO_COLOR") and env.get("TERM") != "dumb" and stream.isatty()


class Limited:
    """A log that lets at most `per_second` lines through each second, and then says how many it left out.

    Give each kind of line that a peer can provoke its own instance. Call `flush` now and then (a unit's tick), so that
    the count comes out also when the flood has stopped.
    """

    def __init__(
        self, log: logging.Logger, per_second: int = 10, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._allowed = per_second
        self._clock = clock
        self._window = float("-inf")
        self._passed = 0
        self._left_out = 0
        self._left_out_level = logging.NOTSET

    def log(self, level: int, message: str, *args: object) -> None:
        """Log as `logging.Logger.log` does, or count."""
        self.flush()
        if self._passed >= self._allowed:
            self._left_out += 1
            self._left_out_level = max(self._left_out_level, level)
            return
        self._passed += 1
        self._log.log(level, message, *args)

    def info(self, message: str, *args: object) -> None:
        """Log at level INFO, or count."""
        self.log(logging.INFO, message, *args)

    def warning(self, message: str, *args: object) -> None:
        """Log at level WARNING, or count."""
        self.log(logging.WARNING, message, *args)

    def error(self, message: str, *args: object) -> None:
        """Log at level ERROR, or count."""
        self.log(logging.ERROR, message, *args)

    def flush(self) -> None:
        """If a second is over, begin a new one, and say how many lines the old one left out."""
        now = self._clock()
        if now - self._window < 1.0:
            return
        self._window, self._passed = now, 0
        if self._left_out:
            count, level = self._left_out, self._left_out_level
            self._left_out, self._left_out_level = 0, logging.NOTSET
            self._log.log(level, "similar lines left out: count=%d", count)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        """Let a line go that stderr doesn't take: a reader of the log that went away must not stop the data."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            # Nobody will ever read it again; and what stays in Python's buffer would spoil the exit status.
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


class _JournalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines() or [""])


class _PlainFormatter(logging.Formatter):
    default_msec_format = "%s.%03d"

    def __init__(self, unit: str, *, colours: bool) -> None:
        super().__init__(f"%(asctime)s tradebal-{unit} %(levelname)s %(message)s")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = next((code for level, code in _COLOURS if record.levelno >= level), "") if self._colours else ""
        return f"{colour}{text}{_RESET}" if colour else text
