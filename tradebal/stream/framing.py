"""How records stand one behind the other in a FIFO: the one place that knows both framings.

- `ndjson`: the record, then a line feed. Empty lines are no records.
- `length32`: the record's length in bytes as 4-byte little-endian unsigned integer, then the record (what
  mattsta/trade-balancer writes).
"""

from __future__ import annotations

import struct
from typing import Literal

Framing = Literal["ndjson", "length32"]

MAX_RECORD = 1 << 20
"""Longest record in a stream, in bytes; a longer trade is rejected."""

_LENGTH = struct.Struct("<I")

OVERHEAD: dict[Framing, int] = {"ndjson": 1, "length32": _LENGTH.size}
"""Bytes that framing adds to a record."""


class FramingError(ValueError):
    """No record can begin at `offset` of the data: a length32 header there holds an impossible length."""

    def __init__(self, offset: int, length: int) -> None:
        super().__init__(f"record of {length} bytes announced at offset {offset}, allowed are 1 to {MAX_RECORD}")
        self.offset = offset


def encode(record: bytes, framing: Framing) -> bytes:
    """Return the record framed; ValueError if it is empty, longer than MAX_RECORD, or (ndjson) holds a line feed."""
    if not 0 < len(record) <= MAX_RECORD:
        raise ValueError(f"a record has 1 to {MAX_RECORD} bytes, this one has {len(record)}")
    if framing == "length32":
        return _LENGTH.pack(len(record)) + record
    if b"\n" in record:
        raise ValueError("a line feed inside a record would cut it in two")
    return record + b"\n"


def split(data: bytes, framing: Framing) -> tuple[int, int]:
    """Return the length in bytes of the prefix that holds whole records, and how many they are.

    Raises FramingError (length32) where an announced length is impossible; every record before it is whole.
    """
    if framing == "ndjson":
        return data.rfind(b"\n") + 1, len(records(data, framing))
    spans = _spans(data)
    return (spans[-1][1] if spans else 0), len(spans)


def records(data: bytes, framing: Framing) -> list[bytes]:
    """Return the whole records of the data without their framing; an incomplete last one is left out.

    Raises FramingError (length32) as `split` does.
    """
    if framing == "length32":
        return [data[start:end] for start, end in _spans(data)]
    # Counting line feeds alone would be no faster: CPython 3.11 counts one byte at a time but splits by memchr.
    lines = data.split(b"\n")
    lines.pop()
    return [line for line in lines if line] if b"" in lines else lines


def frames(data: bytes, framing: Framing) -> list[tuple[bytes, int]]:
    """Return the records as `records` does, each with the offset at which its frame ends."""
    if framing == "length32":
        return [(data[start:end], end) for start, end in _spans(data)]
    end = 0
    found = []
    for line in data.split(b"\n")[:-1]:
        end += len(line) + 1
        if line:
            found.append((line, end))
    return found


def resync(data: bytes, start: int) -> tuple[int, bool]:
    """Return the first offset at or behind `start` where a length32 record may begin, and whether that is sure.

    For a stream that may be cut or damaged before `start`. A record is known by what stands around it: a possible
    length, `{` as its first byte and `}` as its last. It is not sure where the data ends before all of that was seen.
    """
    size = len(data)
    brace = data.find(b"{", start + 4)
    while brace >= 0:
        (length,) = _LENGTH.unpack_from(data, brace - 4)
        if 2 <= length <= MAX_RECORD:
            last = brace + length - 1
            if last >= size:
                return brace - 4, False
            if data[last] == ord("}"):
                return brace - 4, True
        brace = data.find(b"{", brace + 1)
    return max(start, size - 4), False


def mend(framing: Framing) -> bytes | None:
    """Return what ends a record of which only the beginning was written, so that another may follow it.

    None: nothing does, since the reader waits for as many bytes as were announced.
    """
    return b"\n" if framing == "ndjson" else None  # an empty line is no record, so it harms none that is whole


def is_whole(data: bytes, framing: Framing) -> bool:
    """Whether the data, which begins where a record does, ends where one does, and holds any."""
    try:
        return 0 < split(data, framing)[0] == len(data)
    except FramingError:
        return False


def torn_end(data: bytes, framing: Framing) -> int:
    """Return how many bytes at the end are of an incomplete record. The data may begin within a record.

    0 also where no record's beginning can be told in it.
    """
    if framing == "ndjson":
        return len(data) - (data.rfind(b"\n") + 1)
    start = 0
    while True:
        start, sure = resync(data, start)
        if not sure:
            return 0
        try:
            return len(data) - start - split(data[start:], framing)[0]
        except FramingError as error:
            start += max(1, error.offset)


def _spans(data: bytes) -> list[tuple[int, int]]:
    """Where each whole length32 record begins and ends."""
    unpack = _LENGTH.unpack_from
    spans = []
    offset, size = 0, len(data)
    while offset + 4 <= size:
        (length,) = unpack(data, offset)
        if not 0 < length <= MAX_RECORD:
            raise FramingError(offset, length)
        end = offset + 4 + length
        if end > size:
            break
        spans.append((offset + 4, end))
        offset = end
    return spans
