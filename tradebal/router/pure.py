"""The router in plain Python: the readable specification of the C core, and what runs where that can't be built."""

from __future__ import annotations

import functools
import os
import select
import time
from collections.abc import Iterator, Mapping

from tradebal.router import scan
from tradebal.router.frames import FrameReader, Message
from tradebal.router.interface import (
    BATCH_TRADES,
    MAX_MESSAGE,
    SAMPLE_SIZE,
    SKIPPED_SAMPLE_SIZE,
    Batch,
    Counters,
    Event,
    EventKind,
    Rule,
    Sample,
    ShardCounters,
    Status,
)
from tradebal.router.stage import THRESHOLD, Stage
from tradebal.router.symbols import check_pins, shard_of
from tradebal.stream.framing import MAX_RECORD, OVERHEAD, Framing

MAX_SHARDS = 1024

BATCHES_KEPT = 1024
"""Batches that wait for `batches()` before the router stops."""

TOO_LONG = "trade too long"
RAW_NEWLINE = "raw newline in a string"

_SYMBOLS_REMEMBERED = 1 << 16


class Router:
    """Implements `tradebal.router.interface.Router`."""

    kind = "python"

    def __init__(
        self,
        shards: int,
        rule: Rule | None,
        *,
        framing: Framing = "ndjson",
        pins: Mapping[bytes, int] | None = None,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        if not 1 <= shards <= MAX_SHARDS:
            raise ValueError(f"shards is {shards}, must be 1 to {MAX_SHARDS}")
        if framing not in ("ndjson", "length32"):
            raise ValueError(f"framing is {framing!r}, must be 'ndjson' or 'length32'")
        if max_message < 1:
            raise ValueError(f"max_message is {max_message}, must be at least 1")
        self.errno = 0
        self.blocked = -1
        self._rule = rule
        self._framing = framing
        self._stages = [Stage(framing) for _ in range(shards)]
        self.set_pins(pins or {})
        self._frames = FrameReader(max_message)
        self._event: Event | None = None
        self._rejects = 0
        self._skipped = 0
        self._skipped_sample = b""
        self._trades = 0
        self._trade_bytes = 0
        self._writing = False  # in pump: a stage that fills up may be written
        self._stalled: set[int] = set()
        self._batches: list[Batch] = []
        self._sample: tuple[int, int, int] | None = None  # time, shard, bytes that were staged for it before
        self._sampled: list[bytes] = []
        self._sampling = False  # what follows in the message at hand still goes into the sample
        self._sample_left = 0
        self._rest_of_message: Iterator[Event | Status] = iter(())
        self._connection_trades = 0
        self._begin_batch(time.monotonic_ns())

    def set_pins(self, pins: Mapping[bytes, int]) -> None:
        """Place these symbols by hand, and no others."""
        shards = len(self._stages)
        check_pins(pins, shards)
        pins = dict(pins)
        self._shard_of = functools.lru_cache(_SYMBOLS_REMEMBERED)(lambda symbol: shard_of(symbol, shards, pins))

    def space(self) -> memoryview:
        """Return the writable free part of the receive buffer."""
        return self._frames.space()

    def received(self, count: int) -> None:
        """Take the first `count` bytes of `space()` as received."""
        self._frames.received(count)

    def process(self) -> Status:
        """Use buffered bytes until more are needed, an event comes up, or a shard has no room."""
        self._event = None
        while True:
            for outcome in self._rest_of_message:
                return self._stop_at(outcome)
            item = self._frames.next()
            if item is None:
                return Status.INPUT
            if isinstance(item, Event):
                return self._stop_at(item)
            self._rest_of_message = self._route(item)

    def pump(self, fd: int, budget_ns: int, wake: int = -1) -> Status:
        """Receive from `fd`, process, and write, until one of these has to wait or the time is used up.

        With `wake`, wait for more to receive unless that descriptor is readable or an output stalled.
        """
        end = time.monotonic_ns() + budget_ns
        received = False
        while True:
            self._writing = True
            try:
                status = self.process()
            finally:
                self._writing = False
            self.flush()
            if status is not Status.INPUT or fd < 0 or self._frames.closed:
                return status
            if received and time.monotonic_ns() > end:
                return Status.BUDGET
            if received and wake >= 0 and (self._stalled or not _wait_for_more(fd, wake, end)):
                return Status.INPUT
            try:
                count = os.readv(fd, [self.space()])
            except BlockingIOError:
                return Status.INPUT
            except OSError as error:
                self.errno = error.errno or 0
                return Status.ERROR
            if not count:
                return Status.CLOSED
            self.received(count)
            received = True

    def event(self) -> Event:
        """Hand out the event at which `process` or `pump` stopped; RuntimeError if there is none."""
        if self._event is None:
            raise RuntimeError("the router didn't stop at an event, or the event was taken already")
        event, self._event = self._event, None
        return event

    def set_output(self, shard: int, fd: int) -> None:
        """Write the shard's bytes to `fd` from now on (-1: to none), and clear its stall."""
        stage = self._stage(shard)
        stage.fd = fd
        stage.stalled = False
        self._stalled.discard(shard)

    def flush(self) -> None:
        """Write what is staged to every output that isn't stalled."""
        for shard, stage in enumerate(self._stages):
            self._write(shard, stage)

    def stalled(self) -> list[int]:
        """Return the shards that stalled since the last call, in ascending order."""
        shards = sorted(self._stalled)
        self._stalled.clear()
        return shards

    def pending(self, shard: int) -> memoryview:
        """Return the staged bytes of the shard that nobody took yet."""
        return self._stage(shard).pending()

    def torn(self, shard: int) -> int:
        """Return how many of the first `pending` bytes are the rest of a record whose beginning was taken."""
        return self._stage(shard).torn()

    def sent(self, shard: int, count: int) -> None:
        """Take the first `count` bytes of `pending(shard)` as sent."""
        self._stage(shard).take(count)

    def inject(self, shard: int, record: bytes) -> bool:
        """Stage a record of the caller's own; False if there is no room for it now."""
        if len(record) > MAX_RECORD:
            raise ValueError(f"the record has {len(record)} bytes, more than {MAX_RECORD}")
        if self._framing == "ndjson" and b"\n" in record:
            raise ValueError("the record holds a newline, which would end it")
        return self._stage(shard).append(record)

    def reset(self) -> None:
        """Begin a new connection; staged output and totals stay."""
        self._frames.reset()
        self._event = None
        self._rest_of_message = iter(())
        self._connection_trades = 0
        self._begin_batch(time.monotonic_ns())

    def counters(self) -> Counters:
        """Return the totals of the router."""
        return Counters(
            reads=self._frames.reads,
            bytes=self._frames.bytes,
            frames=self._frames.frames,
            messages=self._frames.messages,
            trades=self._trades,
            trade_bytes=self._trade_bytes,
            rejects=self._rejects,
            writes=sum(stage.writes for stage in self._stages),
            written=sum(stage.written for stage in self._stages),
            skipped=self._skipped,
        )

    def shard_counters(self) -> list[ShardCounters]:
        """Return the totals of each shard."""
        return [ShardCounters(stage.trades, stage.bytes) for stage in self._stages]

    def sample(self) -> Sample | None:
        """Return the first trade routed since the last call, and some behind it; None if there is none."""
        began, self._sample = self._sample, None
        self._sampling = False
        if began is None:
            return None
        time_ns, shard, before = began
        return Sample(time_ns, shard, self._staged(shard) - before, b",".join(self._sampled))

    def skipped_sample(self) -> bytes:
        """Return the beginning of the first object skipped since the last call; empty if none was."""
        sample, self._skipped_sample = self._skipped_sample, b""
        return sample

    def batches(self) -> list[Batch]:
        """Return the batches completed since the last call, oldest first."""
        batches, self._batches = self._batches, []
        return batches

    def _stop_at(self, outcome: Event | Status) -> Status:
        if isinstance(outcome, Status):
            return outcome
        self._event = outcome
        self._rejects += outcome.kind is EventKind.REJECT
        return Status.EVENT

    def _route(self, message: Message) -> Iterator[Event | Status]:
        """Stage a message's trades; yield where the caller has to act before it can go on."""
        self._sampling = False
        if self._rule is None:
            yield Event(EventKind.MESSAGE, message.data, message.opcode)
            return
        for data, symbol, reason, skipped in scan.findings(message.data, self._rule):
            if reason:
                yield Event(EventKind.REJECT, data, reason=reason)
                continue
            if skipped:
                self._skipped += 1
                self._skipped_sample = self._skipped_sample or data[:SKIPPED_SAMPLE_SIZE]
                continue
            if not symbol:
                yield Event(EventKind.MESSAGE, data, message.opcode)
                continue
            if len(data) > MAX_RECORD:
                yield Event(EventKind.REJECT, data, reason=TOO_LONG)
                continue
            record: bytes | None = data
            if b"\n" in data and self._framing == "ndjson":
                record = scan.on_one_line(data)
            if record is None:
                yield Event(EventKind.REJECT, data, reason=RAW_NEWLINE)
                continue
            while len(self._batches) >= BATCHES_KEPT and (self._connection_trades + 1) % BATCH_TRADES == 0:
                yield Status.BUDGET
            shard = self._shard_of(symbol)
            while not self._place(shard, record):
                self.blocked = shard
                yield Status.BLOCKED
            self._take_sample(shard, data)

    def _place(self, shard: int, record: bytes) -> bool:
        """Stage a trade and count it; False if the shard has no room."""
        stage = self._stages[shard]
        if not stage.append(record):
            if not self._writing:
                return False
            self._write(shard, stage)
            if not stage.append(record):
                return False
        stage.trades += 1
        stage.bytes += len(record)
        self._trades += 1
        self._trade_bytes += len(record)
        self._connection_trades += 1
        if self._connection_trades % BATCH_TRADES == 0:
            self._close_batch()
        if self._writing and len(stage) > THRESHOLD:
            self._write(shard, stage)
        return True

    def _take_sample(self, shard: int, trade: bytes) -> None:
        """Keep a trade that was just staged, if it belongs into the sample."""
        if self._sample is None:
            if len(trade) <= SAMPLE_SIZE:
                before = self._staged(shard) - len(trade) - OVERHEAD[self._framing]
                self._sample = (time.time_ns(), shard, before)
                self._sampled = [trade]
                self._sample_left = SAMPLE_SIZE - len(trade)
                self._sampling = True
        elif self._sampling:
            self._sample_left -= len(b",") + len(trade)
            self._sampling = self._sample_left >= 0
            if self._sampling:
                self._sampled.append(trade)

    def _staged(self, shard: int) -> int:
        stage = self._stages[shard]
        return stage.bytes + stage.trades * OVERHEAD[self._framing]

    def _write(self, shard: int, stage: Stage) -> None:
        if stage.writable:
            stage.write()
            if stage.stalled:
                self._stalled.add(shard)

    def _stage(self, shard: int) -> Stage:
        if not 0 <= shard < len(self._stages):
            raise IndexError(f"shard {shard} of {len(self._stages)}")
        return self._stages[shard]

    def _begin_batch(self, now_ns: int) -> None:
        self._batch_began_ns = now_ns
        self._batch_began = self._frames.reads, self._frames.frames, self._frames.bytes

    def _close_batch(self) -> None:
        now_ns = time.monotonic_ns()
        reads, frames, received = self._batch_began
        self._batches.append(
            Batch(
                time_ns=time.time_ns(),
                elapsed_ns=max(1, now_ns - self._batch_began_ns),
                reads=self._frames.reads - reads,
                frames=self._frames.frames - frames,
                bytes=self._frames.bytes - received,
                connection_trades=self._connection_trades,
                total_trades=self._trades,
                total_bytes=self._frames.bytes,
            )
        )
        self._begin_batch(now_ns)


def _wait_for_more(fd: int, wake: int, end_ns: int) -> bool:
    """Wait until there is something to receive; False when the time is over or `wake` is readable."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    poller.register(wake, select.POLLIN)
    ready = [ready for ready, _ in poller.poll(max(0.0, (end_ns - time.monotonic_ns()) / 1e6))]
    return ready == [fd]
