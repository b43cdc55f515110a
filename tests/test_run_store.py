"""What a supervisor keeps for a unit's next process: as systemd's descriptor store, without systemd."""

import os
import signal
import socket
import stat
import sys

import pytest

from tests.system import KEY, System
from tests.test_system import Numbered, provider
from tests.waiting import until
from tradebal.run.processes import units
from tradebal.run.store import Store
from tradebal.run.supervisor import Supervisor, Unit


@pytest.fixture
def store():
    made = Store()
    yield made
    made.close()


def send(store, text, *descriptors):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unit:
        unit.connect(store.env["NOTIFY_SOCKET"])
        socket.send_fds(unit, [text.encode()], descriptors)
    store.receive()


def test_a_descriptor_is_kept_under_its_name_until_the_unit_forgets_it(store, tmp_path):
    with (tmp_path / "file").open("w") as file:
        send(store, "FDSTORE=1\nFDPOLL=0\nFDNAME=state", file.fileno())
    assert os.fstat(store.kept["state"]).st_ino == (tmp_path / "file").stat().st_ino
    send(store, "FDSTOREREMOVE=1\nFDNAME=state")
    assert store.kept == {}


@pytest.mark.parametrize("name", ["", "with:colon", "with space", "line\x7f", "x" * 256])
def test_a_name_that_could_not_be_passed_on_is_refused_and_logged(store, name, caplog):
    send(store, f"FDSTORE=1\nFDNAME={name}", 0)
    assert store.kept == {}
    assert "a descriptor was not kept" in caplog.text


@pytest.mark.parametrize("text", ["", "READY=1", "FDSTORE=1\nFDNAME=a", "FDSTOREREMOVE=1\nFDNAME=none", "\xff=\n=="])
def test_what_keeps_nothing_is_taken_without_harm(store, text):
    send(store, text)
    assert store.kept == {}


PARK = """
import os, socket, sys
names = os.environ.get("LISTEN_FDNAMES", "")
print(names, os.environ.get("LISTEN_PID") == str(os.getpid()), flush=True)
if names:
    print(os.read(3 + names.split(":").index("b"), 9), os.environ["LISTEN_FDS"], flush=True)
    import signal; signal.pause()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
    line.connect(os.environ["NOTIFY_SOCKET"])
    for name in "ab":
        ours, theirs = os.pipe()
        os.write(theirs, name.encode())
        socket.send_fds(line, [f"FDSTORE=1\\nFDNAME={name}".encode()], [ours])
"""


def test_the_next_process_gets_them_by_name_from_descriptor_3_on(tmp_path):
    log = tmp_path / "log"
    with (
        log.open("wb") as out,
        Supervisor([Unit("u", (sys.executable, "-c", PARK), keeps_descriptors=True)], stdout=out) as supervisor,
    ):
        until(lambda: log.read_text().count("\n") == 3, "the second process's lines")
        supervisor.stop()
        supervisor.wait()
    assert log.read_text().splitlines() == [" False", "a:b True", "b'b' 2"]


def test_what_nobody_took_when_all_has_stopped_is_logged_and_its_fifo_removed(tmp_path, caplog):
    fifo = tmp_path / "shard-0.fifo"
    script = f"""
import os, socket
os.mkfifo({str(fifo)!r})
fd = os.open({str(fifo)!r}, os.O_RDWR)
os.write(fd, bytes(1234))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
    line.connect(os.environ["NOTIFY_SOCKET"])
    socket.send_fds(line, [b"FDSTORE=1\\nFDNAME=fifo-0"], [fd])
import signal; signal.pause()
"""
    with Supervisor([Unit("u", (sys.executable, "-c", script), keeps_descriptors=True)]) as supervisor:
        until(lambda: fifo.exists() and supervisor._children[0].store.kept, "the FIFO to be kept")
        assert stat.S_ISFIFO(fifo.stat().st_mode)
        supervisor.stop()
        assert supervisor.wait(20) == 1
    assert "u lost=1234 bytes that nobody took" in caplog.text
    assert not fifo.exists()


def test_a_balancer_killed_under_run_loses_nothing_that_it_had_received(tmp_path):
    with provider(Numbered(20_000)) as serving, System(tmp_path, serving.url) as system:
        log = tmp_path / "run.log"
        balancer = [unit for unit in units(2, system.config) if unit.name == "balancer"]
        env = {**os.environ, "TRADEBAL_FEED_KEY": KEY}
        with log.open("wb") as out, Supervisor(balancer, env=env, stdout=out, stderr=out) as supervisor:
            system.wait_for("tradebal_trades_total", 20_000)
            system.wait_for("tradebal_shard_overflow_bytes", 1_000_000)  # no worker is there
            serving.stop()
            first = supervisor.pid("balancer")
            os.kill(first, signal.SIGKILL)
            until(lambda: "took over" in log.read_text(), "the next balancer to take over")
            assert supervisor.pid("balancer") != first
            for shard in range(2):
                system.start("worker", shard)
            system.wait_for("tradebal_worker_trades_total", 20_000)
            for shard in range(2):
                system.stop(f"worker-{shard}")
            supervisor.stop()
            assert supervisor.wait(40) == 0
        audits = system.audits()
        assert sum(audit["trades"] for audit in audits) == 20_000
        assert [audit["disordered"] for audit in audits] == [0, 0]
        assert [audit["gaps"] for audit in audits] == [["restart"]] * 2
