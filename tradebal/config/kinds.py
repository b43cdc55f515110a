"""The kinds of value that a configuration key can hold: each reads, checks and writes its own, and names its bounds."""

from __future__ import annotations

import datetime
import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

_SIZE = re.compile(r"(\d{1,20}) ?(KiB|MiB|GiB|TiB|B|)", re.ASCII)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_HANDSHAKE_HEADERS = frozenset(
    ("connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions")
)
_INT64 = range(-(2**63), 2**63)


class RefusedError(Exception):
    """A value that its key doesn't take.

    `shown` is the value as an error line shows it, `at` its path inside the key, such as `.SPY` or `[2]`.
    """

    def __init__(self, value: object, allowed: str, *, at: str = "", shown: str = "") -> None:
        super().__init__(allowed)
        self.shown = shown or show(value)
        self.allowed = allowed
        self.at = at


def show(value: object) -> str:
    """Return the value as TOML on one line, cut to a length that an error line can bear."""
    try:
        text = write_value(value)
    except (ValueError, RecursionError):
        text = "…"
    return text if len(text) <= 80 else text[:77] + "…"


def write_key(name: str) -> str:
    """Return a table key as TOML, quoted only where it must be."""
    return name if _BARE_KEY.fullmatch(name) else _quote(name)


def write_value(value: object) -> str:
    """Return any value that tomllib can give as TOML on one line; ValueError for another type."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quote(value)
        case int() | float():
            # repr() of a float is TOML too, "inf" and "nan" included.
            return repr(value)
        case Path():
            return _quote(str(value))
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case list() | tuple():
            return "[" + ", ".join(map(write_value, value)) + "]"
        case Mapping():
            inside = ", ".join(f"{write_key(str(k))} = {write_value(v)}" for k, v in value.items())
            return f"{{ {inside} }}" if inside else "{}"
    raise ValueError(f"{type(value).__name__} has no TOML form")


def write_size(size: int) -> str:
    """Return a number of bytes in the largest unit that divides it: 67108864 as 64MiB."""
    for unit, factor in reversed(UNITS.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _quote(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
    return '"' + "".join(escapes.get(c) or (c if c.isprintable() else _escape(c)) for c in text) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


class Kind:
    """What a key can hold. `allowed` completes the sentence "must be …" in error lines and in the documentation."""

    allowed = ""

    def read(self, value: object) -> Any:
        """Return the checked value as the configuration holds it; RefusedError if the key doesn't take it."""
        raise NotImplementedError

    def write(self, value: Any) -> str:
        """Return the TOML text that reads back as `value`."""
        return write_value(value)


class Flag(Kind):
    """True or false."""

    allowed = "true or false"

    def read(self, value: object) -> bool:
        """See `Kind.read`."""
        if not isinstance(value, bool):
            raise RefusedError(value, self.allowed)
        return value


class Integer(Kind):
    """A whole number within bounds, both included."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.allowed = f"a whole number from {low} to {high}"

    def read(self, value: object) -> int:
        """See `Kind.read`."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise RefusedError(value, self.allowed)
        return value


class Size(Kind):
    """A number of bytes, plain or with a binary unit."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.allowed = (
            f'a size such as "64MiB" (KiB, MiB, GiB, TiB) or a number of bytes, '
            f"from {write_size(low)} to {write_size(high)}"
        )

    def read(self, value: object) -> int:
        """See `Kind.read`."""
        size = value
        if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
            size = int(match[1]) * UNITS.get(match[2], 1)
        if isinstance(size, bool) or not isinstance(size, int) or not self.low <= size <= self.high:
            raise RefusedError(value, self.allowed)
        return size

    def write(self, value: int) -> str:
        """See `Kind.write`."""
        text = write_size(value)
        return text if text.isdecimal() else _quote(text)


class Seconds(Kind):
    """A duration in seconds."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.allowed = f"a number of seconds from {low:g} to {high:g}"

    def read(self, value: object) -> float:
        """See `Kind.read`."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise RefusedError(value, self.allowed)
        return float(value)


class Text(Kind):
    """A string that isn't empty."""

    def __init__(self, allowed: str = "a non-empty string") -> None:
        self.allowed = allowed

    def read(self, value: object) -> str:
        """See `Kind.read`."""
        if not isinstance(value, str) or not value:
            raise RefusedError(value, self.allowed)
        return value


class Choice(Kind):
    """One of the names that a `Literal` type lists, which so stand once, in the field's own type."""

    def __init__(self, literal: Any) -> None:
        self.names: tuple[str, ...] = get_args(literal)
        self.allowed = "one of " + ", ".join(map(_quote, self.names))

    def read(self, value: object) -> str:
        """See `Kind.read`."""
        if not isinstance(value, str) or value not in self.names:
            raise RefusedError(value, self.allowed)
        return value


class Texts(Kind):
    """A list of strings that aren't empty."""

    def __init__(self, example: str, *, least: int = 0) -> None:
        self.least = least
        self.allowed = f"a list of {'one or more ' if least else ''}non-empty strings, such as {example}"

    def read(self, value: object) -> tuple[str, ...]:
        """See `Kind.read`."""
        if not isinstance(value, list) or len(value) < self.least:
            raise RefusedError(value, self.allowed)
        for number, text in enumerate(value):
            if not isinstance(text, str) or not text:
                raise RefusedError(text, "a non-empty string", at=f"[{number}]")
        return tuple(value)


class AbsolutePath(Kind):
    """A path that means the same wherever the command was started."""

    def __init__(self, what: str) -> None:
        self.allowed = f"the absolute path of a {what}"

    def read(self, value: object) -> Path:
        """See `Kind.read`."""
        if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
            raise RefusedError(value, self.allowed)
        return Path(value)


class WebSocketUrl(Kind):
    """Where to connect to. RFC 6455, section 3, has no fragment in such a URL."""

    allowed = "a ws:// or wss:// URL, such as wss://socket.massive.com/stocks"

    def read(self, value: object) -> str:
        """See `Kind.read`."""
        if not isinstance(value, str):
            raise RefusedError(value, self.allowed)
        shown = _quote(conceal_url(value))
        if not value.isprintable() or " " in value:
            raise RefusedError(value, self.allowed, shown=shown)
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
            parts = None
        if parts is None or not usable or "#" in value:
            raise RefusedError(value, self.allowed, shown=shown)
        if "@" in parts.netloc:
            raise RefusedError(value, "a URL without user name and password: the key has its own place", shown=shown)
        return value


def conceal_url(url: str) -> str:
    """Return the URL without what may be secret in it: password and query."""
    url = re.sub(r"//[^/]*@", "//***@", url)
    return re.sub(r"\?.*", "?***", url, flags=re.DOTALL)


class Headers(Kind):
    """Further header fields of the opening handshake."""

    allowed = 'a table of header fields, such as { User-Agent = "desk 7" }'

    def read(self, value: object) -> dict[str, str]:
        """See `Kind.read`. A field's content may be secret, so no error shows it."""
        if not isinstance(value, dict):
            raise RefusedError(value, self.allowed)
        for name, text in value.items():
            at = "." + write_key(name)
            if not _HEADER_NAME.fullmatch(name):
                raise RefusedError(
                    text, "named as HTTP names header fields: letters, digits and -", at=at, shown='"***"'
                )
            if name.lower() in _HANDSHAKE_HEADERS:
                raise RefusedError(
                    text, "left out: the websocket handshake sets this field itself", at=at, shown='"***"'
                )
            if not isinstance(text, str) or not text.isprintable() or not text.isascii():
                raise RefusedError(text, "a string of printable ASCII characters", at=at, shown='"***"')
        return dict(value)


class Pins(Kind):
    """Symbols and the shards on which they were placed by hand; the number of shards bounds them elsewhere."""

    allowed = 'a table of symbols and shard numbers, such as { SPY = 0, "BRK.B" = 1 }'

    def __init__(self, most: int, size: int) -> None:
        """Allow so many symbols, and so many bytes of them all."""
        self._most, self._size = most, size

    def read(self, value: object) -> dict[str, int]:
        """See `Kind.read`."""
        if not isinstance(value, dict):
            raise RefusedError(value, self.allowed)
        for symbol, shard in value.items():
            at = "." + write_key(symbol)
            if not symbol:
                raise RefusedError(shard, "under a symbol that isn't empty", at=at)
            if isinstance(shard, dict):
                raise RefusedError(shard, f"a shard number (a symbol with a dot needs quotes: {self.allowed})", at=at)
            if isinstance(shard, bool) or not isinstance(shard, int) or shard < 0:
                raise RefusedError(shard, "a shard number, 0 or more", at=at)
        if len(value) > self._most or sum(len(symbol.encode()) for symbol in value) > self._size:
            allowed = f"{self._most} symbols at most, of {self._size} bytes in all"
            raise RefusedError(value, allowed, shown=f"{len(value)} symbols")
        return dict(value)


class Expectation(Kind):
    """Fields and contents by which a received object is recognised."""

    allowed = 'a table of fields with a string, whole number or true/false each, such as { status = "connected" }'

    def read(self, value: object) -> dict[str, str | int | bool]:
        """See `Kind.read`."""
        if not isinstance(value, dict):
            raise RefusedError(value, self.allowed)
        for name, content in value.items():
            if not isinstance(content, str | int) or (isinstance(content, int) and content not in _INT64):
                raise RefusedError(content, "a string, a whole number, or true/false", at="." + write_key(name))
        return dict(value)


class Options(Kind):
    """Anything: what it means is up to the handler that gets it."""

    allowed = 'a table of keyword arguments, such as { command = ["my-program"] }'

    def read(self, value: object) -> dict[str, Any]:
        """See `Kind.read`."""
        if not isinstance(value, dict):
            raise RefusedError(value, self.allowed)
        for name, content in value.items():
            self._check(content, "." + write_key(name))
        return dict(value)

    def _check(self, value: object, at: str) -> None:
        if isinstance(value, int) and value not in _INT64:
            raise RefusedError(value, "a number of 64 bits", at=at, shown="…")
        if isinstance(value, list):
            for number, item in enumerate(value):
                self._check(item, f"{at}[{number}]")
        elif isinstance(value, dict):
            for name, item in value.items():
                self._check(item, f"{at}.{write_key(name)}")


class Address(Kind):
    """Where to listen."""

    allowed = "host:port, such as 127.0.0.1:9570, [::1]:9570 or 0.0.0.0:9570"

    def read(self, value: object) -> str:
        """See `Kind.read`."""
        if not isinstance(value, str):
            raise RefusedError(value, self.allowed)
        host, _, port = value.rpartition(":")
        if not _HOST.fullmatch(host) or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise RefusedError(value, self.allowed)
        return value


class ClassName(Kind):
    """A class to import."""

    allowed = "package.module:Class, such as tradebal.handlers:Count"

    def read(self, value: object) -> str:
        """See `Kind.read`."""
        if not isinstance(value, str):
            raise RefusedError(value, self.allowed)
        module, _, name = value.partition(":")
        if not all(part.isidentifier() and not keyword.iskeyword(part) for part in [*module.split("."), name]):
            raise RefusedError(value, self.allowed)
        return value
