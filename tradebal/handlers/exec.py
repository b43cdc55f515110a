"""The handler that lets a worker be written in any language: it pipes the shard to a command's standard input."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time

from prometheus_client import Counter

from tradebal.handlers.base import Context, Handler
from tradebal.stream import framing, pipes
from tradebal.stream.batch import Batch
from tradebal.stream.gap import Gap

_FIRST_DELAY = 0.25
_LONGEST_DELAY = 30.0
_HEALTHY_AFTER = 60.0
"""Seconds that a command must have run for its next restart to be a first one again."""
_LOOK = 0.25
"""Seconds between two looks whether the command still lives, while it takes nothing."""
_TERM_TIMEOUT = 2.0
"""Seconds between SIGTERM and SIGKILL."""
_PIPE = 1 << 20


class Exec(Handler):
    """Writes the shard's records, framed as in the FIFO, to a command's stdin; restarts the command when it ends.

    The command finds its shard's number, how many there are, and the framing in TRADEBAL_SHARD, TRADEBAL_SHARDS and
    TRADEBAL_FRAMING; its stdout and stderr are the worker's. While it is slow or down, the worker waits, and the
    shard's FIFO and overflow fill. Each new command begins with the first record that the one before hadn't read
    whole, as far as the present batch reaches; what it left unread of earlier ones is gone: logged, and counted
    in bytes. What it had read and not worked off, nobody can know.
    """

    def __init__(self, context: Context, *, command: list[str], gaps: bool = False, stop_timeout: float = 10.0) -> None:
        """Start the command.

        `command`: program and arguments; no shell is involved. `gaps`: whether gap records are passed on too.
        `stop_timeout`: seconds that the command gets to finish after its stdin was closed.
        """
        super().__init__(context)
        if not isinstance(command, list) or not command or not all(isinstance(part, str) and part for part in command):
            raise ValueError(f'command = {command!r}: must be a list of program and arguments, such as ["jq", "."]')
        if not isinstance(gaps, bool):
            raise ValueError(f"gaps = {gaps!r}: must be true or false")
        if not isinstance(stop_timeout, int | float) or stop_timeout < 0:
            raise ValueError(f"stop_timeout = {stop_timeout!r}: must be a number of seconds, 0 or more")
        if shutil.which(command[0]) is None:
            raise ValueError(f"command = {command!r}: there is no program {command[0]!r} that can be run")
        self._command = command
        self._gaps = gaps
        self._stop_timeout = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._stdin = -1
        self._poll = select.poll()
        self._started_at = 0.0
        self._delay = _FIRST_DELAY
        self._start_at = 0.0
        self._give_up_at: float | None = None
        self._starts = Counter(
            "tradebal_exec_starts", "Starts of the command that the shard is piped to.", registry=context.registry
        )
        self._lost = Counter(
            "tradebal_exec_lost_bytes",
            "Bytes of the shard's records that no command has read: left in the pipe of one that ended, or not taken "
            "before the worker had to stop.",
            registry=context.registry,
        )
        self._start()

    def on_trades(self, batch: Batch) -> None:
        """Write the batch; waits as long as that takes."""
        self._write(batch.raw)

    def on_gap(self, gap: Gap) -> None:
        """Write the gap's record, if that was asked for."""
        if self._gaps:
            self._write(framing.encode(gap.to_record(), self.context.framing))

    def on_tick(self, now: float) -> None:  # noqa: ARG002 - delays need the clock that never jumps
        """Restart a command that ended while there was nothing to write."""
        if self._process is None:
            self._start_if_due()
        elif self._process.poll() is not None:
            self._lose(self._ended())

    def close(self) -> None:
        """Close the command's stdin, and wait until it has ended; after `stop_timeout` make it end."""
        if self._process is None:
            return
        process = self._process
        unread = self._unread
        self._close_stdin()
        killed = False
        for number, seconds in ((signal.SIGTERM, self._stop_timeout), (signal.SIGKILL, _TERM_TIMEOUT)):
            if self._wait(process, seconds):
                break
            self.context.log.warning(
                "command doesn't end: shard=%d command=%s unread_at_close=%d sending=%s",
                self.context.shard,
                self._command[0],
                unread,
                number.name,
            )
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            killed = True
        process.wait()
        if killed:
            self._lose(unread)
        self._log_end(process)
        self._process = None

    def _write(self, data: bytes) -> None:
        done = 0
        view = memoryview(data)
        while done < len(data):
            if self._process is None and not self._start_if_due():
                if self._must_give_up():
                    break
                time.sleep(min(_LOOK, max(0.0, self._start_at - time.monotonic())))
                continue
            try:
                done += os.write(self._stdin, view[done:])
            except BlockingIOError:
                self._poll.poll(_LOOK * 1000)
                alive = self._process is not None and self._process.poll() is None
                if self._must_give_up():
                    break
            except BrokenPipeError:
                alive = False
            else:
                continue
            if not alive:
                unread = self._ended()
                self._lose(unread - done)
                done = framing.split(data[: max(0, done - unread)], self.context.framing)[0]
        if done < len(data):
            kind = self.context.framing
            taken = framing.split(data[:done], kind)[1]
            self.context.log.error(
                "records not delivered, as the worker stops and the command takes none: shard=%d records=%d bytes=%d",
                self.context.shard,
                len(framing.records(data, kind)) - taken,
                len(data) - done,
            )
            self._lose(len(data) - done)

    def _must_give_up(self) -> bool:
        """Whether the worker was asked to stop so long ago that undelivered records can't be waited for."""
        if not self.context.keep_alive():
            return False
        if self._give_up_at is None:
            self._give_up_at = time.monotonic() + self._stop_timeout
        return time.monotonic() >= self._give_up_at

    def _lose(self, size: int) -> None:
        if size > 0:
            self._lost.inc(size)

    def _start_if_due(self) -> bool:
        if time.monotonic() < self._start_at:
            return False
        try:
            self._start()
        except OSError as error:
            self._plan_restart()
            self.context.log.warning(
                "command not started: shard=%d command=%s error=%s again_in=%.2fs",
                self.context.shard,
                self._command[0],
                error.strerror,
                self._start_at - time.monotonic(),
            )
            return False
        return True

    def _start(self) -> None:
        environment = {
            **os.environ,
            "TRADEBAL_SHARD": str(self.context.shard),
            "TRADEBAL_SHARDS": str(self.context.shards),
            "TRADEBAL_FRAMING": self.context.framing,
        }
        environment.pop("TRADEBAL_FEED_KEY", None)
        # In a process group of its own, so that Ctrl-C reaches it as the end of its input, behind the last record.
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, bufsize=0, env=environment, process_group=0)
        assert process.stdin is not None
        self._process, self._stdin = process, process.stdin.fileno()
        os.set_blocking(self._stdin, False)
        pipes.enlarge([self._stdin], _PIPE)
        self._poll.register(self._stdin, select.POLLOUT)
        self._started_at = time.monotonic()
        self._starts.inc()
        self.context.log.info(
            "command started: shard=%d command=%s pid=%d", self.context.shard, self._command[0], process.pid
        )

    def _ended(self) -> int:
        """Deal with a command that ended, or closed its stdin; returns how many bytes it left unread in its pipe."""
        process = self._process
        assert process is not None
        unread = self._unread
        self._close_stdin()
        if not self._wait(process, _TERM_TIMEOUT):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._process = None
        if time.monotonic() - self._started_at >= _HEALTHY_AFTER:
            self._delay = _FIRST_DELAY
        self._plan_restart()
        self._log_end(process, f" unread={unread} again_in={self._start_at - time.monotonic():.2f}s")
        return unread

    def _plan_restart(self) -> None:
        self._start_at = time.monotonic() + self._delay
        self._delay = min(2 * self._delay, _LONGEST_DELAY)

    @property
    def _unread(self) -> int:
        """Bytes in the command's pipe; the kernel keeps the count also when nobody can read them any more."""
        return pipes.unread(self._stdin)

    def _close_stdin(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._poll.unregister(self._stdin)
        self._process.stdin.close()

    def _wait(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Wait for its end, and keep the worker's watchdog quiet meanwhile; returns whether it came."""
        deadline = time.monotonic() + seconds
        while process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(_LOOK, left))
            self.context.keep_alive()
        return True

    def _log_end(self, process: subprocess.Popen[bytes], more: str = "") -> None:
        code = process.returncode
        how = f"signal={-code} ({signal.strsignal(-code)})" if code < 0 else f"exit_status={code}"
        log = self.context.log.warning if more or code else self.context.log.info
        ran = time.monotonic() - self._started_at
        log("command ended: shard=%d command=%s %s ran=%.1fs%s", self.context.shard, self._command[0], how, ran, more)
