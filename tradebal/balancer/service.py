"""The balancer's loop: moves bytes from the connection through the router into the FIFOs, waiting for no one."""

from __future__ import annotations

import logging
import math
import os
import select
import selectors
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tradebal.balancer import fifos
from tradebal.balancer.handover import Handover, State
from tradebal.balancer.intake import Intake, make_intake
from tradebal.balancer.metrics import BalancerCollector
from tradebal.balancer.outlet import Outlet, Outlets
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
from tradebal.router.interface import EventKind, Status
from tradebal.stream import framing
from tradebal.stream.framing import OVERHEAD
from tradebal.stream.gap import Gap
from tradebal.stream.marks import MarkWriter, path_of
from tradebal.systemd import events
from tradebal.systemd.log import level_of, open_journal
from tradebal.systemd.notify import Notifier
from tradebal.upstream.connection import Connection
from tradebal.upstream.link import Link, Phase
from tradebal.upstream.profiles import resolve
from tradebal.wakeup import Wakeup

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
        self._outlets = self._make_outlets()
        if self._handover.before:
            self._take_over(self._handover.before)
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
            self._outlets,
            self._stats,
            self._watch,
            self._samples,
            config.shards.framing,
        )
        self._publisher = Publisher(collector.register(), config.metrics_directory, "balancer")
        self._today = Today(self._handover.state.day, self._handover.state.day_trades)
        self._wakeup = Wakeup()
        self._next_tick = self._next_status = 0.0
        self._intake: Intake | None = None
        self._more = False
        self._stop_signal = 0

    def _make_outlets(self) -> Outlets:
        config, handover = self._config, self._handover
        directory = config.shards.directory
        # Before there are FIFOs, so that no worker looks for them in vain.
        marks = [MarkWriter(path_of(directory, shard)) for shard in range(config.shards.count)]
        parked = handover.fifos
        made = fifos.create(directory, config.shards.count, config.shards.pipe_size, parked)
        for surplus in range(len(made), max(parked, default=0) + 1):
            handover.forget_fifo(surplus)
        outlets = [
            Outlet(self._router, fifo, self._make_overflow(fifo), of_shard)
            for fifo, of_shard in zip(made, marks, strict=True)
        ]
        handover.drop_surplus()
        return Outlets(self._router, outlets, drop=config.overflow.when_full == "drop", keeps=handover.keeps)

    def _make_overflow(self, fifo: fifos.Fifo) -> Overflow:
        """Have the shard's FIFO outlive this process, and what waits for it from an earlier one go first."""
        if fifo.fd != self._handover.fifos.get(fifo.shard):
            self._handover.forget_fifo(fifo.shard)
            self._handover.park_fifo(fifo.shard, fifo.fd)
        try:
            overflow = Overflow(
                self._config.overflow.limit,
                self._config.shards.framing,
                announce=self._config.shards.gap_records,
                shard=fifo.shard,
                keeper=self._handover if self._handover.keeps else None,
                left=self._handover.overflow(fifo.shard),
            )
        except OSError as error:
            raise UserError(
                f"overflow: no memory file can be made for shard {fifo.shard}: {error.strerror}",
                hint="raise the limit on open files (LimitNOFILE=, ulimit -n): each shard takes four descriptors",
            ) from None
        if overflow.size:
            _log.info("overflow: shard=%d took over=%d bytes", fifo.shard, overflow.size)
        return overflow

    def _take_over(self, before: State) -> None:
        """Go on where the earlier process stopped: say what is missing since, and end a record that it left torn."""
        if before.heard_ns:
            self._link.resume(before.heard_ns)
        if before.ended:
            return
        kind = self._config.shards.framing
        remade = ",".join(map(str, self._handover.remade))
        _log.warning(
            "the balancer before this one was killed: what it had in memory is lost; its FIFOs are taken over%s",
            f", but for those that may end within a record, which are made anew: shards={remade}" if remade else "",
            extra=events.TAKEN_OVER(),
        )
        end = framing.mend(kind)
        mark = end or b""
        if self._config.shards.gap_records:
            gap = Gap("restart", before.heard_ns or time.time_ns(), time.time_ns(), None)
            mark += framing.encode(gap.to_record(), kind)
        for outlet in self._outlets:
            if end is None and (torn := outlet.overflow.cut_torn_end()):
                _log.warning("overflow: shard=%d torn record dropped: bytes=%d", outlet.shard, torn)
            if mark:
                outlet.prepend(mark)

    def run(self) -> int:
        """Route until SIGTERM or SIGINT; returns the exit status."""
        handlers: dict[int, Callable[[int, FrameType | None], None]] = dict.fromkeys(
            (signal.SIGTERM, signal.SIGINT), self._on_signal
        )
        if self._reread is not None:
            handlers[signal.SIGHUP] = self._on_hangup
        with self._wakeup.signals(handlers):
            try:
                self._route()
            finally:
                self._close()  # within: a second signal must not end the process here
        self._wakeup.close()
        return 0

    def _route(self) -> None:
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
        self._outlets.inject(record, len(record) + OVERHEAD[self._config.shards.framing])

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
        self._outlets.drop = config.overflow.when_full == "drop"
        for outlet in self._outlets:
            outlet.overflow.reconfigure(announce=config.shards.gap_records)
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
        paused = self._outlets.blocked
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        connection = self._link.connection
        source = connection.fileno() if connection is not None else -1
        for fd, mask in self._link.fds():
            reading = mask & selectors.EVENT_READ and not (paused and fd == source)
            events = (select.POLLIN if reading else 0) | (select.POLLOUT if mask & selectors.EVENT_WRITE else 0)
            if events:
                poller.register(fd, events)
        for outlet in self._outlets.stalled:
            poller.register(outlet.fifo.fd, select.POLLOUT)
        until = min(self._next_tick, self._next_status, self._link.next_deadline())
        timeout = 0.0 if self._more and not paused else max(0.0, until - now)
        ready = {fd for fd, _ in poller.poll(math.ceil(timeout * 1000))}
        if self._wakeup.fileno() in ready:
            self._wakeup.take()
        self._outlets.drain(lambda outlet: outlet.fifo.fd in ready)
        now = time.monotonic()
        if paused:
            self._link.on_data(now, self._router.counters().trades)  # not reading is our choice, not its silence
        elif source in ready or self._more:
            self._receive()
        self._link.tick(time.monotonic())

    def _turn_ns(self) -> int:
        return _STALLED_TURN_NS if self._outlets.stalled else _TURN_NS

    def _receive(self) -> None:
        """Take in what the provider has sent, for a turn at most, and write it to the FIFOs."""
        deadline = time.monotonic_ns() + self._turn_ns()
        self._more = False
        while (connection := self._link.connection) is not None:
            if self._intake is None or self._intake.connection is not connection:
                self._intake = make_intake(self._router, connection, self._pump)
            reads = self._router.counters().reads
            step = self._intake.receive()
            self._add_batches()
            counters = self._router.counters()
            if counters.reads > reads:
                self._note_data(counters.trades)
            if self._link.connection is not connection:
                break
            if counters.reads > reads:
                self._link.on_data(time.monotonic(), counters.trades)
            if step.ended:
                self._link.on_closed(time.monotonic(), step.error)
                break
            if step.drained and not (self._alone(connection) and self._intake.wait(self._wakeup.fileno(), deadline)):
                break
            if time.monotonic_ns() >= deadline or self._outlets.blocked:
                self._more = True
                break

    def _alone(self, connection: Connection) -> bool:
        """Whether only the connection is waited for: then waiting is cheaper, and ends sooner, outside the loop."""
        return not connection.wants_write and not self._outlets.stalled

    def _pump(self, fd: int) -> Status:
        """Run the router until it has nothing for Python to decide."""
        router = self._router
        while True:
            connection = self._link.connection
            alone = connection is not None and self._alone(connection)
            status = router.pump(fd, self._turn_ns(), self._wakeup.fileno() if alone else -1)
            self._outlets.note_stalls()
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
                self._outlets.spill(router.blocked)
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
            self._outlets[sample.shard].mark(sample)

    # Once a second, and at the end

    def _keep_time(self, now: float) -> None:
        """Do what is due: metrics, and systemd's status line."""
        if now >= self._next_tick:
            self._next_tick = now + self._config.metrics.interval
            self._take_sample(self._router.counters().trades)  # of what came after the latest one
            self._publisher.publish_soon()
        if now >= self._next_status:
            self._next_status = now + _STATUS_INTERVAL
            self._outlets.flush_log()
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
        self._outlets.note_stalls()
        deadline = time.monotonic() + _STOP_TIMEOUT
        while self._unread() and time.monotonic() < deadline and not self._stop_signal:
            self._outlets.drain()
            if select.select([self._wakeup], [], [], _STOP_POLL)[0]:
                self._wakeup.take()
            self._notifier.alive()
            self._keep_time(time.monotonic())

    def _unread(self) -> int:
        """Bytes that would be lost if this process ended now, though a worker may yet take them."""
        return sum(
            # A FIFO that systemd keeps needs nobody to wait for its reader.
            (0 if self._handover.keeps else outlet.fifo.unread()) + outlet.waiting
            for outlet in self._outlets
        )

    def _close(self) -> None:
        self._link.close()
        self._add_batches()
        self._stats.finish()
        if self._handover.keeps:
            self._outlets.leave()
            self._note_state(ended=True)
        else:
            self._outlets.lose()
        counters = self._router.counters()
        self._publisher.publish()
        _log.info("stopped: trades=%d rejects=%d", counters.trades, counters.rejects)
        if self._handover.keeps:
            fifos.close([outlet.fifo.fd for outlet in self._outlets])
        else:
            fifos.remove([outlet.fifo for outlet in self._outlets])
        self._handover.close()
        for outlet in self._outlets:
            outlet.close()
        self._rejects.close()
        self._notifier.close()
        self._lock.release()


def _pins(config: Config) -> dict[bytes, int]:
    return {symbol.encode(): shard for symbol, shard in config.shards.pin.items()}


def _writable(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"overflow.directory: {directory} can't be made: {error.strerror}",
            hint="create it for this user, or set [overflow] directory to one that this user may write",
            code=2,
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UserError(
            f"overflow.directory: this user can't write to {directory}",
            hint=f"chown it (chown {os.getuid()} {directory}), or set [overflow] directory to another",
            code=2,
        )
    return directory
