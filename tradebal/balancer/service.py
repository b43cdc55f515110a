"""The balancer's loop: moves bytes from the connection through the router into the FIFOs, waiting for no one."""

from __future__ import annotations

import errno
import logging
import math
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tradebal.balancer import fifos
from tradebal.balancer.handover import Handover, State
from tradebal.balancer.metrics import BalancerCollector
from tradebal.balancer.overflow import Overflow
from tradebal.balancer.rejects import Rejects
from tradebal.balancer.reload import Reload, compare
from tradebal.balancer.samples import SPACING_NS, Samples
from tradebal.balancer.stats import JournalLines, LineWriter, StatsLines
from tradebal.balancer.today import Today
from tradebal.balancer.watch import Watch
from tradebal.config import Config, Secret
from tradebal.errors import UserError
from tradebal.monitoring.publish import Publisher
from tradebal.router import make_router, warn_if_slow
from tradebal.router.interface import EventKind, Sample, Status
from tradebal.stream import framing
from tradebal.stream.framing import OVERHEAD
from tradebal.stream.gap import Gap
from tradebal.stream.marks import MarkWriter, path_of
from tradebal.systemd import events
from tradebal.systemd.log import Limited, level_of, open_journal
from tradebal.systemd.notify import Notifier
from tradebal.upstream.connection import Connection
from tradebal.upstream.link import Link, Phase
from tradebal.upstream.profiles import resolve

_log = logging.getLogger(__name__)

_TURN_NS = 50_000_000
"""Longest stay with the upstream socket before timers get their turn, in nanoseconds."""
_STALLED_TURN_NS = 20_000_000
"""The same while a FIFO is waited for that takes bytes again."""
_STOP_TIMEOUT = 10.0
"""Seconds that workers get, on a stop, to read what waits for them."""
_STOP_POLL = 0.02
"""Seconds between two looks at whether the FIFOs are empty: the kernel has no event for that."""
_STATUS_INTERVAL = 1.0
"""Seconds between two changes of the status line."""


class Balancer:
    """One upstream connection, one router, N FIFOs; one thread, which only ever blocks in poll.

    (The opening handshake has a thread of its own inside the link, and the writing of metrics inside the publisher.)
    """

    def __init__(self, config: Config, key: Secret | None, reread: Callable[[], Config] | None = None) -> None:
        """Take the directory, make the FIFOs, and be ready to connect; at SIGHUP, `reread` gives the configuration.

        Raises UserError where something can't work as configured or another balancer is running.
        """
        self._config = config
        self._reread = reread
        self._reload_asked = False
        profile = resolve(config.feed)
        self._link = Link(config.feed, key, self)
        self._router = make_router(
            config.shards.count,
            profile.rule,
            framing=config.shards.framing,
            pins=_pins(config),
            max_message=config.feed.max_message,
        )
        warn_if_slow(self._router, _log)
        self._lock = fifos.DirectoryLock(config.shards.directory)
        self._notifier = Notifier()
        self._handover = Handover(self._notifier, config.shards.framing)
        self._stalled: set[int] = set()
        # Before there are FIFOs, so that no worker looks for them in vain.
        directory = config.shards.directory
        self._marks = [MarkWriter(path_of(directory, shard)) for shard in range(config.shards.count)]
        parked = self._handover.fifos
        self._fifos = fifos.create(directory, config.shards.count, config.shards.pipe_size, parked)
        for surplus in range(len(self._fifos), max(parked, default=0) + 1):
            self._handover.forget_fifo(surplus)
        self._overflows = [self._prepare(fifo) for fifo in self._fifos]
        self._handover.drop_surplus()
        if self._handover.before:
            self._take_over(self._handover.before)
        self._drop = config.overflow.when_full == "drop"
        self._rejects = Rejects(_writable(config.overflow.directory))
        own = open_journal(sys.stdout)
        self._journal = JournalLines(own) if own else None
        self._stats = StatsLines(LineWriter(1).write, self._journal.note if self._journal else None)
        self._stats.silent = not config.log.statistics
        self._watch = Watch()
        self._samples = Samples(profile.rule.symbol_key, profile.time_key)
        self._next_sample_ns = 0
        collector = BalancerCollector(
            self._router,
            self._link,
            self._fifos,
            self._overflows,
            self._stats,
            self._watch,
            self._samples,
            config.shards.framing,
        )
        self._publisher = Publisher(collector.register(), config.metrics_directory, "balancer")
        self._today = Today(self._handover.state.day, self._handover.state.day_trades)
        self._dropping = Limited(_log, per_second=1)
        self._filling = Limited(_log, per_second=10)
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self._next_tick = self._next_status = 0.0
        self._more = False
        self._stop_signal = 0

    def _prepare(self, fifo: fifos.Fifo) -> Overflow:
        """Have the shard's FIFO outlive this process, and what waits for it from an earlier one go first."""
        if fifo.fd != self._handover.fifos.get(fifo.shard):
            self._handover.forget_fifo(fifo.shard)
            self._handover.park_fifo(fifo.shard, fifo.fd)
        overflow = Overflow(
            self._config.overflow.limit,
            self._config.shards.framing,
            announce=self._config.shards.gap_records,
            shard=fifo.shard,
            keeper=self._handover if self._handover.keeps else None,
            left=self._handover.overflow(fifo.shard),
        )
        if overflow.size:
            _log.info("overflow: shard=%d took over=%d bytes", fifo.shard, overflow.size)
            self._stalled.add(fifo.shard)
        else:
            self._router.set_output(fifo.shard, fifo.fd)
        return overflow

    def _take_over(self, before: State) -> None:
        """Go on where the earlier process stopped: say what is missing since, and end a record that it left torn."""
        if before.heard_ns:
            self._link.resume(before.heard_ns)
        if before.ended:
            return
        _log.warning(
            "the balancer before this one was killed: what it had in memory is lost; its FIFOs are taken over",
            extra=events.TAKEN_OVER(),
        )
        # An empty line is no record, so this does no harm where nothing is torn.
        mark = b"\n"
        if self._config.shards.gap_records:
            gap = Gap("restart", before.heard_ns or time.time_ns(), time.time_ns(), None)
            mark += framing.encode(gap.to_record(), self._config.shards.framing)
        for fifo, overflow in zip(self._fifos, self._overflows, strict=True):
            self._router.set_output(fifo.shard, -1)
            overflow.put(memoryview(mark), 0, drop=False)
            self._stalled.add(fifo.shard)

    def run(self) -> int:
        """Route until SIGTERM or SIGINT; returns the exit status."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._reread is not None:
            signal.signal(signal.SIGHUP, self._on_hangup)
        try:
            self._publisher.publish()
            self._handover.save()
            self._tell_status(time.monotonic())  # there when `systemctl start` returns
            self._notifier.ready()
            self._link.start(time.monotonic())
            while not self._stop_signal:
                self._turn()
                if self._reload_asked:
                    self._reload()
            self._stop()
        finally:
            signal.set_wakeup_fd(-1)
            self._close()
            self._wake.close()
            self._waker.close()
        return 0

    # What the link tells (tradebal.upstream.link.Listener)

    def opened(self) -> None:
        """Begin a new connection in the router, and read at once: TLS may hold bytes that no poll shows."""
        self._router.reset()
        self._more = True

    def live(self) -> None:
        """Show it at once, not at the next tick."""
        self._next_tick = self._next_status = 0.0

    def outage(self, from_ns: int, until_ns: int) -> None:
        """Put a gap record where trades are missing, into every shard's stream."""
        if not self._config.shards.gap_records:
            return
        record = Gap("disconnect", from_ns, until_ns, None).to_record()
        for fifo in self._fifos:
            if not self._router.inject(fifo.shard, record):  # only a stalled shard's staging can be that full
                self._to_overflow(fifo.shard)
                self._router.inject(fifo.shard, record)
        self._watch.injected += len(record) + OVERHEAD[self._config.shards.framing]
        self._router.flush()
        self._note_stalls()

    def closed(self) -> None:
        """Stop reading."""
        self._more = False

    # The loop

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop_signal = number

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_asked = True

    def _reload(self) -> None:
        """Read the configuration again, and take over what can be; nothing of one that can't be used."""
        self._reload_asked = False
        if self._reread is None:
            return
        self._notifier.reloading()
        try:
            after = self._reread()
            resolve(after.feed)
        except UserError as error:
            _log.error("reload refused, nothing was changed: %s", error.message)
        else:
            self._apply(compare(self._config, after))
        self._notifier.ready()

    def _apply(self, reload: Reload) -> None:
        self._config = config = reload.config
        self._link.reconfigure(config.feed)
        if "shards.pin" in reload.taken:
            self._router.set_pins(_pins(config))
        self._drop = config.overflow.when_full == "drop"
        for overflow in self._overflows:
            overflow.reconfigure(announce=config.shards.gap_records)
        self._stats.silent = not config.log.statistics
        self._next_tick = 0.0
        _log.info("reloaded: taken_over=%s", ",".join(reload.taken) or "nothing", extra=events.RELOADED())
        if reload.waiting:
            keys = ",".join(reload.waiting)
            _log.warning(
                "reloaded: not taken over=%s: restart for that (systemctl restart tradebal.target)",
                keys,
                extra=events.NOT_RELOADED(KEYS=keys),
            )
        logging.getLogger().setLevel(level_of(config.log.level))

    def _turn(self) -> None:
        """Wait until something can be done, and do it."""
        now = time.monotonic()
        self._notifier.alive()
        self._keep_time(now)
        paused = self._paused()
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        connection = self._link.connection
        source = connection.fileno() if connection is not None else -1
        for fd, mask in self._link.fds():
            reading = mask & selectors.EVENT_READ and not (paused and fd == source)
            events = (select.POLLIN if reading else 0) | (select.POLLOUT if mask & selectors.EVENT_WRITE else 0)
            if events:
                poller.register(fd, events)
        for shard in self._stalled:
            poller.register(self._fifos[shard].fd, select.POLLOUT)
        until = min(self._next_tick, self._next_status, self._link.next_deadline())
        timeout = 0.0 if self._more and not paused else max(0.0, until - now)
        ready = {fd for fd, _ in poller.poll(math.ceil(timeout * 1000))}
        if self._wake.fileno() in ready:
            self._wake.recv(4096)
        for shard in [shard for shard in self._stalled if self._fifos[shard].fd in ready]:
            self._drain(shard)
        now = time.monotonic()
        if paused:
            self._link.on_data(now, self._router.counters().trades)  # not reading is our choice, not its silence
        elif source in ready or self._more:
            self._receive()
        self._link.tick(time.monotonic())

    def _turn_ns(self) -> int:
        return _STALLED_TURN_NS if self._stalled else _TURN_NS

    def _paused(self) -> bool:
        """Whether when_full = "block" holds up the whole market for a full shard."""
        return not self._drop and any(overflow.full for overflow in self._overflows)

    def _receive(self) -> None:
        """Take in what the provider has sent, for a turn at most, and write it to the FIFOs."""
        deadline = time.monotonic_ns() + self._turn_ns()
        self._more = aside = False
        while (connection := self._link.connection) is not None:
            reads = self._router.counters().reads
            drained = closed = False
            error: OSError | None = None
            if aside or connection.tls == "user":
                aside = False
                try:
                    while (space := self._router.space()) and not closed:
                        count = connection.receive_into(space)
                        self._router.received(count)
                        closed = not count
                except BlockingIOError:
                    drained = True
                except OSError as failure:
                    error = failure
                status = self._pump(-1)
            else:
                status = self._pump(connection.fileno())
                drained = status is Status.INPUT
                if connection.tls == "kernel":
                    # recv fails at a record that holds no data, and poll may be silent about one that changes the key.
                    aside = drained or (status is Status.ERROR and self._router.errno == errno.EIO)
                    drained = False
            self._add_batches()
            counters = self._router.counters()
            if counters.reads > reads:
                self._note_data(counters.trades)
            if self._link.connection is not connection:
                break
            if counters.reads > reads:
                self._link.on_data(time.monotonic(), counters.trades)
            if error is not None or closed or status is Status.CLOSED or (status is Status.ERROR and not aside):
                if status is Status.ERROR:
                    error = OSError(self._router.errno, os.strerror(self._router.errno))
                self._link.on_closed(time.monotonic(), error)
                break
            if drained and not (connection.tls == "user" and self._wait_for_more(connection, deadline)):
                break
            if time.monotonic_ns() >= deadline or self._paused():
                self._more = True
                break

    def _wait_for_more(self, connection: Connection, deadline_ns: int) -> bool:
        """Wait until the provider sends more, as `pump` does; False where something else, or nothing, comes first."""
        if self._stalled or connection.wants_write:
            return False
        poller = select.poll()
        for fd in (connection.fileno(), self._wake.fileno()):
            poller.register(fd, select.POLLIN)
        left = max(0, deadline_ns - time.monotonic_ns())
        return [fd for fd, _ in poller.poll(left / 1e6)] == [connection.fileno()]

    def _pump(self, fd: int) -> Status:
        """Run the router until it has nothing for Python to decide."""
        router = self._router
        # Waiting is cheaper, and ends sooner, in the router than in this loop, as long as nothing else is waited for.
        while True:
            connection = self._link.connection
            alone = not self._stalled and connection is not None and not connection.wants_write
            status = router.pump(fd, self._turn_ns(), self._wake.fileno() if alone else -1)
            self._note_stalls()
            if status is Status.EVENT:
                event = router.event()
                self._watch.event(event)
                if event.kind is EventKind.REJECT:
                    self._rejects.add(event)
                else:
                    before = self._link.connection
                    self._link.on_event(event, time.monotonic())
                    if self._link.connection is not before or before is None:
                        return Status.INPUT
            elif status is Status.BLOCKED:
                self._to_overflow(router.blocked)
            else:
                return status

    # What the metrics show

    def _add_batches(self) -> None:
        if batches := self._router.batches():
            self._stats.add(batches)
            self._watch.add(batches)

    def _note_data(self, trades: int) -> None:
        now_ns = time.time_ns()
        self._watch.received(now_ns, trades)
        if now_ns >= self._next_sample_ns:
            self._next_sample_ns = now_ns + SPACING_NS
            self._take_sample(trades)

    def _take_sample(self, trades: int) -> None:
        if (sample := self._router.sample()) is not None:
            self._samples.add(sample, trades)
            self._mark(sample)

    def _mark(self, sample: Sample) -> None:
        """Have the worker that gets the sample's first trade know when it came."""
        shard = sample.shard
        overflow = self._overflows[shard]
        self._marks[shard].mark(
            self._fifos[shard].fd,
            behind=sample.behind - overflow.size - len(self._router.pending(shard)),
            edits=self._watch.injected + overflow.added,
            time_ns=sample.time_ns,
        )

    # Full FIFOs

    def _note_stalls(self) -> None:
        self._stalled.update(self._router.stalled())
        if self._handover.keeps:
            # What waits in the router dies with this process, what is in the overflow doesn't.
            for shard in self._stalled:
                if len(self._router.pending(shard)):
                    self._to_overflow(shard)

    def _to_overflow(self, shard: int) -> None:
        """Queue what is staged for the shard behind its full FIFO."""
        waiting = self._router.pending(shard)
        overflow = self._overflows[shard]
        if not overflow.size and waiting:
            self._filling.warning(
                "overflow: shard=%d its FIFO is full; trades wait in memory",
                shard,
                extra=events.OVERFLOW_BEGAN(SHARD=shard),
            )
        lost = overflow.put(waiting, self._router.torn(shard), drop=self._drop)
        count = len(waiting)
        waiting.release()
        self._router.sent(shard, count)
        if lost:
            self._dropping.error(
                "overflow: shard=%d is full (limit=%d bytes); dropped=%d trades, in all=%d: its worker is too slow or "
                "stopped",
                shard,
                self._config.overflow.limit,
                lost,
                overflow.dropped,
                extra=events.DROPPED(SHARD=shard, DROPPED=lost),
            )

    def _drain(self, shard: int) -> None:
        """Give a FIFO that has room again what waits for it, oldest first."""
        fifo, overflow = self._fifos[shard], self._overflows[shard]
        waited = overflow.size
        if not overflow.drain(fifo.fd):
            return
        if waited:
            self._filling.info(
                "overflow: shard=%d its worker has caught up", shard, extra=events.OVERFLOW_ENDED(SHARD=shard)
            )
        self._stalled.discard(shard)
        self._router.set_output(shard, fifo.fd)
        self._router.flush()
        self._note_stalls()

    # Once a second, and at the end

    def _keep_time(self, now: float) -> None:
        """Do what is due: metrics, and systemd's status line."""
        if now >= self._next_tick:
            self._next_tick = now + self._config.metrics.interval
            self._take_sample(self._router.counters().trades)  # of what came after the latest one
            self._publisher.publish_soon()
        if now >= self._next_status:
            self._next_status = now + _STATUS_INTERVAL
            self._dropping.flush()
            self._filling.flush()
            self._tell_status(now)
            self._note_state(ended=False)

    def _tell_status(self, now: float) -> None:
        self._today.update(now, time.time(), self._router.counters().trades)
        self._notifier.status(self._today.line(self._link.phase.value))

    def _note_state(self, *, ended: bool) -> None:
        state = self._handover.state
        state.ended = ended
        state.heard_ns = self._link.heard_ns or state.heard_ns
        state.day, state.day_trades = self._today.day, self._today.trades
        self._handover.save()

    def _stop(self) -> None:
        """Leave the provider orderly, then give the workers time to take what is theirs."""
        _log.info("stopping: signal=%s", signal.Signals(self._stop_signal).name)
        self._stop_signal = 0
        self._notifier.stopping()
        self._link.stop(time.monotonic())
        while self._link.phase is not Phase.STOPPED and not self._stop_signal:
            self._turn()
        self._router.flush()
        self._note_stalls()
        deadline = time.monotonic() + _STOP_TIMEOUT
        while self._unread() and time.monotonic() < deadline and not self._stop_signal:
            for shard in list(self._stalled):
                self._drain(shard)
            if select.select([self._wake], [], [], _STOP_POLL)[0]:
                self._wake.recv(4096)
            self._notifier.alive()
            self._keep_time(time.monotonic())

    def _unread(self) -> int:
        """Bytes that would be lost if this process ended now, though a worker may yet take them."""
        return sum(
            # A FIFO that systemd keeps needs nobody to wait for its reader.
            (0 if self._handover.keeps else fifo.unread()) + overflow.size + len(self._router.pending(fifo.shard))
            for fifo, overflow in zip(self._fifos, self._overflows, strict=True)
        )

    def _close(self) -> None:
        self._link.close()
        self._add_batches()
        self._stats.finish()
        if self._handover.keeps:
            self._leave()
        else:
            self._lose()
        counters = self._router.counters()
        self._publisher.publish()
        _log.info("stopped: trades=%d rejects=%d", counters.trades, counters.rejects)
        if self._handover.keeps:
            fifos.close([fifo.fd for fifo in self._fifos])
        else:
            fifos.remove(self._fifos)
        self._handover.close()
        for marks in self._marks:
            marks.close()
        self._rejects.close()
        self._notifier.close()
        self._lock.release()

    def _leave(self) -> None:
        """Bring everything to where the next balancer finds it."""
        for fifo, overflow in zip(self._fifos, self._overflows, strict=True):
            if len(self._router.pending(fifo.shard)):
                self._to_overflow(fifo.shard)
            unread = fifo.unread()
            if waiting := overflow.close():
                _log.warning(
                    "stop: shard=%d unread=%d bytes, waiting=%d bytes: left to the next start of the unit if this is "
                    "a restart, else lost",
                    fifo.shard,
                    unread,
                    waiting,
                )
        self._note_state(ended=True)

    def _lose(self) -> None:
        """Say what nobody took in time."""
        for fifo, overflow in zip(self._fifos, self._overflows, strict=True):
            if unread := fifo.unread():
                _log.warning(
                    "stop: shard=%d unread=%d bytes in its FIFO, which only a worker that has it open will read",
                    fifo.shard,
                    unread,
                )
            staged = len(self._router.pending(fifo.shard))
            if lost := overflow.close() + staged:
                _log.error("stop: shard=%d lost=%d bytes that its worker did not take in time", fifo.shard, lost)


def _pins(config: Config) -> dict[bytes, int]:
    return {symbol.encode(): shard for symbol, shard in config.shards.pin.items()}


def _writable(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"overflow.directory: {directory} can't be made: {error.strerror}",
            hint="create it for this user, or set [overflow] directory to one that this user may write",
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UserError(
            f"overflow.directory: this user can't write to {directory}",
            hint=f"chown it (chown {os.getuid()} {directory}), or set [overflow] directory to another",
        )
    return directory
