"""Keeps a set of processes running in the foreground, and stops them in order: what systemd does elsewhere."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tradebal.run.store import Store
from tradebal.wakeup import Wakeup

_log = logging.getLogger(__name__)

_FIRST_DELAY = 0.25
_LONGEST_DELAY = 10.0
_HEALTHY_AFTER = 10.0
"""Seconds of life after which the next death counts as the first again; a unit that ends with one of
`_HOPELESS` before that, never having lived longer, stops the whole run."""

_HOPELESS = (2, 3)
"""Exit statuses that a restart wouldn't change: configuration, and something else holding what is needed."""

_CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True)
class Unit:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    stage: int = 0
    """Units of the lowest stage are stopped first; the next stage's turn comes when they have ended."""
    stop_timeout: float = 10.0
    """Seconds from SIGTERM to SIGKILL."""
    env: Mapping[str, str | None] = field(default_factory=dict)
    """Changes to the environment; None removes."""
    keeps_descriptors: bool = False
    """Whether descriptors that it parks outlive it, as with systemd's FileDescriptorStoreMax=."""


class State(enum.Enum):
    """What became of a unit."""

    STARTED = "started"
    FAILED = "failed"
    """Ended without being asked; it is started again after a while."""
    STOPPING = "stopping"
    KILLED = "killed"
    """Was sent SIGKILL; STOPPED follows."""
    STOPPED = "stopped"


@dataclass(frozen=True)
class Change:
    """What a supervisor tells whoever started it."""

    unit: str
    state: State
    text: str
    """For a log: `event: key=value`."""
    pid: int


class Supervisor:
    """Runs units in a thread of its own: `start`, then `stop` or `kill` from any thread, then `wait`.

    Each unit has a session of its own, so a terminal's Ctrl-C reaches only us; and gets SIGTERM from the kernel when
    this process dies. A unit that ends unasked is started again, after a delay that grows while it keeps failing. Units
    write to our stdout and stderr, or to those given here. `on_change` is called in the supervisor's thread.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        *,
        env: Mapping[str, str] | None = None,
        stdout: IO[bytes] | int | None = None,
        stderr: IO[bytes] | int | None = None,
        on_change: Callable[[Change], None] | None = None,
    ) -> None:
        self._env = dict(os.environ if env is None else env)
        self._outputs = (stdout, stderr)
        self._on_change = on_change
        self._children = [_Child(unit, store=Store() if unit.keeps_descriptors else None) for unit in units]
        self._poll = select.poll()
        self._by_pidfd: dict[int, _Child] = {}
        self._wakeup = Wakeup()
        self._done = Wakeup()
        self._poll.register(self._wakeup, select.POLLIN)
        self._stores = {child.store.fileno(): child.store for child in self._children if child.store}
        for fd in self._stores:
            self._poll.register(fd, select.POLLIN)
        self._stop_asked = False
        self._kill_asked = False
        self._status = 0
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start all units."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for an orderly stop, stage by stage; returns at once. May be called from a signal handler."""
        self._stop_asked = True
        self._wakeup.wake()

    def kill(self) -> None:
        """Ask for SIGKILL to everything; returns at once. May be called from a signal handler."""
        self._kill_asked = True
        self.stop()

    def fileno(self) -> int:
        """Descriptor that is readable once all units have ended, for a caller's own poll."""
        return self._done.fileno()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until all units have ended; returns the exit status that the whole run deserves, None at the timeout.

        0: stopped as asked, and every unit ended well; 2 or 3: a unit couldn't start for that reason; 1: else.
        """
        self._thread.join(timeout)
        return None if self._thread.is_alive() else self._status

    def pid(self, unit: str) -> int | None:
        """Return the process id of a unit, None while it isn't running."""
        return next((child.pid for child in self._children if child.unit.name == unit), None)

    def close(self) -> None:
        """Kill what still runs, and give the descriptors back."""
        if self._thread.is_alive():
            self.kill()
            self._thread.join()
        for wakeup in (self._wakeup, self._done):
            wakeup.close()
        for store in self._stores.values():
            store.close()

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            for child in self._children:
                self._start(child)
            while any(child.alive or child.start_at is not None for child in self._children):
                self._turn()
            self._report_lost()
        except BaseException:
            # Nothing may outlive a supervisor that gives up because of a mistake in it or in on_change.
            self._status = 1
            for child in self._children:
                child.kill_group()
                child.reap()
            raise
        finally:
            self._done.wake()

    def _turn(self) -> None:
        """Wait for a death, a request or a time, and do what it asks for."""
        now = time.monotonic()
        times = [t for child in self._children for t in (child.start_at, child.kill_at) if t is not None]
        timeout = max(0.0, min(times) - now) * 1000 if times else None
        for fd, _ in self._poll.poll(timeout):
            if fd == self._wakeup.fileno():
                self._wakeup.take()
            elif fd in self._stores:
                self._stores[fd].receive()
            else:
                self._ended(self._by_pidfd[fd])
        if self._stop_asked:
            self._stop_next_stage()
        now = time.monotonic()
        for child in self._children:
            if child.start_at is not None and child.start_at <= now:
                self._start(child)
            if child.alive and (self._kill_asked or (child.kill_at is not None and child.kill_at <= now)):
                self._kill(child)

    def _stop_next_stage(self) -> None:
        stage = min((child.unit.stage for child in self._children if child.alive), default=None)
        for child in self._children:
            # What is to be started again belongs to the data's way out as long as an earlier stage is still stopping.
            if stage is None or child.unit.stage <= stage or self._kill_asked:
                child.start_at = None
                if child.alive and not child.stopping:
                    child.stopping = True
                    child.kill_at = time.monotonic() + child.unit.stop_timeout
                    child.terminate()
                    self._tell(child, State.STOPPING, "stopping")

    def _start(self, child: _Child) -> None:
        changes = child.unit.env
        env = {k: v for k, v in self._env.items() if changes.get(k, "") is not None}
        env |= {k: v for k, v in changes.items() if v is not None}
        kept: dict[str, int] = {}
        if child.store is not None:
            child.store.receive()  # what the process before it sent last
            kept = child.store.kept
            env |= child.store.env
        stdout, stderr = self._outputs
        passed = ",".join(f"{name}:{fd}" for name, fd in kept.items())
        launcher = [sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), passed]
        child.started_at = time.monotonic()
        child.start_at = None
        try:
            child.process = subprocess.Popen(
                [*launcher, *child.unit.command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=env,
                pass_fds=tuple(kept.values()),
                start_new_session=True,
            )
        except OSError as error:
            self._start_later(child, f"can't be started: error={error.strerror!r}", 0)
            return
        child.pidfd = os.pidfd_open(child.process.pid)
        self._by_pidfd[child.pidfd] = child
        self._poll.register(child.pidfd, select.POLLIN)
        self._tell(child, State.STARTED, "started")

    def _ended(self, child: _Child) -> None:
        assert child.process is not None
        pid, lived = child.process.pid, time.monotonic() - child.started_at
        self._poll.unregister(child.pidfd)
        del self._by_pidfd[child.pidfd]
        status = child.reap()
        how = f"signal={_signal_name(-status)}" if status < 0 else f"status={status}"
        if child.stopping:
            # SIGTERM kills what had no time yet to prepare for it, or has nothing to do then.
            well = status in (0, -signal.SIGTERM)
            if not well:
                self._status = self._status or 1
            self._tell(child, State.STOPPED, f"stopped: {how}", pid, logging.INFO if well else logging.WARNING)
            return
        if status in _HOPELESS and not child.was_healthy and lived < _HEALTHY_AFTER:
            child.stopping = True
            self._status = status
            self._stop_asked = True
            text = f"ended: {how}: it can't start like this, so everything stops"
            self._tell(child, State.STOPPED, text, pid, logging.ERROR)
            return
        if lived >= _HEALTHY_AFTER:
            child.was_healthy = True
            child.failures = 0
        self._start_later(child, f"ended unasked: {how} lived={lived:.1f}s", pid)

    def _start_later(self, child: _Child, why: str, pid: int) -> None:
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(child.failures, 16))
        child.failures += 1
        child.start_at = time.monotonic() + delay
        self._tell(child, State.FAILED, f"{why} restart_in={delay:g}s", pid, logging.WARNING)

    def _report_lost(self) -> None:
        """Log what was kept for a next process and has none, now that all have ended."""
        for child in self._children:
            if child.store is None:
                continue
            child.store.receive()
            if lost := child.store.unread():
                self._status = self._status or 1
                _log.error("%s lost=%d bytes that nobody took before everything stopped", child.unit.name, lost)

    def _kill(self, child: _Child) -> None:
        child.kill_group()
        if child.stopping and child.kill_at is None:
            return
        why = "asked" if self._kill_asked else f"no end after {child.unit.stop_timeout:g}s"
        child.stopping, child.kill_at = True, None
        self._status = self._status or 1
        self._tell(child, State.KILLED, f"killed: reason={why!r}", None, logging.WARNING)

    def _tell(self, child: _Child, state: State, text: str, pid: int | None = None, level: int = logging.INFO) -> None:
        number = pid or child.pid or 0
        _log.log(level, "%s %s pid=%d", child.unit.name, text, number)
        if self._on_change is not None:
            self._on_change(Change(child.unit.name, state, text, number))


@dataclass
class _Child:
    """A unit and what is known of its present process."""

    unit: Unit
    store: Store | None = None
    process: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    started_at: float = 0.0
    failures: int = 0
    was_healthy: bool = False
    start_at: float | None = None
    kill_at: float | None = None
    stopping: bool = False

    @property
    def alive(self) -> bool:
        return self.process is not None

    @property
    def pid(self) -> int | None:
        process = self.process  # other threads ask too
        return None if process is None else process.pid

    def terminate(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def reap(self) -> int:
        """Wait for the process, whose end is near, and return its status, negative for a signal."""
        if self.process is None:
            return 0
        status = self.process.wait()
        os.close(self.pidfd)
        self.process, self.kill_at = None, None
        return status

    def kill_group(self) -> None:
        # As long as the process isn't waited for, its id, which is its group's too, can't be another's.
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
