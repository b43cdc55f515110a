"""Recordings that `replay` can play: our own, and files of others that hold the same thing in another form."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tradebal.errors import UserError
from tradebal.recordings.format import DEFAULT_MAX_PAYLOAD, MAX_HEADER, Contents, Kind, Reader, RecordingError
from tradebal.router.frames import BINARY, TEXT
from tradebal.router.interface import Rule
from tradebal.upstream.profiles import PROFILES

log = logging.getLogger(__name__)

NAMED_SKIPS = 5
"""Lines that can't be played are each named in the log up to this many, and then only counted."""

CSV_HEADER = b"ms_since_midnight_new_york,symbol,price_x10000,size,exchange,condition_flags_hex,suspicious"

EXCHANGES = {
    b"A": 1, b"B": 2, b"C": 3, b"D": 4, b"E": 5, b"H": 20, b"I": 6, b"J": 7, b"K": 8, b"L": 14, b"M": 9,
    b"N": 10, b"P": 11, b"Q": 12, b"S": 13, b"T": 12, b"U": 21, b"V": 15, b"W": 16, b"X": 17, b"Y": 18, b"Z": 19,
}  # fmt: skip
"""The SIPs' participant letters and Massive's exchange ids (Massive's reference endpoint /v3/reference/exchanges).

Q and T are both Nasdaq: the one on its own tape, the other on the tapes of NYSE and regional listings.
"""

TRADE_REPORTING_FACILITY = 202
"""`trfi` of off-exchange prints. A file with letters doesn't say which facility took one; this is Nasdaq's in Carteret,
which takes most."""

DAY_MS = 24 * 60 * 60 * 1000

_FORMATS = "a tradebal recording, a CSV of US trades, a file of the handler Record, or frames written by cryptofeed"
_DATE = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)")
_CSV_COLUMNS = (
    ("ms_since_midnight_new_york", re.compile(rb"\d{1,8}")),
    ("symbol", re.compile(rb"[^,\"]{1,64}")),
    ("price_x10000", re.compile(rb"\d{1,15}")),
    ("size", re.compile(rb"\d{1,15}")),
    ("exchange", re.compile(rb"[A-Z]")),
    ("condition_flags_hex", re.compile(rb"[0-9A-Fa-f]{0,16}")),
    ("suspicious", re.compile(rb"[01]")),
)
_CSV_ROW = re.compile(b",".join(b"(" + pattern.pattern + b")" for _, pattern in _CSV_COLUMNS))
_FRAME_LINE = re.compile(rb"(\d{1,10})(?:\.(\d{1,18}))?: ")
_HANDLER_LINE = re.compile(rb'\{"received_ns":(\d{1,19}),"(trade|gap)":')
_ARRAYS = ("massive", "alpaca")
"""Profiles of providers that send several trades in an array."""
_OTHER_LINE = re.compile(rb"[a-z]{2,8}://\S+ (<->|<-|->) ")


class Message(NamedTuple):
    """One message of a recording; of a bundled one, one trade."""

    time_ns: int
    """Nanoseconds since the epoch."""
    opcode: int
    data: bytes


class Source:
    """A recording: iterate `messages()` once, then read the counts. Use it as a context manager."""

    profile: str
    """Of the provider that the recording's messages look like."""
    url = ""
    subscribe: tuple[str, ...] = ()
    rule: Rule | None = None
    """Where the recording itself says what a trade is; otherwise its profile does."""
    bundled = False
    """Whether each message is a single trade, which the provider would send with others in an array."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.played = 0
        """Messages given out."""
        self.left_out = 0
        """Records that are no part of the market's flow: login, notes, what the client sent."""
        self.skipped = 0
        """Lines that could not be parsed, and text that isn't any."""
        self.suspicious = 0
        """Trades that the recording's vendor marked as suspicious; they are played."""

    def messages(self) -> Iterator[Message]:
        """Yield what the provider sent, in the recording's order; RecordingError names file and place of an error."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def skip(self, place: str, reason: str) -> None:
        """Count something that can't be played, and name it while there are few."""
        self.skipped += 1
        if self.skipped <= NAMED_SKIPS:
            log.warning("skipped: file=%s %s reason=%s", self.path, place, reason)
        elif self.skipped == NAMED_SKIPS + 1:
            log.warning("skipped more: file=%s: what follows is counted only", self.path)


class RecordingSource(Source):
    """A recording of our own."""

    def __init__(self, path: Path, max_message: int) -> None:
        super().__init__(path)
        self._reader = Reader(path, max_message)
        header = self._reader.header
        self.profile, self.url, self.subscribe, self.rule = header.profile, header.url, header.subscribe, header.rule

    def messages(self) -> Iterator[Message]:
        """Yield the recorded messages without those of the login."""
        for time_ns, kind, data in self._reader:
            if kind is not Kind.TEXT and kind is not Kind.BINARY:
                self.left_out += 1
            elif kind is Kind.TEXT and not _is_text(data):
                self.skip(f"byte={self._reader.offset}", "the text message that ends here isn't UTF-8")
            else:
                self.played += 1
                yield Message(time_ns, TEXT if kind is Kind.TEXT else BINARY, data)
        if self._reader.truncated:
            log.warning("%s", self._reader.truncated)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


class _LineSource(Source):
    def __init__(self, path: Path, max_message: int) -> None:
        super().__init__(path)
        self._max_message = max_message
        self._contents = Contents(path)

    def _lines(self) -> Iterator[tuple[int, bytes, bool]]:
        """Yield number, text and wholeness of each line: the last one may lack its newline."""
        number = 0
        pieces: list[bytes] = []
        length = 0
        for chunk in self._contents:
            head, newline, rest = chunk.partition(b"\n")
            pieces.append(head)
            length += len(head)
            if length > self._max_message:
                raise RecordingError(
                    f"{self.path}: line {number + 1} is longer than {self._max_message} bytes",
                    hint="if the file is trusted, allow longer messages by --max-message",
                )
            if not newline:
                continue
            lines = rest.split(b"\n")
            lines.insert(0, b"".join(pieces))
            pieces = [lines.pop()]
            length = len(pieces[0])
            for line in lines:
                number += 1
                yield number, line, True
        if last := b"".join(pieces):
            yield number + 1, last, False
        if self._contents.torn:
            log.warning("%s: ends inside its compression: its end may be missing", self.path)

    def close(self) -> None:
        """Close the file."""
        self._contents.close()


class CsvSource(_LineSource):
    """US trades of one day with New York times, prices in ten-thousandths, and the SIPs' exchange letters.

    Each row becomes a stock trade as Massive sends it. What the file doesn't tell is left out: the listing tape (`z`),
    and the condition codes (`c`), as the vendor's flags aren't the SIPs' condition ids.
    """

    profile = "massive"
    subscribe = ("T.*",)
    bundled = True

    def __init__(self, path: Path, day: date | None, max_message: int) -> None:
        super().__init__(path, max_message)
        try:
            self._midnights = _hours_of(day or _date_of(path))
        except BaseException:
            self.close()
            raise

    def messages(self) -> Iterator[Message]:
        """Yield one trade a row."""
        lines = self._lines()
        next(lines)
        symbols: dict[bytes, bytes] = {}
        running = 0
        for number, line, _ in lines:
            row = _CSV_ROW.fullmatch(line.rstrip(b"\r"))
            if row is None and not line.strip():
                continue
            if row is None:
                self.skip(f"line={number}", _csv_complaint(line.rstrip(b"\r")))
                continue
            clock, raw_symbol, price, size, letter, _, suspicious = row.groups()
            milliseconds = int(clock)
            exchange = EXCHANGES.get(letter)
            symbol = symbols.get(raw_symbol)
            if symbol is None and (symbol := _json_text(raw_symbol)):
                symbols[raw_symbol] = symbol
            if milliseconds >= DAY_MS:
                self.skip(f"line={number}", f"ms_since_midnight_new_york = {milliseconds}: a day has {DAY_MS}")
            elif exchange is None:
                self.skip(f"line={number}", f"exchange = {letter.decode()}: no letter of the SIPs")
            elif not symbol:
                self.skip(f"line={number}", "symbol: not UTF-8 text")
            else:
                running += 1
                self.suspicious += suspicious == b"1"
                self.played += 1
                hour, rest = divmod(milliseconds, 3_600_000)
                time_ms = self._midnights[hour] + rest
                yield Message(
                    time_ms * 1_000_000,
                    TEXT,
                    b'{"ev":"T","sym":%s,"x":%d,"i":"%d","p":%s,"s":%d,"t":%d,"q":%d%s}'
                    % (
                        symbol,
                        exchange,
                        running,
                        _decimal(price),
                        int(size),
                        time_ms,
                        running,
                        b',"trfi":%d' % TRADE_REPORTING_FACILITY if exchange == EXCHANGES[b"D"] else b"",
                    ),
                )


class CryptofeedSource(_LineSource):
    """Frames of Coinbase's public feed as cryptofeed's raw data collection writes them.

    A frame stands on a line behind its time, `1618677817.061845: {…}`; lines that begin with a URL are the client's.
    """

    profile = "coinbase"

    def messages(self) -> Iterator[Message]:
        """Yield the frames without the answers to subscriptions, which a replay gives itself."""
        for number, line, whole in self._lines():
            if _OTHER_LINE.match(line):
                self.left_out += 1
                continue
            head = _FRAME_LINE.match(line)
            if not line:
                continue
            if head is None:
                self.skip(f"line={number}", "neither `time: frame` nor a line of the client's")
                continue
            frame = line[head.end() :]
            opcode = TEXT
            if frame.startswith((b"b'", b'b"')):
                # Python's notation of a binary frame.
                literal = _bytes_of(frame)
                if literal is None:
                    self.skip(f"line={number}", "the binary frame isn't a whole Python bytes literal")
                    continue
                frame, opcode = literal, BINARY
            elif not _is_text(frame):
                self.skip(f"line={number}", "the frame isn't UTF-8 text")
                continue
            if opcode == TEXT and not whole and not _is_json(frame):
                self.skip(f"line={number}", "the file ends inside this frame")
                continue
            if frame.startswith(b'{"type":"subscriptions"'):
                self.left_out += 1
                continue
            seconds, fraction = head.groups(default=b"")
            self.played += 1
            yield Message(int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")), opcode, frame)


class HandlerSource(_LineSource):
    """What the handler Record keeps: `{"received_ns":…,"trade":…}` or `{"received_ns":…,"gap":…}` a line.

    The first trade tells which provider's it is. Kraken's trades can't be played: the message around them is missing.
    """

    def __init__(self, path: Path, max_message: int, line: bytes) -> None:
        super().__init__(path, max_message)
        found = _HANDLER_LINE.match(line)
        profile = _profile_of(line[found.end() : -1]) if found and found[2] == b"trade" else None
        if profile is None:
            self.close()
            raise RecordingError(
                f"{path}: its first line isn't a trade of a provider that can be played: {_shown(line)}", code=2
            )
        self.profile, self.bundled = profile, profile in _ARRAYS

    def messages(self) -> Iterator[Message]:
        """Yield the trades, at the times when the worker read them."""
        for number, line, _ in self._lines():
            head = _HANDLER_LINE.match(line)
            if not line:
                continue
            if head is None or not line.endswith(b"}") or not _is_text(line) or not _is_json(line):
                self.skip(f"line={number}", "not a line as the handler Record writes it")
            elif head[2] == b"gap":
                self.left_out += 1
            else:
                self.played += 1
                yield Message(int(head[1]), TEXT, line[head.end() : -1])


def open_source(path: Path, day: date | None = None, max_message: int = DEFAULT_MAX_PAYLOAD) -> Source:
    """Open a recording; its contents, not its name, tell what it is.

    `day` is the date of a CSV's trades, by default the one in its name. RecordingError if it isn't one or can't be
    read; a message of more than `max_message` bytes ends it with the same.
    """
    contents = Contents(path)
    first = b""
    try:
        for chunk in contents:
            first += chunk
            if b"\n" in first or len(first) >= MAX_HEADER:
                break
    finally:
        contents.close()
    line = first.partition(b"\n")[0]
    if line.startswith(b'{"tradebal-recording":'):
        return RecordingSource(path, max_message)
    if line.rstrip(b"\r") == CSV_HEADER:
        return CsvSource(path, day, max_message)
    if _FRAME_LINE.match(line) or _OTHER_LINE.match(line):
        return CryptofeedSource(path, max_message)
    if _HANDLER_LINE.match(line):
        return HandlerSource(path, max_message, line)
    what = "is empty" if not first else f"begins with {_shown(line)}, which"
    joined = "; a recording would be" if not first else " isn't how a recording begins:"
    raise RecordingError(f"{path}: {what}{joined} {_FORMATS}", code=2)


def new_york() -> ZoneInfo:
    """Return the exchanges' time zone; UserError if the system has no time zones."""
    try:
        return ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:
        raise UserError(
            "the time zone America/New_York is not installed",
            hint="pip install 'tradebal[record]', or apt install tzdata",
        ) from None


def _hours_of(day: date) -> list[int]:
    """Return when each hour of the day begins by New York's clocks, in ms since the epoch.

    By the clock, not by time elapsed: when it is put forward or back on a Sunday at 02:00, the market is closed.
    """
    zone = new_york()
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return [int((midnight + timedelta(hours=hour)).astimezone(UTC).timestamp()) * 1000 for hour in range(24)]


def _date_of(path: Path) -> date:
    if found := _DATE.search(path.name):
        try:
            return date(int(found[1]), int(found[2]), int(found[3]))
        except ValueError:
            pass
    raise RecordingError(
        f"{path}: the file doesn't say on which day its trades were made",
        hint="give it with --date YYYY-MM-DD",
        code=2,
    )


def _csv_complaint(line: bytes) -> str:
    fields = line.split(b",")
    if len(fields) != len(_CSV_COLUMNS):
        return f"{len(fields)} columns instead of {len(_CSV_COLUMNS)}"
    checks: Iterator[tuple[bytes, tuple[str, re.Pattern[bytes]]]] = zip(fields, _CSV_COLUMNS, strict=True)
    return next(f"{name} = {_shown(field)}" for field, (name, pattern) in checks if not pattern.fullmatch(field))


def _decimal(ten_thousandths: bytes) -> bytes:
    """Return the exact decimal number: 1674100 is 167.41, 480000 is 48."""
    digits = ten_thousandths.lstrip(b"0").rjust(5, b"0")
    return (digits[:-4] + b"." + digits[-4:]).rstrip(b"0").rstrip(b".")


def _json_text(text: bytes) -> bytes:
    try:
        return json.dumps(text.decode(), ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return b""


def _is_text(data: bytes) -> bool:
    """Whether a websocket text message may hold this (RFC 6455, section 5.6)."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bytes_of(literal: bytes) -> bytes | None:
    """Return what a Python bytes literal stands for; None if it isn't one."""
    if literal[-1:] != literal[1:2]:
        return None
    try:
        value = ast.literal_eval(literal.decode("ascii"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, bytes) else None


def _profile_of(trade: bytes) -> str | None:
    """Return the name of the profile whose trades look like this one and stand alone."""
    try:
        fields = json.loads(trade)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    for profile in PROFILES.values():
        rule = profile.rule
        marker = fields.get(rule.marker_key.decode())
        if rule.container is None and isinstance(marker, str) and marker.encode() in rule.marker_values:
            return profile.name
    return None


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _shown(text: bytes) -> str:
    return repr(text[:60].decode(errors="replace")) + ("…" if len(text) > 60 else "")
