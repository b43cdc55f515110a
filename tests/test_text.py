"""What came from outside reaches a terminal, a log and a metrics file as text, and nothing else."""

import io
import logging
import subprocess
import sys
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge

from tradebal.monitoring import figures, publish, top
from tradebal.systemd import log
from tradebal.text import printable

EVIL = ["A\rB", "A\nB", "\x1b]0;title\x07", "A\x9b31mB", "A\u202eB", "A\u2028B", "A\x85B", "\x00"]


@given(st.text())
def test_nothing_printed_moves_a_cursor_or_ends_a_line(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert all(ord(character) >= 0x20 and not 0x7F <= ord(character) < 0xA0 for character in shown)
    shown.encode()  # no lone surrogate is left


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_ordinary_text_of_any_script_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize("symbol", EVIL, ids=ascii)
def test_a_symbol_that_holds_control_characters_spoils_neither_the_metrics_nor_the_terminal(tmp_path, symbol):
    registry = CollectorRegistry()
    Gauge("tradebal_top_symbol_trades", "Trades.", ["symbol"], registry=registry).labels(symbol).set(7)
    Gauge("tradebal_last_batch_rate", "Rate.", registry=registry).set(5)
    publish.Publisher(registry, tmp_path, "balancer").publish()
    now = figures.read(tmp_path)
    assert now is not None
    assert now.top == {printable(symbol): 7}
    rich = pytest.importorskip("rich.console")
    for console in (rich.Console(file=io.StringIO()), rich.Console(file=io.StringIO(), force_terminal=True)):
        with console.capture() as shown:
            console.print(top.draw(now, figures.Rates(0.0, ()), deque([0.0]), 40))
        assert printable(symbol) in shown.get()


def test_top_escapes_what_another_program_wrote_into_the_metrics_directory(tmp_path):
    (tmp_path / "balancer.prom").write_text('tradebal_top_symbol_trades{symbol="\x1b[31mA"} 7\n')
    now = figures.read(tmp_path)
    assert now is not None
    assert now.top == {r"\x1b[31mA": 7}


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
def test_a_log_line_stays_one_line_whatever_a_peer_sent(evil, monkeypatch):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log._PlainFormatter("record", colours=False))
    logger = logging.Logger("peer")
    logger.addHandler(handler)
    logger.warning("message refused: %s", f"{evil}ERROR forged")
    logger.error("failed", exc_info=(ValueError, ValueError(f"x{evil}"), None))
    lines = stream.getvalue().split("\n")
    assert printable(evil) in lines[0]
    assert all(line == printable(line) for line in lines)


UNDUMPABLE = """
import ctypes, sys
import tradebal.balancer.service, tradebal.recordings.recorder
from tradebal.cli import main

def held(*_, **__):
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
    raise SystemExit(0)

tradebal.balancer.service.Balancer = tradebal.recordings.recorder.Recorder = held
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("arguments", [("balancer",), ("record", "x.zst")], ids=["balancer", "record"])
def test_a_process_that_holds_the_key_leaves_no_core_dump(tmp_path, arguments):
    config = tmp_path / "tradebal.toml"
    config.write_text(f"[shards]\ndirectory = '{tmp_path}'\n")
    command = [sys.executable, "-c", UNDUMPABLE, *arguments, "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout == "0\n", done.stderr  # PR_GET_DUMPABLE, prctl(2)
