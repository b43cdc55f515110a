"""The router in C, by ctypes: so it needs no Python headers to be built, and one binary serves every Python."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping
from ctypes import POINTER, Array, Structure, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from tradebal.router.interface import (
    MAX_MESSAGE,
    Batch,
    Counters,
    Event,
    EventKind,
    Rule,
    Sample,
    ShardCounters,
    Status,
)
from tradebal.router.symbols import check_pins
from tradebal.stream.framing import MAX_RECORD, Framing

_ABI = 5
_MAX_SHARDS = 1024
_BATCHES_KEPT = 1024
_WINDOW = 32 << 10
_NDJSON, _LENGTH32 = 0, 1
_NOWHERE = c_size_t(-1).value

_MAP_NORESERVE = 0x4000
"""Linux's value on the machines that this runs on; Python names it only from 3.13 on."""

_LARGEST_MESSAGE = 1 << 46
"""Address space for more can't be had anyway, and sums stay far from overflow."""


class _Bytes(Structure):
    _fields_ = (("data", c_char_p), ("size", c_size_t))


class _Options(Structure):
    _fields_ = (
        ("shards", c_uint32),
        ("framing", c_int),
        ("max_message", c_uint64),
        ("has_rule", c_bool),
        ("has_container", c_bool),
        ("marker_key", _Bytes),
        ("symbol_key", _Bytes),
        ("container", _Bytes),
        ("marker_values", POINTER(_Bytes)),
        ("marker_values_count", c_size_t),
        ("has_notices", c_bool),
        ("notice_values", POINTER(_Bytes)),
        ("notice_values_count", c_size_t),
        ("pin_symbols", POINTER(_Bytes)),
        ("pin_shards", POINTER(c_uint32)),
        ("pins_count", c_size_t),
    )


class _Event(Structure):
    _fields_ = (("offset", c_uint64), ("size", c_uint64), ("kind", c_int), ("code", c_int), ("reason", c_int))


class _Counters(Structure):
    _fields_ = tuple((name, c_uint64) for name in Counters._fields)


class _Batch(Structure):
    _fields_ = tuple((name, c_uint64) for name in Batch._fields)


class _Index(Structure):
    _fields_ = (
        ("count", c_size_t),
        ("seen", c_size_t),
        ("newline_at", c_size_t),
        ("backslash_at", c_size_t),
        ("non_ascii", c_bool),
    )


_SIZE = POINTER(c_uint64)
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "size": (c_uint64, (POINTER(_Options),)),
    "init": (None, (c_void_p, c_uint64, POINTER(_Options))),
    "reset": (None, (c_void_p,)),
    "space": (c_uint64, (c_void_p, _SIZE)),
    "room": (c_uint64, (c_void_p,)),
    "received": (None, (c_void_p, c_uint64)),
    "process": (c_int, (c_void_p,)),
    "pump": (c_int, (c_void_p, c_int, c_int64, c_int, POINTER(c_int))),
    "blocked": (c_uint32, (c_void_p,)),
    "event": (None, (c_void_p, POINTER(_Event))),
    "reason": (c_char_p, (c_int,)),
    "set_output": (None, (c_void_p, c_uint32, c_int)),
    "set_pins": (None, (c_void_p, POINTER(_Bytes), POINTER(c_uint32), c_size_t)),
    "flush": (None, (c_void_p,)),
    "stalled": (c_uint32, (c_void_p, POINTER(c_uint32))),
    "pending": (c_uint64, (c_void_p, c_uint32, _SIZE)),
    "torn": (c_uint64, (c_void_p, c_uint32)),
    "sent": (None, (c_void_p, c_uint32, c_uint64)),
    "inject": (c_bool, (c_void_p, c_uint32, c_char_p, c_uint64)),
    "counters": (None, (c_void_p, POINTER(_Counters))),
    "shard_counters": (None, (c_void_p, _SIZE)),
    "batches": (c_uint32, (c_void_p, POINTER(_Batch))),
    "sample": (c_uint64, (c_void_p, _SIZE)),
    "skipped_sample": (c_uint64, (c_void_p, _SIZE)),
    "variant": (c_char_p, (c_size_t,)),
    "variant_in_use": (c_char_p, ()),
    "use_variant": (c_bool, (c_char_p,)),
    "scan": (c_uint64, (c_void_p, c_uint64, POINTER(_Index), POINTER(c_uint32), POINTER(c_int))),
    "utf8_valid": (c_bool, (c_void_p, c_uint64)),
}


def _load() -> ctypes.CDLL:
    """Load the library that setuptools built beside this file; ImportError if there is none, or another version's."""
    candidates = [Path(__file__).with_name("_corelib" + suffix) for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in candidates if path.exists()), None)
    if path is None:
        raise ImportError(f"no compiled core beside {__file__}")
    try:
        # CDLL, not PyDLL: other threads run while a call lasts.
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"{path}: {error}") from None
    if library.tb_abi() != _ABI:
        raise ImportError(f"{path} belongs to another version of tradebal: build it again")
    for name, (result, arguments) in _FUNCTIONS.items():
        function = library["tb_" + name]
        function.restype, function.argtypes = result, arguments
        setattr(library, name, function)
    return library


_lib = _load()


class Router:
    """The router of `tradebal.router.interface`, by the C core.

    All its state is one block of memory; views that it gives keep that block alive. A call while another thread is in
    `process`, `pump` or `flush` is a RuntimeError.
    """

    kind = "native"

    def __init__(
        self,
        shards: int,
        rule: Rule | None,
        *,
        framing: Framing = "ndjson",
        pins: Mapping[bytes, int] | None = None,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        """Make a router; ValueError where an argument is out of its range, MemoryError where there is no room."""
        if not 1 <= shards <= _MAX_SHARDS:
            raise ValueError(f"shards is {shards}, must be 1 to {_MAX_SHARDS}")
        if framing not in ("ndjson", "length32"):
            raise ValueError(f"framing is {framing!r}, must be 'ndjson' or 'length32'")
        if max_message < 1:
            raise ValueError(f"max_message is {max_message}, must be at least 1")
        if max_message > _LARGEST_MESSAGE:
            raise MemoryError
        options = _Options(
            shards=shards, framing=_LENGTH32 if framing == "length32" else _NDJSON, max_message=max_message
        )
        _fill_rule(options, rule)
        options.pin_symbols, options.pin_shards, options.pins_count = _pin_arrays(pins or {}, shards)
        size = _lib.size(options)
        try:
            self._block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        except OSError:
            raise MemoryError(f"no address space for {size} bytes") from None
        self._view = memoryview(self._block)
        self._core = ctypes.addressof(ctypes.c_char.from_buffer(self._block))
        _lib.init(self._core, size, options)
        self._shards = shards
        self._ndjson = framing == "ndjson"
        self._busy = False
        self._event: Event | None = None
        self._size = c_uint64()
        self._numbers = (c_uint32 * shards)()
        self._totals = _Counters()
        self._shard_totals = (c_uint64 * (2 * shards))()
        self._sample = (c_uint64 * 4)()
        self._batches = (_Batch * _BATCHES_KEPT)()
        self._error = c_int()
        self.blocked = -1
        self.errno = 0

    def space(self) -> memoryview:
        """See `tradebal.router.interface.Router`, here and below."""
        offset = _lib.space(self._idle(), self._size)
        return self._view[offset : offset + self._size.value]

    def received(self, count: int) -> None:
        """Raise ValueError if there was no space for so many."""
        core = self._idle()
        room = _lib.room(core)
        if not 0 <= count <= room:
            raise ValueError(f"received {count} bytes into a space of {room}")
        _lib.received(core, count)

    def process(self) -> Status:
        """No I/O."""
        core = self._idle()
        self._event = None
        self._busy = True
        try:
            status = _lib.process(core)
        finally:
            self._busy = False
        return self._outcome(status)

    def pump(self, fd: int, budget_ns: int, wake: int = -1) -> Status:
        """All the work of one turn, without the interpreter's lock."""
        core = self._idle()
        self._event = None
        self._busy = True
        try:
            status = _lib.pump(core, max(fd, -1), budget_ns, wake, self._error)
        finally:
            self._busy = False
        self.errno = self._error.value
        return self._outcome(status)

    def event(self) -> Event:
        """Raise RuntimeError if there is none, or it was handed out already."""
        self._idle()
        event, self._event = self._event, None
        if event is None:
            raise RuntimeError("the router didn't stop at an event, or the event was taken already")
        return event

    def set_output(self, shard: int, fd: int) -> None:
        """Raise IndexError if there is no such shard, here and below."""
        _lib.set_output(self._idle(), self._number(shard), max(fd, -1))

    def set_pins(self, pins: Mapping[bytes, int]) -> None:
        """Raise ValueError where a pin is out of its range, or there are too many."""
        _lib.set_pins(self._idle(), *_pin_arrays(pins, self._shards))

    def flush(self) -> None:
        """Write, without the interpreter's lock."""
        core = self._idle()
        self._busy = True
        try:
            _lib.flush(core)
        finally:
            self._busy = False

    def stalled(self) -> list[int]:
        """In order of their numbers."""
        return self._numbers[: _lib.stalled(self._idle(), self._numbers)]

    def pending(self, shard: int) -> memoryview:
        """Read-only."""
        offset = _lib.pending(self._idle(), self._number(shard), self._size)
        return self._view[offset : offset + self._size.value].toreadonly()

    def torn(self, shard: int) -> int:
        """0 where `pending` begins with a whole record."""
        count: int = _lib.torn(self._idle(), self._number(shard))
        return count

    def sent(self, shard: int, count: int) -> None:
        """Raise ValueError if so many weren't pending."""
        core, number = self._idle(), self._number(shard)
        _lib.pending(core, number, self._size)
        if not 0 <= count <= self._size.value:
            raise ValueError(f"{count} bytes reported as sent, {self._size.value} are pending")
        _lib.sent(core, number, count)

    def inject(self, shard: int, record: bytes) -> bool:
        """Stage a record of the caller's own; False if there is no room for it now."""
        core, number = self._idle(), self._number(shard)
        if not isinstance(record, bytes):
            raise TypeError(f"record must be bytes, not {type(record).__name__}")
        if len(record) > MAX_RECORD:
            raise ValueError(f"the record has {len(record)} bytes, more than {MAX_RECORD}")
        if self._ndjson and b"\n" in record:
            raise ValueError("the record holds a newline, which would end it")
        done: bool = _lib.inject(core, number, record, len(record))
        return done

    def reset(self) -> None:
        """Totals stay."""
        self._event = None
        _lib.reset(self._idle())

    def counters(self) -> Counters:
        """All at the same moment."""
        totals = self._totals
        _lib.counters(self._idle(), totals)
        return Counters(*(getattr(totals, name) for name in Counters._fields))

    def shard_counters(self) -> list[ShardCounters]:
        """All at the same moment."""
        _lib.shard_counters(self._idle(), self._shard_totals)
        numbers = iter(self._shard_totals)
        return [ShardCounters(*pair) for pair in zip(numbers, numbers, strict=True)]

    def sample(self) -> Sample | None:
        """Each is handed out once."""
        if not (size := _lib.sample(self._idle(), self._sample)):
            return None
        time_ns, shard, behind, text = self._sample
        return Sample(time_ns, shard, behind, bytes(self._view[text : text + size]))

    def skipped_sample(self) -> bytes:
        """Each is handed out once."""
        size = _lib.skipped_sample(self._idle(), self._size)
        return bytes(self._view[self._size.value : self._size.value + size])

    def batches(self) -> list[Batch]:
        """Each is handed out once."""
        count = _lib.batches(self._idle(), self._batches)
        return [Batch(*(getattr(batch, name) for name in Batch._fields)) for batch in self._batches[:count]]

    def _idle(self) -> int:
        if self._busy:
            raise RuntimeError("the router is at work in another thread")
        return self._core

    def _number(self, shard: int) -> int:
        if not 0 <= shard < self._shards:
            raise IndexError(f"shard {shard} of {self._shards}")
        return shard

    def _outcome(self, number: int) -> Status:
        status = Status(number)
        if status is Status.EVENT:
            found = _Event()
            _lib.event(self._core, found)
            data = bytes(self._view[found.offset : found.offset + found.size])
            self._event = Event(EventKind(found.kind), data, found.code, _lib.reason(found.reason).decode())
        elif status is Status.BLOCKED:
            self.blocked = _lib.blocked(self._core)
        return status


def variants() -> list[str]:
    """Names of the wide loops that this machine can run, best first."""
    return [name.decode() for name in _names()]


def variant() -> str:
    """Name of the wide loops in use."""
    name: bytes = _lib.variant_in_use()
    return name.decode()


def use_variant(name: str) -> None:
    """Use these wide loops, in the whole process; ValueError if this machine can't."""
    if not _lib.use_variant(name.encode()):
        raise ValueError(f"this machine can't run the variant {name!r}")


def scan(text: bytes | memoryview) -> tuple[list[int], int, bool, int, int, str]:
    """Tell what the wide loops find in up to 32 KiB of text; for tests.

    Where brackets stand, how far was looked, whether there are bytes beyond ASCII, where the first line feed is (−1:
    nowhere); the length of the object or array at the start, or 0 and the reason.
    """
    index, reason = _Index(), c_int()
    brackets = (c_uint32 * (_WINDOW + 16))()
    span = _lib.scan(_address(text), min(len(text), _WINDOW), index, brackets, reason)
    found = "" if span else _lib.reason(reason.value).decode()
    newline = -1 if index.newline_at == _NOWHERE else index.newline_at
    return brackets[: index.count], index.seen, index.non_ascii, newline, span, found


def utf8_valid(text: bytes | memoryview) -> bool:
    """Whether bytes are valid UTF-8; for tests."""
    valid: bool = _lib.utf8_valid(_address(text), len(text))
    return valid


def _names() -> Iterator[bytes]:
    number = 0
    while (name := _lib.variant(number)) is not None:
        yield name
        number += 1


def _address(text: bytes | memoryview) -> Any:
    """What ctypes passes as the address of these very bytes, not of a copy."""
    if isinstance(text, bytes):
        return text
    return ctypes.byref(ctypes.c_char.from_buffer(text)) if len(text) else None


def _bytes(value: bytes, what: str) -> _Bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{what} must be bytes, not {type(value).__name__}")
    return _Bytes(value, len(value))


def _fill_rule(options: _Options, rule: Rule | None) -> None:
    if rule is None:
        return
    values = [_bytes(value, "a marker value") for value in rule.marker_values]
    options.has_rule = True
    options.marker_key = _bytes(rule.marker_key, "marker_key")
    options.symbol_key = _bytes(rule.symbol_key, "symbol_key")
    options.marker_values = (_Bytes * len(values))(*values)
    options.marker_values_count = len(values)
    if rule.notice_values is not None:
        notices = [_bytes(value, "a notice value") for value in rule.notice_values]
        options.has_notices = True
        options.notice_values = (_Bytes * len(notices))(*notices)
        options.notice_values_count = len(notices)
    if rule.container is not None:
        options.has_container = True
        options.container = _bytes(rule.container, "container")


def _pin_arrays(pins: Mapping[bytes, int], shards: int) -> tuple[Array[_Bytes], Array[c_uint32], int]:
    check_pins(pins, shards)
    count = len(pins)
    symbols = (_Bytes * count)(*(_bytes(symbol, "a pinned symbol") for symbol in pins))
    return symbols, (c_uint32 * count)(*pins.values()), count
