"""Log lines that fit where they go: a terminal, a file, or systemd's journal."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from tradebal import text
from tradebal.systemd import journal
from tradebal.systemd.journal import Journal
from tradebal.systemd.output import Output

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_COLOURS = ((logging.ERROR, "\x1b[31m"), (logging.WARNING, "\x1b[33m"))
IDENTIFIER = "tradebal"
"""What `journalctl -t` finds all units' lines by."""

_RESET = "\x1b[0m"


def level_of(name: str) -> int:
    """Return logging's number of a level as the configuration names it, such as "info"."""
    return logging.getLevelNamesMapping()[name.upper()]


def setup(unit: str, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send this process's log to stderr (or `stream`); `unit`, such as "balancer" or "worker-0", names its lines.

    Where the stream is the journal's (sd_daemon(3), JOURNAL_STREAM), lines go to the journal itself, with priority and
    the fields of tradebal.systemd.events; or, if its socket can't be reached, to the stream, each line behind its
    priority as `<N>`. Time and unit are left to the journal.
    """
    stream = stream or sys.stderr
    handler: logging.Handler = _handler(stream)
    if not is_journal(stream):
        handler.setFormatter(_PlainFormatter(unit, colours=wants_colour(stream)))
    elif (own := open_journal(stream)) is not None:
        handler = _JournalHandler(own)
    else:
        handler.setFormatter(_JournalFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        if isinstance(old, _JournalHandler | _Handler):
            old.close()
    root.addHandler(handler)
    root.setLevel(level)


def is_journal(stream: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream leads to the journal: JOURNAL_STREAM names its device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return env.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def open_journal(stream: TextIO) -> Journal | None:
    """Return a way to the journal, if that is where the stream leads and it can be reached."""
    if not is_journal(stream):
        return None
    try:
        return Journal(journal.SOCKET)
    except OSError:
        return None


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

    def log(self, level: int, message: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log as `logging.Logger.log` does, or count."""
        self.flush()
        if self._passed >= self._allowed:
            self._left_out += 1
            self._left_out_level = max(self._left_out_level, level)
            return
        self._passed += 1
        self._log.log(level, message, *args, extra=extra)

    def info(self, message: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log at level INFO, or count."""
        self.log(logging.INFO, message, *args, extra=extra)

    def warning(self, message: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log at level WARNING, or count."""
        self.log(logging.WARNING, message, *args, extra=extra)

    def error(self, message: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log at level ERROR, or count."""
        self.log(logging.ERROR, message, *args, extra=extra)

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


def _handler(stream: TextIO) -> logging.Handler:
    try:
        return _Handler(stream.fileno())
    except (OSError, ValueError):  # no descriptor behind it: it is memory, and never full
        return logging.StreamHandler(stream)


class _Handler(logging.Handler):
    """Writes lines to a descriptor and never waits: lines that it doesn't take are counted, and logged as a number."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._output = Output(fd)
        self._rest = b""
        """Of a line that was taken in part."""
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if not self._finish() or (self._left_out and not self._tell()):
                self._left_out += 1
                return
            self._put(text)
        except BrokenPipeError:
            # Nobody will ever read it again; and what Python itself writes there at exit would spoil the exit status.
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, self._fd)
            os.close(nowhere)
            self._output.close()
            self._output = Output(self._fd)
            self._rest, self._left_out = b"", 0
        except OSError:  # a full disk: the data goes on
            self._left_out += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._output.close()
        super().close()

    def _finish(self) -> bool:
        """Write the rest of an earlier line; whether all of it was taken."""
        while self._rest and (taken := self._output.write(self._rest)):
            self._rest = self._rest[taken:]
        return not self._rest

    def _put(self, text: str) -> bool:
        data = text.encode(errors="backslashreplace") + b"\n"
        if not (taken := self._output.write(data)):
            self._left_out += 1
            return False
        self._rest = data[taken:]
        return self._finish()

    def _tell(self) -> bool:
        """Log how many lines were left out; whether that was taken."""
        count = self._left_out
        text = f"lines left out while nothing read the log: count={count}"
        record = logging.LogRecord("tradebal", logging.WARNING, __file__, 0, text, None, None)
        if not self._put(self.format(record)):
            self._left_out = count
            return False
        self._left_out = 0
        return True


class _JournalHandler(logging.Handler):
    def __init__(self, own: Journal) -> None:
        super().__init__()
        self._journal = own
        self.setFormatter(_Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            "MESSAGE": self.format(record),
            "PRIORITY": _priority(record.levelno),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName,
        }
        if self._journal.send(fields | getattr(record, "journal", {})) and (count := self._journal.left_out):
            self._journal.left_out = 0
            fields["MESSAGE"] = f"lines left out while the journal was busy: count={count}"
            self._journal.send(fields)

    def close(self) -> None:
        self._journal.close()
        super().close()


class _Formatter(logging.Formatter):
    """Escapes what would not be shown as text: a message holds what a peer sent, and stays on its line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = text.printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(text.printable, super().formatException(ei).split("\n")))


class _JournalFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = _priority(record.levelno)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines() or [""])


def _priority(level: int) -> int:
    return next((number for least, number in _PRIORITIES if level >= least), 7)


class _PlainFormatter(_Formatter):
    default_msec_format = "%s.%03d"

    def __init__(self, unit: str, *, colours: bool) -> None:
        super().__init__(f"%(asctime)s tradebal-{unit} %(levelname)s %(message)s")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = next((code for level, code in _COLOURS if record.levelno >= level), "") if self._colours else ""
        return f"{colour}{text}{_RESET}" if colour else text
