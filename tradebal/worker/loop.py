"""The worker's loop: FIFO to handler, over restarts of either side; what isn't handled stays in the FIFO."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from prometheus_client import CollectorRegistry

from tradebal.config import Config
from tradebal.errors import UserError
from tradebal.handlers.base import Context
from tradebal.monitoring.publish import Publisher
from tradebal.stream.batch import Batch, segments
from tradebal.stream.gap import Gap
from tradebal.stream.marks import MarkReader, path_of
from tradebal.systemd import events
from tradebal.systemd.log import Limited
from tradebal.systemd.notify import Notifier
from tradebal.upstream.profiles import resolve
from tradebal.wakeup import Wakeup
from tradebal.worker.buffer import RecordBuffer
from tradebal.worker.fifo import FifoReader
from tradebal.worker.loading import describe, load_handler
from tradebal.worker.series import WorkerSeries

_TICK = 1.0
"""Seconds between two calls of on_tick."""
_LOOK_AGAIN = 0.1
"""Seconds between two looks whether the balancer has made a new FIFO, while there is none or nobody writes to it."""
_DRAIN = 5.0
"""Seconds that a stopping worker goes on reading from a balancer that goes on writing."""
_FINISH = 2.0
"""Further seconds that it waits for the rest of a record whose beginning it has."""
_GC_THRESHOLDS = 100_000, 20, 20
"""For gc.set_threshold, whose default of 700 has the collector look at each decoded batch many times over."""
_SHOWN = 200
"""Bytes of a batch that a log line shows."""


class _HandlerFailedError(Exception):
    """The handler raised, and the configuration says to stop then."""


class Worker:
    """Reads one shard until it is told to stop."""

    def __init__(self, config: Config, shard: int) -> None:
        """Make the handler; UserError for a shard that isn't configured, or a handler that isn't right."""
        if not 0 <= shard < config.shards.count:
            raise UserError(
                f"there is no shard {shard}: [shards] count = {config.shards.count}, so shards are 0 to "
                f"{config.shards.count - 1}",
                hint="raise count (balancer and workers must have the same configuration), or take another number",
                code=2,
            )
        self._shard = shard
        self._spec = config.worker.handler
        self._stop_on_error = config.worker.on_error == "stop"
        self._kind = config.shards.framing
        self._publish_interval = config.metrics.interval
        self._log = logging.getLogger("tradebal.worker")
        self._failures = Limited(self._log, per_second=2)
        self._marks = MarkReader(path_of(config.shards.directory, shard))
        self._fifo = FifoReader(config.fifo(shard), config.worker.read_size, self._marks)
        self._buffer = RecordBuffer(self._kind)
        self._taken = 0  # bytes out of the FIFO that are in no piece of the buffer yet
        # Edge-triggered: while only a record's beginning is in the FIFO, it is readable and yet there is nothing to do.
        self._poll = select.epoll()
        self._said_waiting = False
        self._flowing = False  # whether anything was read since the FIFO was opened
        self._unseen = False  # whether there may be more in the FIFO than was looked at
        self._hung_up = False  # whether nobody has the FIFO open for writing any more
        self._last_read_ns = time.time_ns()
        self._wakeup: Wakeup | None = None  # readable once a signal came
        self._stop_at: float | None = None  # monotonic time at which draining ends
        self._next_tick = self._next_publish = 0.0
        registry = CollectorRegistry()
        unit = f"worker-{shard}"
        self._series = WorkerSeries(registry, unit, resolve(config.feed).time_key)
        self._publisher = Publisher(registry, config.metrics_directory, unit, {"shard": str(shard)})
        self._notifier = Notifier()
        context = Context(
            shard=shard,
            shards=config.shards.count,
            framing=self._kind,
            registry=registry,
            log=logging.getLogger("tradebal.handler"),
            keep_alive=self._keep_alive,
        )
        self._handler = load_handler(self._spec, config.worker.options, context)
        self._receipt: bytes | None = None  # of the batch that was committed last; not needed behind the first one

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; returns the exit status: 0, or 1 if the handler failed at the end."""
        with self._signals():
            try:
                # What was imported lives until the end, so the collector need not visit it again and again.
                gc.collect()
                gc.freeze()
                gc.set_threshold(*_GC_THRESHOLDS)
                self._log.info("worker started: shard=%d handler=%s pid=%d", self._shard, self._spec, os.getpid())
                status = self._work()
            finally:
                self._fifo.close()
                self._poll.close()
                self._notifier.close()
        self._log.info("worker stopped: shard=%d status=%d", self._shard, status)
        return status

    def _work(self) -> int:
        status = 0
        try:
            self._call("committed", self._ask_committed, b"")
            self._open()
            self._notifier.ready()
            while self._stop_at is None:
                self._step()
            self._drain()
        except _HandlerFailedError:
            status = 1
        finally:
            self._notifier.stopping()
            if not self._call("close", self._handler.close, b"", stop=False):
                status = 1
            self._failures.flush()
            self._count_late()
            self._publisher.publish()
        return status

    def _ask_committed(self) -> None:
        self._receipt = self._handler.committed()

    def _step(self) -> None:
        """Wait for whatever comes first (data, the end of the FIFO, a signal, the time), and deal with it."""
        self._keep_time()
        until = min(self._next_tick, self._next_publish) - time.monotonic()
        if not self._flowing:
            until = min(until, _LOOK_AGAIN)
        if self._notifier.interval is not None:
            until = min(until, self._notifier.interval)
        if not self._unseen and not self._hung_up:
            self._wait(until)
        if self._unseen:
            self._read()
        elif self._hung_up:
            self._end()
        elif self._fifo.fd < 0:
            self._open()
        elif self._fifo.replaced():
            # A worker that was stopped (SIGSTOP) for longer than its wait gets no event for what came meanwhile. Its
            # writer has a successor, so nothing more can come once the FIFO is seen to be empty.
            if self._fifo.unread() > self._buffer.left:
                self._unseen = True
            else:
                self._end()

    def _wait(self, seconds: float) -> None:
        """Wait for something new in the FIFO, its end, or a signal."""
        for fd, events_ in self._poll.poll(max(0.0, seconds)):
            if self._wakeup is not None and fd == self._wakeup.fileno():
                self._wakeup.take()
            else:
                self._unseen = True
                self._hung_up = bool(events_ & select.EPOLLHUP)

    def _open(self) -> None:
        if self._fifo.open():
            self._poll.register(self._fifo.fd, select.EPOLLIN | select.EPOLLET)
            self._said_waiting = False
            self._log.info(
                "opened: shard=%d fifo=%s reading=%d bytes at once", self._shard, self._fifo.path, self._fifo.most
            )
        elif not self._said_waiting:
            self._said_waiting = True
            self._log.info("waiting for the balancer to make the FIFO: shard=%d fifo=%s", self._shard, self._fifo.path)

    def _end(self) -> None:
        """Leave the FIFO, which is read to its end, and look for the one that follows."""
        self._poll.unregister(self._fifo.fd)
        self._fifo.close()
        if self._flowing:
            self._log.info("the balancer left the FIFO: shard=%d fifo=%s", self._shard, self._fifo.path)
        self._flowing = self._hung_up = False
        self._tear()
        self._open()

    def _tear(self) -> None:
        self._taken = 0
        if torn := self._buffer.clear():
            self._report_torn(torn)

    def _report_torn(self, size: int) -> None:
        self._log.warning(
            "torn record dropped: shard=%d bytes=%d", self._shard, size, extra=events.TORN(SHARD=self._shard)
        )
        self._pass_on(Gap("restart", self._last_read_ns, time.time_ns(), None))

    def _read(self) -> None:
        """Read once, hand on what is whole, and take it out of the FIFO only then."""
        fifo, buffer = self._fifo, self._buffer
        if not (data := fifo.peek()):
            self._unseen = False
            return
        self._flowing = True
        now_ns = time.time_ns()
        for piece in buffer.received(data, lambda: fifo.holds_more(len(data))):
            if isinstance(piece, int):
                self._report_torn(piece)
                self._done_with(piece)
                continue
            left = len(piece)
            for segment, size in segments(piece, self._kind, now_ns):
                self._pass_on(segment)
                self._done_with(size)
                left -= size
                if left:  # each of them may have taken the handler long
                    self._keep_time()
            self._done_with(left)
        kept = buffer.kept
        fifo.discard(kept - self._taken)
        self._taken = kept
        self._unseen = fifo.holds_more(buffer.left)
        self._last_read_ns = now_ns
        self._marks.handled(time.time_ns())
        self._count_late()

    def _count_late(self) -> None:
        self._series.late(self._marks.latencies())

    def _done_with(self, size: int) -> None:
        """Take so many bytes out of the FIFO, but for those that were taken out before."""
        early = min(size, self._taken)
        self._taken -= early
        self._fifo.discard(size - early)

    def _pass_on(self, segment: Batch | Gap) -> None:
        if isinstance(segment, Gap):
            self._series.missed(segment)
            self._call("on_gap", lambda: self._handler.on_gap(segment), segment.to_record())
            return
        batch = segment
        if self._receipt is not None:
            batch, self._receipt = batch.behind(self._receipt), None
            if not batch.raw:
                return
        began = time.perf_counter()
        try:
            self._call("on_trades", lambda: self._handler.on_trades(batch), batch.raw)
        finally:
            self._series.handled(batch, time.perf_counter() - began, time.time_ns())

    def _call(self, method: str, call: Callable[[], None], data: bytes, *, stop: bool = True) -> bool:
        """Call the handler; returns whether it came back without an exception.

        sys.exit() in a handler counts as an exception: its status would tell the supervisor something untrue.
        """
        try:
            call()
        except (Exception, SystemExit) as error:
            self._series.exceptions += 1
            self._failures.error(
                "handler failed: shard=%d handler=%s call=%s bytes=%d begins=%r error=%s",
                self._shard,
                self._spec,
                method,
                len(data),
                data[:_SHOWN],
                describe(error, type(self._handler).__module__),
                extra=events.HANDLER_FAILED(SHARD=self._shard, HANDLER=self._spec),
            )
            if stop and self._stop_on_error:
                self._log.error('stopping, as [worker] on_error = "stop" asks: shard=%d', self._shard)
                raise _HandlerFailedError from None
            return False
        return True

    def _keep_time(self) -> None:
        """Do what is due: on_tick, metrics, the watchdog's sign of life."""
        self._notifier.alive()
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self._failures.flush()
            self._call("on_tick", lambda: self._handler.on_tick(time.time()), b"")
        self._publish_if_due()

    def _publish_if_due(self) -> None:
        if (now := time.monotonic()) >= self._next_publish:
            self._next_publish = now + self._publish_interval
            self._count_late()  # of marks that were made behind the last read
            self._publisher.publish_soon()

    def _keep_alive(self) -> bool:
        """See Context.keep_alive: called by the handler, so it must not call the handler."""
        self._notifier.alive()
        self._publish_if_due()
        return self._stop_at is not None

    def _drain(self) -> None:
        """Read until the FIFO is empty or at its end; from a balancer that never pauses, until the time is up.

        What is left, the next worker finds. Only the rest of a record whose beginning is kept here is waited for.
        """
        assert self._stop_at is not None
        self._log.info("stopping: shard=%d, behind what is in the FIFO, after %g s at most", self._shard, _DRAIN)
        self._unseen = True
        while self._fifo.fd >= 0:
            self._keep_time()
            left = self._stop_at - time.monotonic()
            if left <= (-_FINISH if self._buffer.kept else 0):
                break
            if self._unseen:
                self._read()
                continue
            self._wait(min(_TICK, max(left, _LOOK_AGAIN)) if self._buffer.kept and not self._hung_up else 0)
            if not self._unseen and (self._hung_up or not self._buffer.kept):
                break
        if self._hung_up or self._buffer.kept:
            self._tear()

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Signal handler. A second signal ends the draining at the next record's boundary."""
        self._stop_at = time.monotonic() + (_DRAIN if self._stop_at is None else 0)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the loop, also while it waits in poll, which Python would restart (PEP 475)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wakeup = Wakeup()
        self._wakeup = wakeup
        self._poll.register(wakeup, select.EPOLLIN)
        try:
            with wakeup.signals(dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._ask_to_stop)):
                yield
        finally:
            wakeup.close()
