"""One measured run: load and contender as real processes, and the contender's CPU time between them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from block import Block, Expected

from tradebal.market.certificate import ThrowAwayAuthority

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
"""Compiled programs, and what a run leaves to look at after a failure."""

KEY = "bench"
CA_FILE = "ca.pem"
"""Beside the FIFOs' directory: the authority that a client by wss must trust."""
_START_TIMEOUT = 30.0
_RUN_TIMEOUT = 300.0
_MAX_RECORD = 1 << 14  # RFC 8446, section 5.1
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 4.2.2


class BenchError(Exception):
    """A run that can't be made, or whose output is wrong."""


def run_as_command(main: Callable[[], int]) -> None:
    """End the process with what `main` returns; a run that failed with one line that says why."""
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def compile_programs(*names: str) -> None:
    """Build the benchmark's own C programs into OUT."""
    OUT.mkdir(exist_ok=True)
    for name in names:
        source, program = HERE / f"{name}.c", OUT / name
        if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
            continue
        command = [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", program, source]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{name}.c doesn't compile:\n{done.stderr}")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system, all of its threads, also ended ones (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def pipe_size_for(shards: int) -> int:
    """Bytes a FIFO such that all fit into what the kernel gives an unprivileged user without falling back silently."""
    return 1 << 20 if shards <= 8 else 1 << 18 if shards <= 64 else 1 << 17


def window_for(expected: Expected, shards: int) -> int:
    """Bytes under way at most, so that even the shard with the most trades finds room for its part of them."""
    return min(2 << 20, int(0.8 * pipe_size_for(shards) / expected.largest_share))


class Upstream:
    """The provider's side until the trades begin: opening handshake and the login exchange, then a plain socket."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a free port of the loopback interface."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self.port = self._listener.getsockname()[1]
        self.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{self.port}/stocks"

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def accept(self, process: subprocess.Popen[bytes], *, websocket: bool) -> socket.socket:
        """Wait for the contender to connect, and with `websocket`, until it has subscribed."""
        deadline = time.monotonic() + _START_TIMEOUT
        while not select.select([self._listener], [], [], 0.1)[0]:
            if process.poll() is not None:
                raise BenchError(f"ended with status {process.returncode} before it connected")
            if time.monotonic() > deadline:
                raise BenchError("did not connect")
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as every provider does
        try:
            connection.settimeout(_START_TIMEOUT)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            if websocket:
                self._dialogue(connection)
            connection.settimeout(None)
        except (OSError, BenchError):
            connection.close()
            raise
        return connection

    def _dialogue(self, connection: socket.socket) -> None:
        received = bytearray()
        while b"\r\n\r\n" not in received:
            received += _some(connection)
        head, _, rest = bytes(received).partition(b"\r\n\r\n")
        key = next(
            line.partition(b":")[2].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1(key + _ACCEPT).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        received = bytearray(rest)
        for expected, status, message in (
            (b"", b"connected", b"Connected Successfully"),
            (b'"auth"', b"auth_success", b"authenticated"),
            (b'"subscribe"', b"success", b"subscribed to: T.*"),
        ):
            if expected:
                text = _client_frame(connection, received)
                if expected not in text:
                    raise BenchError(f"the client sent {text!r}, not {expected!r}")
            answer = b'[{"ev":"status","status":"' + status + b'","message":"' + message + b'"}]'
            connection.sendall(bytes((0x81, len(answer))) + answer)


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise BenchError("the client closed the connection during the login")
    return data


def _client_frame(connection: socket.socket, received: bytearray) -> bytes:
    while len(received) < 2 or len(received) < (size := 6 + (received[1] & 127)):
        received += _some(connection)
    mask, payload = received[2:6], received[6:size]
    del received[:size]
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


@dataclass(frozen=True)
class Contender:
    """One of the programs side by side."""

    name: str
    label: str
    websocket: bool = True
    wss: bool = False
    by_shard: bool = True
    """Whether each trade must come out of its symbol's shard (the floor only moves bytes)."""

    def command(self, url: str, directory: Path, shards: int, pipe_size: int) -> Sequence[str | Path]:
        """Give the command that is run; it makes `directory`/shard-N.fifo."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Give what is added to the environment."""
        return {}


@dataclass(frozen=True)
class Result:
    """What one verified run took."""

    trades: int
    bytes: int
    """Bytes that went into the FIFOs."""
    cpu: float
    """CPU seconds of the contender, from just before the first trade was sent until the last had been read."""
    wall: float
    """Seconds from the first byte read to the last."""
    pipe: int
    """Capacity of the smallest FIFO, as the kernel gave it."""

    @property
    def rate(self) -> float:
        """Trades per CPU-second."""
        return self.trades / self.cpu


def places() -> tuple[set[int], set[int]]:
    """Give the contender's CPU and the load's.

    Left to the scheduler, the two share caches differently in each run, and figures jump by half.
    """
    cpus = sorted(os.sched_getaffinity(0))
    return {cpus[0]}, {cpus[-1]}


def any_cpu() -> set[int]:
    """Leave it to the scheduler."""
    return os.sched_getaffinity(0)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    cpus: set[int],
    environment: Mapping[str, str] | None = None,
    **options: object,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on these CPUs for as long as the block lasts; its output goes to `log`, shown on an error."""
    ours = os.sched_getaffinity(0)
    with log.open("wb") as output:
        options = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL, **options}
        os.sched_setaffinity(0, cpus)  # inherited, so that the program is there from its first instruction
        try:
            process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, **options)  # type: ignore[call-overload]
        finally:
            os.sched_setaffinity(0, ours)
    try:
        yield process
    except (BenchError, OSError) as error:
        process.kill()
        process.wait()
        tail = log.read_text(errors="replace")[-2000:]
        raise BenchError(f"{error}\n{tail}".rstrip()) from error
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


def settle(pid: int) -> float:
    """Wait until the process has done with starting up; returns its CPU time then."""
    deadline = time.monotonic() + _START_TIMEOUT
    before = cpu_seconds(pid)
    while True:
        time.sleep(0.1)
        now = cpu_seconds(pid)
        if now - before < 0.001 or time.monotonic() > deadline:
            return now
        before = now


def line_of(process: subprocess.Popen[bytes], word: str, timeout: float) -> list[str]:
    """Read the process' next line of output, which must begin with `word`; returns the rest of it, split."""
    assert process.stdout
    if not select.select([process.stdout], [], [], timeout)[0]:
        raise BenchError(f"no {word!r} within {timeout:.0f} s")
    line = process.stdout.readline().decode().split()
    if line[:1] != [word]:
        process.wait(5)
        raise BenchError(f"{line} instead of {word!r}" if line else f"ended without {word!r}")
    return line[1:]


@contextlib.contextmanager
def _encrypting(connection: socket.socket, record: int, cpus: set[int]) -> Iterator[socket.socket]:
    """Give a socket whose bytes go out by `connection`, in TLS records of at most `record` bytes, on these CPUs."""
    near, far = socket.socketpair()

    def seal() -> None:
        os.sched_setaffinity(0, cpus)  # this thread's
        buffer = bytearray(record)
        with contextlib.suppress(OSError), memoryview(buffer) as view:
            while count := far.recv_into(buffer):
                connection.sendall(view[:count])

    thread = threading.Thread(target=seal)
    thread.start()
    try:
        yield near
    finally:
        near.close()
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
        far.shutdown(socket.SHUT_RDWR)
        thread.join()
        far.close()


def measure(
    contender: Contender,
    block: Block,
    expected: Expected,
    shards: int,
    repeats: int,
    directory: Path,
    at_end: Callable[[int], None] | None = None,
) -> Result:
    """Send the block `repeats` times through the contender; BenchError unless exactly the right bytes come out.

    `at_end` is called with the contender's process id when all has come out.
    """
    directory.mkdir()
    fifos = directory / "shards"
    fifos.mkdir()
    tls = None
    if contender.wss:
        authority = ThrowAwayAuthority()
        authority.write(directory / CA_FILE)
        tls = authority.server_context()
    upstream = Upstream(tls)
    pipe_size = pipe_size_for(shards)
    command = contender.command(upstream.url, fifos, shards, pipe_size)
    own, others = places()
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with contextlib.ExitStack() as stack:
        stack.callback(upstream.close)
        process = stack.enter_context(running(command, directory / "contender.log", own, contender.environment()))
        connection = stack.enter_context(upstream.accept(process, websocket=contender.websocket))
        if contender.wss:
            connection = stack.enter_context(
                _encrypting(connection, min(_MAX_RECORD, block.bytes // block.frames), others)
            )
        log = directory / "load.log"
        fd = connection.fileno()
        wanted = expected.path if contender.by_shard else f"-{block.byte_sum}"
        numbers = [str(shards), str(repeats), str(window_for(expected, shards))]
        command = [OUT / "load", str(fd), block.path, fifos, *numbers, wanted]
        load = stack.enter_context(running(command, log, others, pass_fds=(fd,), **piped))
        pipe = int(line_of(load, "ready", _START_TIMEOUT)[0])
        before = settle(process.pid)
        assert load.stdin
        load.stdin.write(b"go\n")
        load.stdin.flush()
        done = line_of(load, "done", _RUN_TIMEOUT)
        cpu = cpu_seconds(process.pid) - before
        if process.poll() is not None:
            raise BenchError(f"ended with status {process.returncode}")
        if at_end:
            at_end(process.pid)
        load.stdin.close()
        if load.wait(_START_TIMEOUT):
            raise BenchError("wrong bytes")
    return Result(block.trades * repeats, int(done[0]), cpu, int(done[1]) / 1e9, pipe)
