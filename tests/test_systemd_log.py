"""Log lines suit their reader, and a flood of them is cut and counted."""

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
from tradebal.systemd.journal import Journal

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
    assert len(lines) == 4


def test_in_the_journal_each_line_has_its_priority_and_no_time(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as stderr:
        status = os.fstat(stderr.fileno())
        run(stderr, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
    assert path.read_text() == "<4>frame refused: code=1002\n<6>connected: url=wss://x\n<3>two\n<3>lines\n"


def test_the_journal_itself_gets_each_line_as_one_entry_with_fields(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald, (tmp_path / "log").open("wb") as stderr:
        journald.bind(str(tmp_path / "socket"))
        journald.settimeout(30)
        status = os.fstat(stderr.fileno())
        run(stderr, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}", JOURNAL_SOCKET=str(tmp_path / "socket"))
        entries = [journald.recv(65536) for _ in range(3)]
    assert b"MESSAGE=frame refused: code=1002\nPRIORITY=4\nSYSLOG_IDENTIFIER=tradebal\n" in entries[0]
    assert b"MESSAGE=connected: url=wss://x\nPRIORITY=6\n" in entries[1]
    assert b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\nPRIORITY=3\n" in entries[2]
    assert (tmp_path / "log").read_bytes() == b""


def test_a_full_journal_holds_nobody_up_and_what_it_missed_is_said(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "socket"))
        journald.setblocking(False)
        journal = Journal(str(tmp_path / "socket"))
        while journal.send({"MESSAGE": "x"}):
            pass
        assert not journal.send({"MESSAGE": "y"})
        assert journal.left_out == 2
        journal.close()


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
