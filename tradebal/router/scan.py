"""Finds the trades in a message by JSON's structure, without decoding more of it than their symbols need."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import NamedTuple

from tradebal.router.interface import MAX_DEPTH, Rule

UNTERMINATED = "unterminated value"
MISMATCHED = "mismatched bracket"
TOO_DEEP = "nested too deeply"
NO_VALUE = "expected a value"
NO_COMMA = "expected a comma or the end of the array"
TEXT_AFTER = "text after the end"
MALFORMED = "malformed object"
NO_SYMBOL = "no usable symbol"

_OPEN_BRACE, _CLOSE_BRACE, _OPEN_BRACKET, _CLOSE_BRACKET, _COMMA, _QUOTE, _BACKSLASH = b'{}[],"\\'
_CLOSER = {_OPEN_BRACE: _CLOSE_BRACE, _OPEN_BRACKET: _CLOSE_BRACKET}

# No input may cost more than linear time, or memory for each of its tokens. So quantifiers are possessive, and where a
# group has to be repeated that can fail midway, they are bounded instead, since Python before 3.11.5 then goes on from
# the wrong place (CPython issue 106052). That is why escapes have a lookahead, too: behind it nothing can fail.
_PARTS = {
    b"ws": rb"[ \t\n\r]*+",
    b"inside": rb'[^"\\]*+(?:(?=\\.)\\.[^"\\]*+)*+',
    b"scalar": rb'[^ \t\n\r,\]}[{":]++',
    b"plain": rb'[^"{}\[\]]*+',
}
_PARTS[b"flat"] = rb'%(plain)b(?:"%(inside)b"%(plain)b){0,64}' % _PARTS


def _pattern(source: bytes) -> re.Pattern[bytes]:
    return re.compile(source % _PARTS, re.DOTALL)


_WHITE_SPACE = _pattern(rb"%(ws)b")
_STRING = _pattern(rb'"%(inside)b"')
_SCALAR_OR_STRING = _pattern(rb'%(scalar)b|"%(inside)b"')
# Ends before the next bracket outside of strings, at the end, or before a quote: of a string without end, or the 65th.
_FLAT = _pattern(rb"%(flat)b")
# An object that nests one level at most, as trades do: found at once, where _end_of_brackets goes step by step.
_SHALLOW_OBJECT = _pattern(rb"\{%(flat)b(?:(?:\[%(flat)b\]|\{%(flat)b\})%(flat)b){0,16}\}")
# A key, its colon, and the value's start: the inside of a string, or a scalar, or nothing before a bracket.
_MEMBER = _pattern(rb'%(ws)b"(%(inside)b)"%(ws)b:%(ws)b(?:"(%(inside)b)"|(%(scalar)b)|(?=[\[{]))')
_EMPTY_OBJECT = _pattern(rb"\{%(ws)b\}")
_NEXT_MEMBER = _pattern(rb"%(ws)b([,}])")
_NEXT_ELEMENT = _pattern(rb"%(ws)b([,\]])%(ws)b")
_ESCAPE = re.compile(rb"\\(?:u([0-9A-Fa-f]{4})|(.?))", re.DOTALL)
_ESCAPED = {b'"': '"', b"\\": "\\", b"/": "/", b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}


class MalformedError(Exception):
    """The structure can't be followed; the argument is the reason, as in `Event.reason`."""


class Finding(NamedTuple):
    """One part of a message: a trade if it has a symbol, rejected if it has a reason, skipped, or else an event."""

    data: bytes
    symbol: bytes = b""
    reason: str = ""
    skipped: bool = False


def findings(message: bytes, rule: Rule) -> Iterator[Finding]:
    """Yield what a message holds, in order of appearance."""
    start = _skip(message, 0)
    if message[start : start + 1] not in (b"{", b"["):
        yield Finding(message)
        return
    for begin, end, reason in _top_level(message, start):
        element = message[begin:end]
        if reason:
            yield Finding(element, reason=reason)
        elif element[0] != _OPEN_BRACE:
            yield Finding(element)
        elif rule.container is None:
            yield _classify(element, rule)
        else:
            yield from _open_envelope(element, rule, rule.container)


def unescape(string: bytes) -> bytes | None:
    r"""Return the UTF-8 of a JSON string's inside; None if an escape in it is invalid (RFC 8259, section 7).

    Half a surrogate pair is invalid, since no UTF-8 can stand for it.
    """
    if _BACKSLASH not in string:
        return string
    parts: list[bytes] = []
    end = 0
    high = ""  # a pair's first half, waiting for the second
    for match in _ESCAPE.finditer(string):
        digits, letter = match.groups()
        char = chr(int(digits, 16)) if digits else _ESCAPED.get(letter)
        if char is None:
            return None
        if high and match.start() != end:
            return None
        parts.append(string[end : match.start()])
        end = match.end()
        if high:
            if not "\udc00" <= char <= "\udfff":
                return None
            char = chr(0x10000 + (ord(high) - 0xD800) * 0x400 + ord(char) - 0xDC00)
            high = ""
        elif "\ud800" <= char <= "\udbff":
            high = char
            continue
        elif "\udc00" <= char <= "\udfff":
            return None
        parts.append(char.encode())
    return None if high else b"".join([*parts, string[end:]])


def on_one_line(record: bytes) -> bytes | None:
    """Return an object with each LF between its tokens as a space; None if one stands inside a string."""
    if any(b"\n" in string for string in _STRING.findall(record)):
        return None
    return record.replace(b"\n", b" ")


# Start, end and reason of an element; with a reason, nothing follows.
_Span = tuple[int, int, str]


def _top_level(message: bytes, start: int) -> Iterator[_Span]:
    """Yield the elements of the array, or the one object, that begins at `start` and should be all of the message."""
    if message[start] == _OPEN_BRACKET:
        end = yield from _elements(message, start)
    else:
        try:
            end = _end_of_value(message, start)
        except MalformedError as error:
            yield start, len(message), str(error)
            return
        yield start, end, ""
    if end is not None and (rest := _skip(message, end)) < len(message):
        yield rest, len(message), TEXT_AFTER


def _elements(data: bytes, start: int) -> Generator[_Span, None, int | None]:
    """Yield the elements of the array at `start`; return where it ends, or None behind a reason."""
    end_of_data = len(data)
    pos = _skip(data, start + 1)
    if data[pos : pos + 1] == b"]":
        return pos + 1
    while True:
        try:
            end = _end_of_value(data, pos)
        except MalformedError as error:
            yield pos, end_of_data, str(error)
            return None
        yield pos, end, ""
        delimiter = _NEXT_ELEMENT.match(data, end)
        if not delimiter:
            yield _skip(data, end), end_of_data, NO_COMMA
            return None
        if delimiter[1] == b"]":
            return delimiter.end(1)
        pos = delimiter.end()


def _skip(data: bytes, pos: int) -> int:
    match = _WHITE_SPACE.match(data, pos)
    assert match  # it matches nothing, too
    return match.end()


def _end_of_value(data: bytes, start: int) -> int:
    """Return where the value at `start` ends: brackets by their structure, anything else by its token."""
    first = data[start : start + 1]
    if first in (b"{", b"["):
        return _end_of_brackets(data, start)
    if match := _SCALAR_OR_STRING.match(data, start):
        return match.end()
    raise MalformedError(UNTERMINATED if first == b'"' else NO_VALUE)


def _end_of_brackets(data: bytes, start: int) -> int:
    """Return the position behind the bracket that closes the one at `start`."""
    if shallow := _SHALLOW_OBJECT.match(data, start):
        return shallow.end()
    awaited: list[int] = []  # closing brackets, innermost last
    pos = start
    while True:
        bracket = data[pos]
        if closer := _CLOSER.get(bracket):
            if len(awaited) == MAX_DEPTH:
                raise MalformedError(TOO_DEEP)
            awaited.append(closer)
        elif bracket != awaited.pop():
            raise MalformedError(MISMATCHED)
        pos += 1
        if not awaited:
            return pos
        pos = _next_bracket(data, pos)


def _next_bracket(data: bytes, pos: int) -> int:
    """Return where the next bracket outside of strings stands."""
    while True:
        flat = _FLAT.match(data, pos)
        assert flat  # it matches nothing, too
        pos = flat.end()
        if pos == len(data):
            raise MalformedError(UNTERMINATED)
        if data[pos] != _QUOTE:
            return pos
        if not _STRING.match(data, pos):
            raise MalformedError(UNTERMINATED)


class _Member(NamedTuple):
    key: bytes
    """Inside of the key's string."""
    string: bytes | None
    """Inside of the value if it is a string."""
    bracket: int
    """Where the value starts if it is an object or array; else 0."""


def _members(record: bytes) -> Iterator[_Member]:
    """Yield the top-level members of an object of known span, looking behind a member only when the next is asked for.

    Raise MalformedError where they aren't separated and ended as JSON asks.
    """
    if _EMPTY_OBJECT.match(record):
        return
    pos = 1
    while True:
        member = _MEMBER.match(record, pos)
        if not member:
            raise MalformedError(MALFORMED)
        key, string, scalar = member.groups()
        pos = member.end()
        bracket = pos if string is None and scalar is None else 0
        yield _Member(key, string, bracket)
        if bracket:
            pos = _end_of_brackets(record, bracket)
        delimiter = _NEXT_MEMBER.match(record, pos)
        if not delimiter:
            raise MalformedError(MALFORMED)
        pos = delimiter.end()
        if delimiter[1] == b"}":
            return


def _classify(record: bytes, rule: Rule) -> Finding:
    """Say what an object is, looking no further than it takes to be sure."""
    marked = False
    symbol: bytes | None = None  # b"": the first one isn't usable
    try:
        for key, string, _ in _members(record):
            name = unescape(key)
            if name == rule.marker_key and not marked:
                if not _is_marker(string, rule):
                    return _other(record, string, rule)
                marked = True
            if name == rule.symbol_key and symbol is None:
                symbol = _symbol(string)
            if marked and symbol is not None:
                break
    except MalformedError as error:
        return Finding(record, reason=str(error))
    if not marked:
        return Finding(record)
    return Finding(record, symbol) if symbol else Finding(record, reason=NO_SYMBOL)


def _is_marker(string: bytes | None, rule: Rule) -> bool:
    return string is not None and unescape(string) in rule.marker_values


def _other(record: bytes, marker: bytes | None, rule: Rule) -> Finding:
    """Return what becomes of an object whose marker isn't a trade's."""
    wanted = rule.notice_values is None or marker is None or unescape(marker) in rule.notice_values
    return Finding(record, skipped=not wanted)


def _symbol(string: bytes | None) -> bytes:
    """Return a symbol from the inside of its string; b"" if it isn't usable."""
    return b"" if string is None else unescape(string) or b""


def _open_envelope(envelope: bytes, rule: Rule, container: bytes) -> Iterator[Finding]:
    """Yield the trades in an envelope, or the envelope if it holds none."""
    marked = False
    array: int | None = None  # where the first container value starts; 0: it isn't an array
    try:
        for key, string, bracket in _members(envelope):
            name = unescape(key)
            if name == rule.marker_key and not marked:
                if not _is_marker(string, rule):
                    yield _other(envelope, string, rule)
                    return
                marked = True
            if name == container and array is None:
                array = bracket if envelope[bracket] == _OPEN_BRACKET else 0
    except MalformedError as error:
        yield Finding(envelope, reason=str(error))
        return
    if not (marked and array):
        yield Finding(envelope)
        return
    for begin, end, reason in _elements(envelope, array):
        element = envelope[begin:end]
        if reason or element[0] != _OPEN_BRACE:
            yield Finding(element, reason=reason or MALFORMED)
        else:
            yield _in_container(element, rule)


def _in_container(record: bytes, rule: Rule) -> Finding:
    try:
        for key, string, _ in _members(record):
            if unescape(key) == rule.symbol_key:
                symbol = _symbol(string)
                return Finding(record, symbol) if symbol else Finding(record, reason=NO_SYMBOL)
    except MalformedError as error:
        return Finding(record, reason=str(error))
    return Finding(record, reason=NO_SYMBOL)
