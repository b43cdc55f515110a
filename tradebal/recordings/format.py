"""The file format that keeps a feed's messages, byte for byte and with their times, so that a day can be played again.

One header line, then one record a message (docs/recordings.md has the format in full):

    {"tradebal-recording":1,"profile":"massive","url":"wss://…","started":"2026-01-05T14:29:58.120Z",…}
    1767623400000123456 text 107 [{"ev":"T","sym":"MSFT",…}]

The length makes any payload exact; the text makes it something to grep; having no index makes it something to append
to, and to read up to the last whole record after a crash.
"""

from __future__ import annotations

import enum
import json
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit

from tradebal.errors import UserError
from tradebal.router.interface import Rule

VERSION = 1

MAX_PAYLOAD = 1 << 30
"""Longest payload of a record in bytes, which is the most that feed.max_message can allow; a length beyond it is taken
for damage before anything is read for it."""

DEFAULT_MAX_PAYLOAD = 64 << 20
"""Longest payload, in bytes, that a replay reads unless it is asked to read longer ones: feed.max_message's default."""

MAX_HEADER = 64 << 10
"""Longest header line in bytes."""

FLUSH_INTERVAL = 0.5
"""Seconds for which a written record may wait in the process's own buffers."""

_MAGIC = b'{"tradebal-recording":'
_HEAD = re.compile(rb"(\d{1,19}) ([a-z-]{1,16}) (\d{1,10}) ")
_HEAD_BEGUN = re.compile(rb"\d{0,19}|\d{1,19} [a-z-]{0,16}|\d{1,19} [a-z-]{1,16} \d{0,10}")
_HEAD_LONGEST = 19 + 1 + 16 + 1 + 10 + 1
_READ_SIZE = 64 << 10
_BITE = 512
"""Compressed bytes given to a decompressor at once. A zstd block of 128 KiB can be compressed to 4 bytes, so a bite
decompresses to 16 MiB at most."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


class RecordingError(UserError):
    """A recording that can't be read or written; the message names the file and, for damage, the byte."""


class Kind(enum.Enum):
    """What a record holds."""

    TEXT = "text"
    BINARY = "binary"
    LOGIN_TEXT = "login-text"
    """A message that belongs to the connection, not to the market: the login exchange, or what announces the end. A
    replay leaves it out, as it plays its own."""
    LOGIN_BINARY = "login-binary"
    NOTE = "note"
    """Not a message: a JSON object by the recorder about the connection, such as a gap."""


_KINDS = {kind.value.encode(): kind for kind in Kind}


class Record(NamedTuple):
    """One message, or note, and when it came."""

    time_ns: int
    """Nanoseconds since the epoch (CLOCK_REALTIME)."""
    kind: Kind
    data: bytes


@dataclass(frozen=True)
class Header:
    """Where a recording comes from. `rule` lets a replay count trades even if the profile is a custom one."""

    profile: str
    url: str
    """Without user, password, query and fragment: any of them may hold a key."""
    started: str
    """RFC 3339, UTC."""
    subscribe: tuple[str, ...] = ()
    rule: Rule | None = None

    def to_line(self) -> bytes:
        """Return the header line with its newline."""
        fields: dict[str, Any] = {
            "tradebal-recording": VERSION,
            "profile": self.profile,
            "url": public_url(self.url),
            "started": self.started,
            "subscribe": list(self.subscribe),
        }
        if self.rule is not None:
            fields["trades"] = {
                "key": self.rule.marker_key.decode(),
                "values": [value.decode() for value in self.rule.marker_values],
                "symbol": self.rule.symbol_key.decode(),
                "in": None if self.rule.container is None else self.rule.container.decode(),
            }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Header:
        """Read a header line; ValueError says what is wrong with it."""
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError("its first line is not a JSON object") from None
        version = fields.get("tradebal-recording")
        if not isinstance(version, int) or version < 1:
            raise ValueError(f"its first line gives the format's version as {version!r}")
        if version > VERSION:
            raise ValueError(f"it has version {version} of the format; this tradebal reads up to {VERSION}")
        try:
            trades = fields.get("trades")
            rule = None
            if trades is not None:
                rule = Rule(
                    trades["key"].encode(),
                    tuple(value.encode() for value in trades["values"]),
                    trades["symbol"].encode(),
                    None if trades["in"] is None else trades["in"].encode(),
                )
            texts = [fields[key] for key in ("profile", "url", "started")] + list(fields.get("subscribe", ()))
            if not all(isinstance(text, str) for text in texts):
                raise TypeError
        except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
            raise ValueError("its first line lacks a field or has one of a wrong type") from None
        return cls(texts[0], texts[1], texts[2], tuple(texts[3:]), rule)


def public_url(url: str) -> str:
    """Return the URL without the parts in which providers take keys."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def utc_now() -> str:
    """Return the present moment as a header gives it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Inflater(Protocol):
    """What zlib's and zstandard's decompression objects have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class _Deflater(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int, /) -> bytes: ...


def _zstandard(path: Path) -> Any:
    try:
        import zstandard
    except ImportError:
        raise RecordingError(
            f"{path}: zstd files need the package zstandard", hint="pip install 'tradebal[record]'", code=2
        ) from None
    return zstandard


class Contents:
    """A file's contents in chunks, decompressed if it begins like gzip or zstd (whatever its name says).

    Several compressed members or frames, one behind the other, read as one, as their own tools have it.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; RecordingError if that fails."""
        self.path = path
        self.torn = False
        """A compressed file ended inside a member, as it does after a crash. Known once all is read."""
        self.compressed = False
        """Known once the first chunk is read."""
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}", code=2) from None

    def __iter__(self) -> Iterator[bytes]:
        """Yield the contents; RecordingError where they can't be read or decompressed."""
        try:
            first = self._file.read(4)
            if first.startswith(_GZIP):
                self.compressed = True
                yield from self._inflate(first, lambda: zlib.decompressobj(wbits=31), zlib.error)
            elif first == _ZSTD:
                zstandard = _zstandard(self.path)
                self.compressed = True
                yield from self._inflate(
                    first, lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError
                )
            else:
                while first:
                    yield first
                    first = self._file.read(_READ_SIZE)
        except OSError as error:
            raise RecordingError(f"{self.path}: {error.strerror}") from None

    def _inflate(self, first: bytes, new: Any, failure: type[Exception]) -> Iterator[bytes]:
        inflater: _Inflater | None = None
        data = first
        while data:
            if inflater is None:
                inflater = new()
            try:
                if out := inflater.decompress(data):
                    yield out
            except failure as error:
                place = self._file.tell()
                raise RecordingError(
                    f"{self.path}: damaged compression before byte {place} of the file: {error}"
                ) from None
            if inflater.eof:
                data, inflater = inflater.unused_data, None
            else:
                data = b""
            data = data or self._file.read(_BITE)
        self.torn = inflater is not None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Reader:
    """Reads a recording: `header`, then the records by iteration, once. Use it as a context manager.

    A file that ends inside a record (its writer was killed) is read up to the last whole one; `truncated` then says
    so. Anything else that is out of order raises RecordingError with the byte offset of the record concerned; for a
    compressed file it is the offset in the uncompressed contents.
    """

    def __init__(self, path: Path, max_payload: int = MAX_PAYLOAD) -> None:
        """Open the file and read its header; RecordingError if it is none or has none.

        A record longer than `max_payload` bytes is refused before its payload is read.
        """
        self.path = path
        self._max_payload = min(max_payload, MAX_PAYLOAD)
        self.truncated = ""
        """What was left out at the end, for a warning; empty while there was nothing."""
        self.offset = 0
        """Where in the (uncompressed) contents the last yielded record ended."""
        self._contents = Contents(path)
        try:
            self._chunks = iter(self._contents)
            self._buffer = b""
            while b"\n" not in self._buffer and len(self._buffer) < MAX_HEADER and self._fill():
                pass
            if not self._buffer.startswith(_MAGIC):
                raise RecordingError(f"{path}: not a tradebal recording", code=2)
            line, newline, self._buffer = self._buffer.partition(b"\n")
            if not newline:
                raise RecordingError(f"{path}: ends inside its first line, so it holds no message", code=2)
            try:
                self.header = Header.parse(line)
            except ValueError as error:
                raise RecordingError(f"{path}: not a recording that can be read: {error}", code=2) from None
            self.offset = len(line) + 1
        except BaseException:
            self.close()
            raise

    @property
    def compressed(self) -> bool:
        """Whether the file is a compressed one."""
        return self._contents.compressed

    def _fill(self) -> bool:
        chunk = next(self._chunks, b"")
        self._buffer += chunk
        return bool(chunk)

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order."""
        at = 0
        while True:
            head = _HEAD.match(self._buffer, at)
            if head is None and len(self._buffer) - at < _HEAD_LONGEST:
                self._buffer, at = self._buffer[at:], 0
                if self._fill():
                    continue
                if self._buffer and not _HEAD_BEGUN.fullmatch(self._buffer):
                    raise self._damage("expected a record: time, kind and length")
                break
            if head is None:
                raise self._damage("expected a record: time, kind and length")
            kind = _KINDS.get(head[2])
            if kind is None:
                raise self._damage(f"unknown kind of record {head[2].decode()!r}")
            length = int(head[3])
            if length > MAX_PAYLOAD:
                raise self._damage(f"a length of {length} bytes, more than any message may have ({MAX_PAYLOAD})")
            if length > self._max_payload:
                raise RecordingError(
                    f"{self.path}: the record at byte {self.offset} has {length} bytes, more than --max-message "
                    f"({self._max_payload})",
                    hint="if the recording is trusted, allow longer messages by --max-message",
                )
            start = head.end()
            end = start + length
            if end >= len(self._buffer):
                pieces = [self._buffer[at:]]
                have = len(pieces[0])
                start, end, at = start - at, end - at, 0
                while have <= end and (chunk := next(self._chunks, b"")):
                    pieces.append(chunk)
                    have += len(chunk)
                self._buffer = b"".join(pieces)
                if have <= end:
                    break
            if self._buffer[end] != 0x0A:
                raise self._damage(f"no newline behind a payload of {length} bytes")
            self.offset += end + 1 - at
            at = end + 1
            yield Record(int(head[1]), kind, self._buffer[start:end])
        if self._buffer:
            self.truncated = (
                f"{self.path}: ends inside a record, as after a crash: "
                f"its last {len(self._buffer)} bytes, from byte {self.offset} on, are left out"
            )
        elif self._contents.torn:
            self.truncated = f"{self.path}: its compression was not finished, as after a crash: its end may be missing"

    def _damage(self, what: str) -> RecordingError:
        place = f"byte {self.offset}" + (" of its uncompressed contents" if self.compressed else "")
        return RecordingError(f"{self.path}: damaged at {place}: {what}")

    def close(self) -> None:
        """Close the file."""
        self._contents.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Writer:
    """Writes a recording; `.zst` and `.gz` names are compressed. Use it as a context manager.

    Records reach the kernel within `FLUSH_INTERVAL`, if `tick` is called about as often: a kill then loses less than
    a second. (A loss of power may lose more: nothing is synced to disk.)
    """

    def __init__(self, path: Path, header: Header, *, append: bool = False) -> None:
        """Create the file, or append to a recording of the same profile and URL.

        A plain file's torn last record, left by a crash, is cut off first; a compressed one can't be mended that way
        and is refused, like a file that exists without `append`: RecordingError.
        """
        self.path = path
        self.notice = ""
        """What was done to an existing file, for a warning."""
        self._flushed = time.monotonic()
        self._dirty = False
        keep = self._inspect(header) if append and path.exists() else None
        self._deflater, self._sync, self._finish = _deflater(path)
        try:
            self._file = path.open("xb" if keep is None else "r+b", buffering=1 << 20)
        except FileExistsError:
            raise RecordingError(
                f"{path}: exists already", hint="give another name, or --append to go on in it", code=2
            ) from None
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}", code=2) from None
        try:
            if keep is None:
                self._put(header.to_line())
                self.flush()
            else:
                self._file.truncate(keep)
                self._file.seek(keep)
        except BaseException:
            self._file.close()
            raise

    def _inspect(self, header: Header) -> int:
        """Return the length up to which the existing file is whole."""
        with Reader(self.path) as old:
            if (old.header.profile, old.header.url) != (header.profile, public_url(header.url)):
                raise RecordingError(
                    f"{self.path}: holds {old.header.profile} from {old.header.url}, "
                    f"not {header.profile} from {public_url(header.url)}",
                    hint="give another name",
                    code=2,
                )
            for _ in old:
                pass
            if not old.compressed:
                if old.truncated:
                    self.notice = f"{self.path}: cut off what a crash left of a last record behind byte {old.offset}"
                return old.offset
            if old.truncated:
                raise RecordingError(
                    old.truncated, hint="a torn compressed file can't be appended to: give another name", code=2
                )
            return self.path.stat().st_size

    @property
    def size(self) -> int:
        """Bytes in the file and its buffer (what a compressor still holds is not among them)."""
        return self._file.tell()

    def write(self, time_ns: int, kind: Kind, data: bytes) -> None:
        """Add one record; RecordingError if the file can't take it, ValueError for a payload beyond MAX_PAYLOAD."""
        if len(data) > MAX_PAYLOAD:
            raise ValueError(f"payload of {len(data)} bytes")
        self._put(b"%d %s %d %s\n" % (time_ns, kind.value.encode(), len(data), data))

    def note(self, time_ns: int, **fields: object) -> None:
        """Add a note about the connection."""
        self.write(time_ns, Kind.NOTE, json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())

    def tick(self) -> None:
        """Flush if there is something to flush and the last flush is `FLUSH_INTERVAL` ago."""
        if self._dirty and time.monotonic() - self._flushed >= FLUSH_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Hand all records to the kernel."""
        if self._deflater is not None:
            self._raw(self._deflater.flush(self._sync))
        try:
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from None
        self._flushed = time.monotonic()
        self._dirty = False

    def close(self) -> None:
        """Finish and close the file; RecordingError if the rest can't be written."""
        if self._file.closed:
            return
        try:
            if self._deflater is not None:
                self._raw(self._deflater.flush(self._finish))
        finally:
            try:
                self._file.close()
            except OSError as error:
                raise self._failure(error) from None

    def _put(self, data: bytes) -> None:
        self._raw(data if self._deflater is None else self._deflater.compress(data))
        self._dirty = True

    def _raw(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self.path}: {error.strerror}; what was written before is kept")

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _deflater(path: Path) -> tuple[_Deflater | None, int, int]:
    """Return the compressor that the name asks for, and its codes for a flush and for the end."""
    if path.suffix == ".gz":
        return zlib.compressobj(wbits=31), zlib.Z_SYNC_FLUSH, zlib.Z_FINISH
    if path.suffix == ".zst":
        zstandard = _zstandard(path)
        deflater = zstandard.ZstdCompressor().compressobj()
        return deflater, zstandard.COMPRESSOBJ_FLUSH_BLOCK, zstandard.COMPRESSOBJ_FLUSH_FINISH
    return None, 0, 0
