"""Log lines suit their reader, and a flood of them is cut and counted."""

import contextlib
import io
import logging
import os
import pty
import re
import socket
import subprocess
import sys

import pytest

from tradebal.systemd import log

SCRIPT = """
import logging, os
from tradebal.systemd import journal, log
journal.SOCKET = os.environ.get("JOURNAL_SOCKET", "/nonexistent")
log.setup("balancer")
logging.getLogger("tradebal").warning("frame refused: code=%d", 1002)
logging.getLogger("tradebal").info("connected: url=%s", "wss://x")
logging.getLogger("tradebal").error("two\\nlines")
logging.getLogger("tradebal").debug("not shown")
"""
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"


def run(stderr, **env):
    base = {k: v for k, v in os.environ.items() if k not in ("JOURNAL_STREAM", "NO_COLOR", "TERM")}
    subprocess.run([sys.executable, "-c", SCRIPT], stderr=stderr, env=base | env, check=True, timeout=60)


def test_in_a_file_a_line_has_time_unit_and_level(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as stderr:
        run(stderr)
    lines = path.read_text().splitlines()
    assert re.fullmatch(STAMP + r" tradebal-balancer WARNING frame refused: code=1002", lines[0])
    assert re.fullmatch(STAMP + r" tradebal-balancer INFO connected: url=wss://x", lines[1])
    assert len(lines) == 3


def test_in_the_journal_each_line_has_its_priority_and_no_time(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as stderr:
        status = os.fstat(stderr.fileno())
        run(stderr, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
    assert path.read_text() == "<4>frame refused: code=1002\n<6>connected: url=wss://x\n<3>two\\nlines\n"


def test_the_journal_itself_gets_each_line_as_one_entry_with_fields(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald, (tmp_path / "log").open("wb") as stderr:
        journald.bind(str(tmp_path / "socket"))
        journald.settimeout(30)
        status = os.fstat(stderr.fileno())
        run(stderr, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}", JOURNAL_SOCKET=str(tmp_path / "socket"))
        entries = [journald.recv(65536) for _ in range(3)]
    assert b"MESSAGE=frame refused: code=1002\nPRIORITY=4\nSYSLOG_IDENTIFIER=tradebal\n" in entries[0]
    assert b"MESSAGE=connected: url=wss://x\nPRIORITY=6\n" in entries[1]
    assert b"MESSAGE=two\\nlines\nPRIORITY=3\n" in entries[2]
    assert (tmp_path / "log").read_bytes() == b""


def test_a_full_journal_holds_nobody_up_and_what_it_missed_is_logged_afterwards(tmp_path):
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald,
        (tmp_path / "log").open("w") as stderr,
        pytest.MonkeyPatch.context() as patch,
    ):
        journald.bind(str(tmp_path / "socket"))
        journald.setblocking(False)
        status = os.fstat(stderr.fileno())
        patch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        patch.setattr("tradebal.systemd.journal.SOCKET", str(tmp_path / "socket"))
        with own_root_logger() as logger:
            log.setup("balancer", stream=stderr)
            for number in range(5000):  # more than any socket's queue
                logger.info("line %d", number)
            entries = received(journald)
            assert 0 < len(entries) < 5000
            logger.info("after")
            logger.info("last")
            told = received(journald)
    assert f"count={5000 - len(entries)}\n".encode() in b"".join(told)
    assert b"MESSAGE=after\n" in told[0]
    assert b"MESSAGE=last\n" in told[-1]
    assert len(told) == 3


def received(journald):
    entries = []
    with contextlib.suppress(BlockingIOError):
        while True:
            entries.append(journald.recv(65536))
    return entries


@contextlib.contextmanager
def own_root_logger():
    """The root logger as `setup` leaves it, and afterwards as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield logging.getLogger("tradebal")
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            if handler not in handlers:
                handler.close()
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)


def read_all(reader):
    os.set_blocking(reader, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(reader, 65536):
            data += piece
    return data


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_a_reader_that_stops_reading_holds_nobody_up_and_the_lines_it_missed_are_counted(kind, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    if kind == "pipe":
        reader, writer = os.pipe()
    elif kind == "socket":
        reader, writer = (end.detach() for end in socket.socketpair())
    else:
        reader, writer = pty.openpty()
    try:
        with own_root_logger() as logger, open(writer, "w", closefd=False) as stream:
            log.setup("balancer", stream=stream)
            for number in range(20_000):  # would wait for ever
                logger.info("line %d %s", number, "x" * (number % 200))
            seen, logged = b"", 20_000
            while b" INFO after" not in seen:
                seen += read_all(reader)
                logger.info("after")
                logged += 1
                seen += read_all(reader)
        lines = seen.decode().splitlines()
        taken = sum(" INFO " in line for line in lines)
        assert 0 < taken < 20_000
        counts = [int(line.rpartition("=")[2]) for line in lines if " WARNING lines left out" in line]
        assert sum(counts) == logged - taken
        assert len(lines) == taken + len(counts)
        assert os.get_blocking(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_full_pipe_as_stderr_and_stdout_does_not_stop_a_process():
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        run(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_journal_elsewhere_changes_nothing(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as stderr:
        run(stderr, JOURNAL_STREAM="1:1")
    assert " tradebal-balancer WARNING " in path.read_text()


@pytest.mark.parametrize(("env", "coloured"), [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(env, coloured):
    main, child = pty.openpty()
    try:
        run(child, **env)
        seen = os.read(main, 65536)
    finally:
        os.close(main)
        os.close(child)
    assert (b"\x1b[33m" in seen) is coloured
    assert b"frame refused" in seen


def test_a_reader_of_the_log_that_went_away_stops_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run(writer, PYTHONUNBUFFERED="")
        run(writer, PYTHONUNBUFFERED="1")
    finally:
        os.close(writer)


@pytest.fixture
def limited():
    """A limited log on a clock that the test moves, and what it wrote."""
    stream, now = io.StringIO(), [0.0]
    logger = logging.Logger("test")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    return log.Limited(logger, per_second=2, clock=lambda: now[0]), now, lambda: stream.getvalue().splitlines()


def test_a_flood_is_cut_and_counted(limited):
    lines, now, written = limited
    for number in range(5):
        lines.warning("reject: number=%d", number)
    assert written() == ["WARNING reject: number=0", "WARNING reject: number=1"]
    now[0] = 1.0
    lines.info("reject: number=%d", 5)
    assert written()[2:] == ["WARNING similar lines left out: count=3", "INFO reject: number=5"]
    now[0] = 2.5
    lines.flush()
    assert len(written()) == 4


def test_the_count_comes_out_when_the_flood_has_stopped(limited):
    lines, now, written = limited
    for number in range(3):
        lines.error("reject: number=%d", number)
    lines.flush()
    assert len(written()) == 2
    now[0] = 60.0
    lines.flush()
    assert written()[2:] == ["ERROR similar lines left out: count=1"]
