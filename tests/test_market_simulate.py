"""`tradebal simulate` as its users run it: a process, its files, and its signals."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import market_client
from tests.waiting import until


@contextlib.contextmanager
def simulate(directory: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Run it on a free port; gives the process and the URL's authority, and kills what is left."""
    port = directory / "port"
    command = [sys.executable, "-m", "tradebal", "simulate", "--port", "0", "--port-file", str(port), *arguments]
    with (directory / "log").open("w") as log, subprocess.Popen(command, stderr=log, stdout=subprocess.PIPE) as process:
        try:
            until(lambda: port.exists() or process.poll() is not None, "the port file")
            assert process.poll() is None, (directory / "log").read_text()
            yield process, f"localhost:{port.read_text().strip()}"
        finally:
            process.kill()


def test_once_serves_a_client_over_wss_and_reports_what_it_sent(tmp_path):
    ca, report, sent = tmp_path / "ca.pem", tmp_path / "report.json", tmp_path / "sent.csv"
    arguments = ["--session", "max", "--trades", "50000", "--once", "--seed", "7"]
    files = ["--ca-out", str(ca), "--report", str(report), "--sent-log", str(sent)]
    with simulate(tmp_path, *arguments, *files) as (process, where):
        with market_client.logged_in(f"wss://{where}/stocks", ca=ca) as client:
            assert sum(1 for _ in market_client.objects(client)) == 50_000
        assert process.wait(20) == 0
    outcome = json.loads(report.read_text())
    assert (outcome["session"], outcome["seed"], outcome["trades"]) == ("max", 7, 50_000)
    assert outcome["clients"][0]["ended"] == "end of playback"
    assert sum(int(line.split(",")[2]) for line in sent.read_text().splitlines()[1:]) == 50_000
    log = (tmp_path / "log").read_text()
    assert "listening: url=wss://127.0.0.1:" in log
    assert "sent: clients=1 trades=50000 " in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_with_the_report(tmp_path, number):
    report = tmp_path / "report.json"
    arguments = ["--session", "steady", "--no-tls", "--key", "made-up", "--report", str(report)]
    with simulate(tmp_path, *arguments) as (process, where):
        with market_client.logged_in(f"ws://{where}/stocks", key="made-up") as client:
            client.recv()
            process.send_signal(number)
            *_, (_, close) = market_client.messages(client)
            assert market_client.close_code(close) == 1001
        assert process.wait(20) == 0
    assert json.loads(report.read_text())["trades"] > 0
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert "made-up" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rate", "0"], "is not a number above 0"),
        (["--rate", "x"], "is not a number"),
        (["--duration", "inf"], "is not a number"),
        (["--trades", "-1"], "is not a whole number above 0"),
        (["--port", "70000"], "is not a port"),
        (["--buffer", "many"], "is not a size"),
        (["--session", "noon"], "invalid choice"),
        (["--session", "max", "--rate", "5"], "--rate doesn't go with --session max"),
    ],
)
def test_wrong_arguments_are_named(arguments, complaint):
    command = [sys.executable, "-m", "tradebal", "simulate", "--no-tls", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "missing" / "ca.pem"
    command = [sys.executable, "-m", "tradebal", "simulate", "--port", "0", "--ca-out", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"cannot write {path}: No such file or directory" in done.stderr
