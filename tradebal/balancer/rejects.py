"""Keeps what could not be routed where someone can look at it, without letting it fill the disk or the log."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path

import orjson

from tradebal.router.interface import Event
from tradebal.systemd import events
from tradebal.systemd.log import Limited

_log = logging.getLogger(__name__)

_FILE_LIMIT = 16 << 20
"""Bytes in rejects.ndjson before it becomes rejects.ndjson.1, so that both together stay below twice this."""
_DATA_LIMIT = 64 << 10
"""Bytes of one reject that are kept."""
_SHOWN = 120
"""Bytes of one reject in its log line."""


class Rejects:
    """Appends each rejected piece to `rejects.ndjson`: when, why, how long, and its first 64 KiB."""

    def __init__(self, directory: Path) -> None:
        """Write below `directory`, which exists."""
        self.path = directory / "rejects.ndjson"
        self._limited = Limited(_log, per_second=5)
        self._failed = False
        self._fd: int | None = None
        self._size = 0
        self._torn = False

    def add(self, event: Event) -> None:
        """Keep and log one REJECT event; a disk that refuses is logged once and stops nothing."""
        shown = event.data[:_SHOWN].decode("utf-8", "backslashreplace")
        more = "…" if len(event.data) > _SHOWN else ""
        self._limited.warning(
            "reject: reason=%r bytes=%d first=%r%s",
            event.reason,
            len(event.data),
            shown,
            more,
            extra=events.REJECTED(REASON=event.reason),
        )
        record = {
            "time_ns": time.time_ns(),
            "reason": event.reason,
            "bytes": len(event.data),
            "data": event.data[:_DATA_LIMIT].decode("utf-8", "backslashreplace"),
        }
        try:
            self._append(orjson.dumps(record) + b"\n")
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.error("rejects: %s can't be written: %s; rejects are still counted", self.path, error.strerror)

    def _append(self, line: bytes) -> None:
        if self._fd is not None and self._size + len(line) > _FILE_LIMIT:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self.close()
        if self._fd is not None and not os.fstat(self._fd).st_nlink:
            _log.warning("rejects: %s was deleted; a new one is begun", self.path)
            self.close()
        if self._fd is None:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._size = os.fstat(self._fd).st_size
        if self._torn:
            line = b"\n" + line  # a full disk took only the beginning of an earlier one
        written = os.write(self._fd, line)
        self._size += written
        self._torn = written < len(line) if written else self._torn
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file; a later reject opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
