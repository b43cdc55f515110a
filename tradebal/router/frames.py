"""Cuts the bytes of a websocket connection into messages and control frames, as RFC 6455 asks of a client; makes a
server's frames.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tradebal.router.interface import Event, EventKind

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

BUFFER = 256 << 10
"""Bytes that the receive buffer begins with; it grows for longer frames."""

NO_CLOSE_CODE = 1005
PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
TOO_BIG = 1009

_FIN, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_LENGTH_16, _LENGTH_64 = 126, 127
_LONGEST_CONTROL = 125


class Message(NamedTuple):
    """A complete data message; text has been found to be valid UTF-8."""

    opcode: int
    data: bytes


class ViolationError(Exception):
    """The peer broke the protocol: the close code to answer with, and how."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameReader:
    """Receive buffer and protocol state of one connection.

    Put bytes into `space()`, say so by `received`, then call `next` until it gives None.
    """

    def __init__(self, max_message: int) -> None:
        self.reads = 0
        self.bytes = 0
        self.frames = 0
        self.messages = 0
        self._max_message = max_message
        self._buffer = bytearray(BUFFER)
        self.reset()

    def reset(self) -> None:
        """Forget received bytes and protocol state; totals stay."""
        self.closed = False
        self._start = self._end = 0
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        self._opcode = 0  # of the fragmented message at hand; 0: none

    def space(self) -> memoryview:
        """Return the writable free part of the buffer, at least a quarter of it."""
        if self._start == self._end:
            self._start = self._end = 0
        if len(self._buffer) - self._end < len(self._buffer) // 4:
            unread = self._buffer[self._start : self._end]
            if len(unread) > len(self._buffer) // 2:
                # A new one, since the old can't be resized while a caller holds a view of it.
                self._buffer = bytearray(2 * len(self._buffer))
            self._buffer[: len(unread)] = unread
            self._start, self._end = 0, len(unread)
        return memoryview(self._buffer)[self._end :]

    def received(self, count: int) -> None:
        """Take the first `count` bytes of `space()` as received; ValueError if it isn't that long."""
        if not 0 <= count <= len(self._buffer) - self._end:
            raise ValueError(f"received {count} bytes into a space of {len(self._buffer) - self._end}")
        if count:
            self.reads += 1
            self.bytes += count
        if not self.closed:
            self._end += count

    def next(self) -> Message | Event | None:
        """Return the next message, control frame or violation; None if more bytes are needed.

        After a close frame or a violation it is None until `reset`.
        """
        try:
            while not self.closed and (frame := self._frame()):
                opcode, final, payload = frame
                if opcode == CLOSE:
                    event = _close_event(payload)
                    self.closed = True
                    return event
                if opcode in (PING, PONG):
                    return Event(EventKind.PING if opcode == PING else EventKind.PONG, payload)
                if message := self._join(opcode, final, payload):
                    return message
        except ViolationError as violation:
            self.closed = True
            return Event(EventKind.VIOLATION, b"", violation.code, violation.reason)
        return None

    def _frame(self) -> tuple[int, bool, bytes] | None:
        """Take one frame off the buffer: opcode, whether it is final, payload (RFC 6455, section 5.2)."""
        buffer, start = self._buffer, self._start
        available = self._end - start
        if available < 2:
            return None
        first, second = buffer[start], buffer[start + 1]
        self._judge(first, second)
        header, length = 2, second & _LENGTH
        if length >= _LENGTH_16:
            header = 4 if length == _LENGTH_16 else 10
            if available < header:
                return None
            length = int.from_bytes(buffer[start + 2 : start + header], "big")
            if length >> 63:
                raise ViolationError(PROTOCOL_ERROR, "length out of range")
        opcode = first & _OPCODE
        if opcode < CLOSE and self._fragments_size + length > self._max_message:
            raise ViolationError(TOO_BIG, "message too long")
        if available < header + length:
            return None
        self._start = start + header + length
        self.frames += 1
        return opcode, bool(first & _FIN), bytes(buffer[start + header : self._start])

    def _judge(self, first: int, second: int) -> None:
        """Raise ViolationError if a frame may not begin with these two bytes now."""
        opcode = first & _OPCODE
        reason = ""
        if first & _RESERVED:
            reason = "reserved bits set"
        elif opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            reason = "unknown opcode"
        elif second & _MASKED:
            reason = "masked frame"
        elif opcode >= CLOSE:
            if not first & _FIN:
                reason = "fragmented control frame"
            elif second & _LENGTH > _LONGEST_CONTROL:
                reason = "control frame too long"
        elif opcode == CONTINUATION:
            if not self._opcode:
                reason = "continuation without a start"
        elif self._opcode:
            reason = "data frame inside a fragmented message"
        if reason:
            raise ViolationError(PROTOCOL_ERROR, reason)

    def _join(self, opcode: int, final: bool, payload: bytes) -> Message | None:
        """Add a data frame to its message; return the message when this was its last."""
        if not final:
            self._opcode = self._opcode or opcode
            self._fragments.append(payload)
            self._fragments_size += len(payload)
            return None
        if self._opcode:
            opcode = self._opcode
            payload = b"".join([*self._fragments, payload])
            self._opcode = self._fragments_size = 0
            self._fragments.clear()
        if opcode == TEXT:
            _require_utf8(payload)
        self.messages += 1
        return Message(opcode, payload)


def _require_utf8(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        raise ViolationError(INVALID_DATA, "invalid UTF-8") from None


def _close_event(payload: bytes) -> Event:
    """Return the CLOSE event of a close frame's payload (RFC 6455, sections 5.5.1 and 7.4; IANA's registry)."""
    if not payload:
        return Event(EventKind.CLOSE, b"", NO_CLOSE_CODE)
    if len(payload) == 1:
        raise ViolationError(PROTOCOL_ERROR, "malformed close payload")
    code = int.from_bytes(payload[:2], "big")
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ViolationError(PROTOCOL_ERROR, "invalid close code")
    _require_utf8(payload[2:])
    return Event(EventKind.CLOSE, payload[2:], code)


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return one unmasked, unfragmented frame, as servers send them (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x80 | opcode, length) + payload
    if length < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, length) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, length) + payload
