"""The real balancer with real workers behind a paced provider, for latency, burst and the cost when quiet."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contenders import OURS, Floor, balancer_command
from harness import HERE, KEY, OUT, BenchError, Upstream, any_cpu, line_of, running, settle

_TIMEOUT = 30.0
_PIPED = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
Phases = Sequence[tuple[float, float]]
"""Trades/s and seconds, one after the other."""


@dataclass(frozen=True)
class Sent:
    """What the provider did."""

    trades: int
    due_ns: int
    """When the last trade was due, CLOCK_MONOTONIC."""
    end_ns: int
    """When it was sent: later than that if the receiver held the provider up."""


class Flow:
    """A process under test, connected and waiting for trades."""

    def __init__(self, process: subprocess.Popen[bytes], upstream_fd: int, directory: Path) -> None:
        self.process = process
        self.directory = directory
        self._fd = upstream_fd

    def send(self, per_frame: int, phases: Phases, timeout: float) -> Sent:
        """Send trades at these rates; comes back when all are sent."""
        log = self.directory / "pace.log"
        arguments = [f"{number:g}" for phase in phases for number in phase]
        command = [OUT / "pace", str(self._fd), str(per_frame), *arguments]
        with running(command, log, any_cpu(), pass_fds=(self._fd,), **_PIPED) as pace:
            line_of(pace, "ready", _TIMEOUT)
            assert pace.stdin
            pace.stdin.write(b"go\n")
            pace.stdin.flush()
            sent = line_of(pace, "sent", timeout)
            pace.stdin.close()
            pace.wait(_TIMEOUT)
        return Sent(*map(int, sent))


@contextlib.contextmanager
def balancer(
    directory: Path, shards: int, handler: str = "", options: str = "", pipe_size: int = 1 << 20, metrics: str = ""
) -> Iterator[Flow]:
    """Run `tradebal balancer`, and with `handler` a `tradebal worker` for each shard, until the block ends.

    `options` and `metrics` are lines for the tables [worker.options] and [metrics].
    """
    directory.mkdir()
    fifos = directory / "shards"
    fifos.mkdir()
    with contextlib.ExitStack() as stack:
        upstream = Upstream()
        stack.callback(upstream.close)
        command = balancer_command(upstream.url, fifos, shards, pipe_size)
        with (directory / "tradebal.toml").open("a") as config:
            config.write(f'[worker]\nhandler = "{handler}"\n[worker.options]\n{options}\n' if handler else "")
            config.write(f"[metrics]\n{metrics}\n")
        process = stack.enter_context(running(command, directory / "balancer.log", any_cpu(), OURS.environment()))
        connection = stack.enter_context(upstream.accept(process, websocket=True))
        if handler:
            for shard in range(shards):
                worker = [sys.executable, "-m", "tradebal", "worker", str(shard), *command[-2:]]
                log = directory / f"worker-{shard}.log"
                child = stack.enter_context(running(worker, log, any_cpu(), {"PYTHONPATH": str(HERE)}))
                settle(child.pid)
                if child.poll() is not None:
                    raise BenchError(f"a worker ended:\n{log.read_text()}")
        settle(process.pid)
        yield Flow(process, connection.fileno(), directory)


@contextlib.contextmanager
def client(directory: Path, script: str, *arguments: str | Path) -> Iterator[Flow]:
    """Run a Python client until the block ends."""
    directory.mkdir()
    with _connected(
        directory, lambda upstream: [sys.executable, HERE / script, upstream.url, *arguments], websocket=True
    ) as flow:
        settle(flow.process.pid)
        yield flow


@contextlib.contextmanager
def floor(directory: Path, contender: Floor, shards: int, pipe_size: int = 1 << 20) -> Iterator[Flow]:
    """Run what only reads and writes until the block ends; its FIFOs are where a balancer's are."""
    fifos = directory / "shards"
    fifos.mkdir(parents=True)
    with _connected(
        directory, lambda upstream: contender.command(upstream.url, fifos, shards, pipe_size), websocket=False
    ) as flow:
        yield flow


@contextlib.contextmanager
def relay(directory: Path, log: Path, reader: Sequence[str | Path]) -> Iterator[Flow]:
    """Run the bare relay, socket → FIFO → `reader` FIFO LOG, until the block ends; the reader writes `log` then."""
    directory.mkdir()
    fifo = directory / "fifo"
    with (
        _connected(
            directory, lambda upstream: [OUT / "relay", "send", str(upstream.port), fifo], websocket=False
        ) as flow,
        _reading(reader, fifo, log),
    ):
        yield flow


@contextlib.contextmanager
def read_balancer(directory: Path, logs: Sequence[Path], reader: Sequence[str | Path]) -> Iterator[Flow]:
    """Run `tradebal balancer` and, in the place of each worker, a `reader` FIFO LOG, until the block ends."""
    with balancer(directory, len(logs)) as flow, contextlib.ExitStack() as readers:
        for shard, log in enumerate(logs):
            readers.enter_context(_reading(reader, directory / "shards" / f"shard-{shard}.fifo", log))
        yield flow


@contextlib.contextmanager
def _reading(reader: Sequence[str | Path], fifo: Path, log: Path) -> Iterator[None]:
    with running([*reader, fifo, log], Path(f"{log}.out"), any_cpu()) as child:
        settle(child.pid)
        yield


@contextlib.contextmanager
def _connected(
    directory: Path, command: Callable[[Upstream], Sequence[str | Path]], *, websocket: bool
) -> Iterator[Flow]:
    with (
        contextlib.closing(Upstream()) as upstream,
        running(command(upstream), directory / "contender.log", any_cpu()) as process,
    ):
        connection = upstream.accept(process, websocket=websocket)
        yield Flow(process, connection.fileno(), directory)


def wait_until(done: float, what: str, reached: object) -> None:
    """Poll `reached()` every few milliseconds until it is true; BenchError after `done` seconds."""
    deadline = time.monotonic() + done
    while not reached():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise BenchError(f"{what} did not come within {done:.0f} s")
        time.sleep(0.005)


__all__ = ["KEY", "Flow", "Phases", "Sent", "balancer", "client", "floor", "read_balancer", "relay", "wait_until"]
