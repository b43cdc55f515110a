"""A worker as a real process, and the writing end of its FIFO as a balancer holds it."""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.waiting import until
from tradebal.monitoring import publish
from tradebal.stream import pipes

COLLECT = '''
"""Writes down everything that it gets, at once."""
import os
import time
from tradebal.handlers import Handler


class Collect(Handler):
    def __init__(self, context, *, file, takes=0):
        super().__init__(context)
        self.fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.takes = takes

    def on_trades(self, batch):
        time.sleep(self.takes)
        os.write(self.fd, b"".join(line + b"\\n" for line in batch.lines()))

    def on_gap(self, gap):
        os.write(self.fd, b"gap %s\\n" % gap.reason.encode())

    def close(self):
        os.write(self.fd, b"closed\\n")
        os.close(self.fd)
'''


def trade(number: int) -> bytes:
    return b'{"ev":"T","sym":"S%d","q":%d}' % (number % 7, number)


class Balancer:
    """Holds one shard's FIFO open for reading and writing, as the balancer does."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o640)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, size)

    def write(self, data: bytes, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.fd, view) :]
            except BlockingIOError:
                assert time.monotonic() < deadline, "nobody reads the FIFO"
                select.select([], [self.fd], [], 0.05)

    def unread(self) -> int:
        return pipes.unread(self.fd)

    def until_read(self) -> None:
        until(lambda: self.unread() == 0, "the worker to empty the FIFO")

    def rest(self) -> bytes:
        """Take what nobody has read."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.fd, 1 << 20):
                data += piece
        return data

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Bench:
    """A directory with a configuration, FIFOs and workers; ends everything that it started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen_file = directory / "seen"
        self._balancers: list[Balancer] = []
        self._workers: list[Process] = []
        (directory / "collect.py").write_text(COLLECT)
        self.configure(f"file = '{self.seen_file}'", handler="collect:Collect")

    def configure(self, options: str, *, handler: str, worker: str = "", shards: str = "") -> None:
        self.config = self.directory / "tradebal.toml"
        self.config.write_text(
            f"[shards]\ncount = 2\ndirectory = '{self.directory}'\n{shards}\n"
            f"[metrics]\ninterval = 0.05\n"
            f"[worker]\nhandler = '{handler}'\n{worker}\n[worker.options]\n{options}\n"
        )

    def balancer(self, shard: int = 0, size: int = 1 << 16) -> Balancer:
        balancer = Balancer(self.directory / f"shard-{shard}.fifo", size)
        self._balancers.append(balancer)
        return balancer

    def worker(self, shard: int = 0, *arguments: str, **environment: str) -> "Process":
        log = self.directory / f"worker-{len(self._workers)}.log"
        process = Process(
            ["worker", str(shard), "--config", str(self.config), *arguments], self.directory, log, environment
        )
        self._workers.append(process)
        return process

    def seen(self) -> list[bytes]:
        """What the handler got: trades, `gap REASON`, `closed`."""
        return self.seen_file.read_bytes().splitlines() if self.seen_file.exists() else []

    def size(self) -> int:
        """How many bytes the handler wrote."""
        return self.seen_file.stat().st_size if self.seen_file.exists() else 0

    def figure(self, name: str, shard: int = 0, **labels: str) -> float:
        return publish.value(publish.read(self.directory / "metrics").get(f"worker-{shard}", []), name, **labels)

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        for balancer in self._balancers:
            balancer.close()


class Process:
    """`tradebal …` as a child process, its log in a file."""

    def __init__(self, arguments: list[str], directory: Path, log: Path, environment: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tradebal", *arguments],
                cwd=directory,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
            )
        self.pid = self._process.pid

    def log(self) -> str:
        return self._log.read_text()

    def says(self, text: str) -> None:
        """Wait until the log holds the text."""
        until(lambda: text in self.log() or self._process.poll() is not None, f"{text!r} in the log")
        assert text in self.log(), self.log()

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def ends(self, timeout: float = 30.0) -> int:
        """Wait for its end; returns the exit status."""
        return self._process.wait(timeout)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.ends()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
