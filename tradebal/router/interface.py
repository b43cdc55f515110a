"""What a router takes and gives, so that the C core, its Python twin and their users agree on it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tradebal.config import Feed
from tradebal.stream.framing import Framing

MAX_MESSAGE = Feed.max_message
"""Longest message in bytes that a router accepts unless told otherwise."""

MAX_DEPTH = 1024
"""Deepest nesting of objects and arrays that is followed inside a message."""

MAX_PINS = 1 << 14
"""Most symbols that are placed by hand."""

MAX_PINS_SIZE = 1 << 20
"""Most bytes of these symbols in all."""

SAMPLE_SIZE = 8 << 10
"""Longest `Sample.trades`, in bytes."""

SKIPPED_SAMPLE_SIZE = 256
"""Longest `Router.skipped_sample`, in bytes."""

BATCH_TRADES = 8192
"""Trades between two entries of `Router.batches` (the founding system's figure)."""


REJECT_REASONS = (
    "unterminated value",
    "mismatched bracket",
    "nested too deeply",
    "expected a value",
    "expected a comma or the end of the array",
    "text after the end",
    "malformed object",
    "no usable symbol",
    "raw newline in a string",
    "trade too long",
)
"""Every `Event.reason` of a REJECT."""


@dataclass(frozen=True)
class Rule:
    """Which objects of a message are trades, and under which key their symbol stands.

    A message is an object or an array of objects. An object is a trade if its first `marker_key` is a string
    among `marker_values`; its symbol is the string under its first `symbol_key`. With `container`, the marker
    stands in the message's (or array element's) own object, and the trades are the objects of the array that it
    holds under that key.

    An object whose first `marker_key` is another string is skipped and counted if `notice_values` is given and doesn't
    hold that string. Without `notice_values` every object that isn't a trade is an event, which costs Python's time.
    """

    marker_key: bytes
    marker_values: tuple[bytes, ...]
    symbol_key: bytes
    container: bytes | None = None
    notice_values: tuple[bytes, ...] | None = None
    """Markers of objects that the owner needs to see, such as the provider's status messages; None: it needs all."""


class Status(enum.IntEnum):
    """Why `Router.process` or `Router.pump` came back."""

    INPUT = 0
    """Every buffered byte is used; more input is needed."""
    EVENT = 1
    """`Router.event` holds something that Python decides on; call again to go on behind it."""
    BLOCKED = 2
    """Shard `Router.blocked` has no room left; take its `pending` bytes, report `sent`, call again."""
    BUDGET = 3
    """The time or the batch list given to this call is used up; there may be more to do at once."""
    CLOSED = 4
    """The peer closed its side of the connection (recv gave 0 bytes)."""
    ERROR = 5
    """recv failed; `Router.errno` says how."""


class EventKind(enum.IntEnum):
    """What an `Event` is about."""

    MESSAGE = 0
    """An object that is neither a trade nor skipped, or a whole message that is neither object nor array.

    `code` is the message's opcode.
    """
    PING = 1
    PONG = 2
    CLOSE = 3
    """Close frame: `code` is 1005 where it carried none, `data` its reason. Nothing is read after it."""
    REJECT = 4
    """Bytes that could not be routed: malformed JSON, or a trade without a usable symbol; `reason` says which."""
    VIOLATION = 5
    """The peer broke RFC 6455: close with `code` and reconnect. Nothing is read after it."""


class Event(NamedTuple):
    """One thing that is not a routable trade."""

    kind: EventKind
    data: bytes
    code: int = 0
    reason: str = ""


class Counters(NamedTuple):
    """Totals since the router was made."""

    reads: int
    """recv calls that gave bytes, and calls of `received`."""
    bytes: int
    """Bytes received."""
    frames: int
    """Complete websocket frames, control frames included."""
    messages: int
    """Complete data messages."""
    trades: int
    """Trades staged for a shard."""
    trade_bytes: int
    """Bytes of those trades, without framing."""
    rejects: int
    """Events of kind REJECT."""
    writes: int
    """write calls that took bytes."""
    written: int
    """Bytes that the outputs took."""
    skipped: int
    """Objects skipped, since their marker is neither a trade's nor one of `Rule.notice_values`."""


class ShardCounters(NamedTuple):
    """Totals of one shard since the router was made."""

    trades: int
    bytes: int
    """Bytes of those trades, without framing."""


class Batch(NamedTuple):
    """What one run of `BATCH_TRADES` trades took."""

    time_ns: int
    """CLOCK_REALTIME when its last trade was staged."""
    elapsed_ns: int
    """CLOCK_MONOTONIC since the batch before (or since the connection's reset); at least 1."""
    reads: int
    frames: int
    bytes: int
    """Bytes received during the batch; 0 while it comes from what was already buffered."""
    connection_trades: int
    total_trades: int
    total_bytes: int


class Sample(NamedTuple):
    """Some of the trades that were routed, as they came."""

    time_ns: int
    """CLOCK_REALTIME when the first of them was staged."""
    shard: int
    """Where the first of them went."""
    behind: int
    """Bytes of trades, framing included, that were staged for that shard from it on until now."""
    trades: bytes
    """Their JSON texts, separated by commas."""


class Router(Protocol):
    """Bytes of one websocket connection in; bytes for each shard, and events, out.

    Sans-I/O use: fill `space()`, call `received`, then `process` until it says INPUT; take `pending(shard)`,
    report `sent`. Use with descriptors: give each shard its FIFO by `set_output`, and call `pump` when the socket
    is readable. Both may be mixed: only the caller's calls move bytes.

    `Router(shards, rule, framing=…, pins=…, max_message=…)`; with `rule=None` no message is looked into: each data
    message is one MESSAGE event (for recording, and for conformance tests).
    """

    kind: str
    """"native" or "python"."""
    errno: int
    blocked: int

    def space(self) -> memoryview:
        """Writable view of the free part of the receive buffer; never empty after INPUT. Valid until the next call."""

    def received(self, count: int) -> None:
        """Say that `count` bytes were put at the start of `space()`."""

    def process(self) -> Status:
        """Use buffered bytes until more are needed, an event comes up, or a shard has no room. No I/O."""

    def pump(self, fd: int, budget_ns: int, wake: int = -1) -> Status:
        """Receive from the non-blocking socket `fd` (-1: only use what is buffered), process, and write to the outputs.

        Everything staged for a shard that takes bytes has been written when it returns, and before it waits. INPUT
        means that the socket is drained (or fd is -1). With `wake`, a drained socket is waited for: until `budget_ns`
        (counted from the call) is used up, an output stalls, or the descriptor `wake` is readable.
        """

    def event(self) -> Event:
        """The event at which `process` or `pump` stopped; hand it out once."""

    def set_output(self, shard: int, fd: int) -> None:
        """Write the shard's bytes to the non-blocking `fd`; -1: to none, so that they wait in `pending`.

        Clears the shard's stall.
        """

    def set_pins(self, pins: Mapping[bytes, int]) -> None:
        """Place these symbols by hand from the next trade on, and no others; what is staged stays where it is.

        ValueError, and no change, where a shard doesn't exist or there are more than MAX_PINS or MAX_PINS_SIZE.
        """

    def flush(self) -> None:
        """Write what is staged to every output that isn't stalled."""

    def stalled(self) -> list[int]:
        """Shards whose output took less than was given (EAGAIN or a short write) since the last call.

        A stalled shard's output isn't tried again before `set_output` is called for it.
        """

    def pending(self, shard: int) -> memoryview:
        """Staged bytes of the shard that nobody took yet. Valid until the next call."""

    def torn(self, shard: int) -> int:
        """How many of the first `pending` bytes are the rest of a record whose beginning was already taken."""

    def sent(self, shard: int, count: int) -> None:
        """Say that the first `count` bytes of `pending(shard)` were taken."""

    def inject(self, shard: int, record: bytes) -> bool:
        """Stage a record of our own, framed as trades are; False if there is no room for it now.

        ValueError: it is longer than MAX_RECORD, or holds a newline that would end it.
        """

    def reset(self) -> None:
        """Begin a new connection: forget received bytes and protocol state; staged output and totals stay."""

    def counters(self) -> Counters:
        """Totals of the router."""

    def shard_counters(self) -> list[ShardCounters]:
        """Totals of each shard, by number."""

    def sample(self) -> Sample | None:
        """The first trade routed since the last call, and those behind it in its message up to SAMPLE_SIZE; or None.

        Longer trades are no samples. The first call gives the first trade of all.
        """

    def skipped_sample(self) -> bytes:
        """The first SKIPPED_SAMPLE_SIZE bytes of the first object skipped since the last call; empty if none was."""

    def batches(self) -> list[Batch]:
        """Batches completed since the last call, oldest first (at most 1024 wait; pump stops before one is lost)."""


class RouterFactory(Protocol):
    """How either implementation is made."""

    def __call__(
        self,
        shards: int,
        rule: Rule | None,
        *,
        framing: Framing = "ndjson",
        pins: Mapping[bytes, int] | None = None,
        max_message: int = MAX_MESSAGE,
    ) -> Router:
        """Make a router; ValueError where an argument is out of its range."""
