"""The handler that keeps a shard's trades: compressed NDJSON, one file a day, each line with its time of receipt."""

from __future__ import annotations

import gzip
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date as date_
from datetime import datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from zoneinfo import ZoneInfo

from prometheus_client import Counter

from tradebal.errors import UserError
from tradebal.handlers.base import Context, Handler
from tradebal.stream.batch import Batch
from tradebal.stream.gap import Gap

_FLUSH_SIZE = 4 << 20
"""Bytes of lines, uncompressed, that are kept in memory at most before they are written."""


@dataclass(frozen=True)
class _Format:
    """A compression whose pieces can stand one behind the other in a file."""

    suffix: str
    compress: Callable[[bytes], bytes]
    """Makes a piece that can be read by itself."""
    mark: bytes
    """What stands behind each whole piece, and adds nothing when the file is read: so the end of the last whole piece
    can be found without reading the file."""


class Record(Handler):
    """Writes `<directory>/<date>/shard-<N>.ndjson.zst` (or `.gz`, or uncompressed).

    A line is `{"received_ns":…,"trade":…}`: when the worker read the trade (CLOCK_REALTIME, nanoseconds), and the
    trade's own text, untouched. Where trades are missing stands `{"received_ns":…,"gap":…}`. `zstdcat` or `zcat`,
    and `jq`, read the files.

    Written at most a second after receipt, each time as a piece that can be read by itself. So a file can be read
    while it grows; a crash costs what came since the last piece; and a restart on the same day goes on behind the
    last whole piece.
    """

    def __init__(
        self,
        context: Context,
        *,
        directory: str,
        compression: str = "zstd",
        level: int | None = None,
        timezone: str = "America/New_York",
    ) -> None:
        """Prepare to write.

        `directory`: where to; an absolute path. `compression`: "zstd" (needs the extra `tradebal[record]`), "gzip" or
        "none". `level`: the compression's own (default: zstd 3, gzip 1). `timezone`: whose midnight begins a new file.
        """
        super().__init__(context)
        if not isinstance(directory, str) or not Path(directory).is_absolute():
            raise ValueError(f"directory = {directory!r}: must be an absolute path")
        self._directory = Path(directory)
        self._format = _format(compression, level)
        try:
            self._zone = ZoneInfo(timezone)
        except (ValueError, OSError, LookupError, TypeError, AttributeError):
            raise ValueError(
                f"timezone = {timezone!r}: this system doesn't know it; such as America/New_York (package tzdata)"
            ) from None
        self._lines: list[bytes] = []
        self._size = 0
        self._count = 0
        self._fd = -1
        self._day = (0, 0)  # when the open file's day begins and ends, CLOCK_REALTIME in nanoseconds
        self._written = Counter(
            "tradebal_record_written_bytes",
            "Bytes written to this shard's recordings, compressed.",
            registry=context.registry,
        )
        self._lost = Counter(
            "tradebal_record_lost_lines",
            "Lines (trades and gaps) that are missing in this shard's recordings, as they could not be written.",
            registry=context.registry,
        )
        try:
            self._turn_to(time.time_ns())
        except OSError as error:
            raise UserError(
                f"recordings can't be written: {error.filename or directory}: {error.strerror}",
                hint="let the worker's user write there, or set another directory in [worker.options]",
            ) from None

    def on_trades(self, batch: Batch) -> None:
        """Take the batch; it is written at the next tick, or once enough has come together."""
        prefix = b'{"received_ns":%d,"trade":' % batch.received_ns
        lines = batch.lines()
        self._take(batch.received_ns, prefix + (b"}\n" + prefix).join(lines) + b"}\n", len(lines))

    def on_gap(self, gap: Gap) -> None:
        """Write a line about it."""
        now_ns = time.time_ns()
        self._take(now_ns, b'{"received_ns":%d,"gap":%s}\n' % (now_ns, gap.to_record()), 1)

    def on_tick(self, now: float) -> None:  # noqa: ARG002 - the lines have their times
        """Write what has come since the last tick."""
        self._flush()

    def close(self) -> None:
        """Write the rest."""
        try:
            self._flush()
        finally:
            self._leave()

    def _take(self, time_ns: int, text: bytes, count: int) -> None:
        try:
            self._turn_to(time_ns)
        except OSError:
            self._lost.inc(count)
            raise
        self._lines.append(text)
        self._size += len(text)
        self._count += count
        if self._size >= _FLUSH_SIZE:
            self._flush()

    def _flush(self) -> None:
        """Write the lines that are in memory; OSError, after they were counted as lost, if that fails."""
        if not self._lines:
            return
        count = self._count
        piece = self._format.compress(b"".join(self._lines)) + self._format.mark
        self._lines, self._size, self._count = [], 0, 0
        whole = os.fstat(self._fd).st_size
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, whole)
            self._lost.inc(count)
            raise
        self._written.inc(len(piece))

    def _turn_to(self, time_ns: int) -> None:
        """See to it that the file of that time's day is open."""
        if self._day[0] <= time_ns < self._day[1]:
            return
        try:
            self._flush()
        finally:
            self._leave()
        date = datetime.fromtimestamp(time_ns // 1_000_000_000, self._zone).date()
        path = self._directory / date.isoformat() / f"shard-{self.context.shard}.ndjson{self._format.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open(path)
        self._day = self._midnight(date), self._midnight(date + timedelta(days=1))
        self.context.log.info("recording: shard=%d file=%s", self.context.shard, path)

    def _midnight(self, date: date_) -> int:
        return int(datetime.combine(date, time_of_day(), self._zone).timestamp()) * 1_000_000_000

    def _leave(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._day = (0, 0)

    def _open(self, path: Path) -> int:
        """Open the file to go on behind its last whole piece."""
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        size = os.fstat(fd).st_size
        if size == 0:
            return fd
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as content:
            found = content.rfind(self._format.mark)
        if found >= 0:
            whole = found + len(self._format.mark)
            if whole < size:
                os.ftruncate(fd, whole)
                self.context.log.warning("torn end cut off: file=%s bytes=%d", path, size - whole)
            return fd
        os.close(fd)
        aside = path.with_name(f"{path.name}.torn-{time.time_ns()}")
        path.rename(aside)
        self.context.log.warning("file without a whole piece set aside: file=%s as=%s", path, aside)
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)


def _format(compression: str, level: int | None) -> _Format:
    """Return the format of that name; ValueError or UserError if it or the level can't be used."""
    highest = {"zstd": 22, "gzip": 9, "none": 0}.get(compression)
    if highest is None:
        raise ValueError(f'compression = {compression!r}: must be "zstd", "gzip" or "none"')
    if level is not None and (type(level) is not int or not 1 <= level <= highest):
        allowed = f"must be 1 to {highest}" if highest else "without compression there is none"
        raise ValueError(f"level = {level!r}: {allowed}")
    if compression == "none":
        return _Format("", lambda lines: lines[:-1], b"\n")
    if compression == "gzip":
        used = level or 1
        # An empty member (RFC 1952), spelled out, since Pythons differ in the header that they write.
        empty = bytes.fromhex("1f8b08000000000000ff 0300 00000000 00000000")
        return _Format(".gz", lambda data: gzip.compress(data, used, mtime=0), empty)
    try:
        import zstandard
    except ModuleNotFoundError:
        raise UserError(
            "Record: compression zstd needs the Python package zstandard, which isn't installed",
            hint="pip install 'tradebal[record]', or set compression = \"gzip\" in [worker.options]",
        ) from None
    # An empty frame (RFC 8878): magic number, descriptor for a single segment of 0 bytes, last raw block of 0 bytes.
    return _Format(".zst", zstandard.ZstdCompressor(level=level or 3).compress, bytes.fromhex("28b52ffd 20 00 010000"))
