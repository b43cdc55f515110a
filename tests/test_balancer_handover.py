"""What a balancer that was killed or restarted had for its workers reaches them from the next one."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.system import KEY, System
from tests.test_system import SYMBOLS, Numbered, provider
from tests.waiting import until

# Systemd passes descriptors from 3 on, and LISTEN_PID is the process itself.
EXEC = """\
import os, sys
names = [name for name in sys.argv[1].split(":") if name]
for number, fd in enumerate(sys.argv[2].split(",") if names else []):
    os.dup2(int(fd), 3 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
os.execv(sys.executable, [sys.executable, "-m", "tradebal", "balancer", "--config", sys.argv[3]])
"""


class Store:
    """As much of systemd as parks descriptors."""

    def __init__(self, directory):
        self.path = directory / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)
        self.kept = {}

    def receive(self):
        """Take in what was sent; returns whether READY=1 was."""
        ready = False
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 16)
                fields = dict(line.partition("=")[::2] for line in data.decode().splitlines())
                ready |= fields.get("READY") == "1"
                if "FDSTORE" in fields:
                    assert fields["FDPOLL"] == "0"
                    assert fields["FDNAME"] not in self.kept
                    # Well above the numbers that they are passed as.
                    (fd,) = descriptors
                    self.kept[fields["FDNAME"]] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 300)
                    os.close(fd)
                elif "FDSTOREREMOVE" in fields and fields["FDNAME"] in self.kept:
                    os.close(self.kept.pop(fields["FDNAME"]))
        return ready

    def close(self):
        self.receive()
        for fd in self.kept.values():
            os.close(fd)
        self.socket.close()


class Kept(System):
    """A system whose balancer is started as systemd does, with what the one before had parked."""

    def __enter__(self):
        self.store = Store(self.directory)
        return self

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.store.close()

    def start_balancer(self):
        self.store.receive()
        kept = self.store.kept
        with (self.logs / "balancer").open("ab") as log:
            self.processes["balancer"] = subprocess.Popen(
                [sys.executable, "-c", EXEC, ":".join(kept), ",".join(map(str, kept.values())), str(self.config)],
                stdout=log,
                stderr=log,
                pass_fds=list(kept.values()),
                env={**os.environ, "TRADEBAL_FEED_KEY": KEY, "NOTIFY_SOCKET": str(self.store.path), "FDSTORE": "64"},
            )
        until(self.store.receive, "the balancer to be ready")

    def kill_balancer(self):
        self.stop("balancer", signal.SIGKILL)
        self.store.receive()


def numbers(system):
    audits = system.audits()
    assert [audit["disordered"] for audit in audits] == [0] * len(audits)
    return sum(audit["trades"] for audit in audits)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_fifo_and_overflow_reach_workers_that_start_later(tmp_path, end):
    with provider(Numbered(20_000)) as serving, Kept(tmp_path, serving.url) as system:
        system.start_balancer()
        system.wait_for("tradebal_trades_total", 20_000)
        # Pipes of 64 KiB: most of two megabytes is in the overflow.
        system.wait_for("tradebal_shard_overflow_bytes", 1_000_000)
        serving.stop()
        if end is signal.SIGINT:
            system.processes["balancer"].send_signal(end)  # a second one ends its wait for workers
            until(lambda: "stopping: " in system.log("balancer"), "the stop")
        system.stop("balancer", end)
        system.start_balancer()
        assert "took over" in system.log("balancer")
        for shard in range(2):
            system.start("worker", shard)
        system.wait_for("tradebal_worker_trades_total", 20_000)
        system.stop_all()
        assert numbers(system) == 20_000
        gaps = [["restart"]] * 2 if end is signal.SIGKILL else [[]] * 2
        assert [audit["gaps"] for audit in system.audits()] == gaps


def test_a_record_torn_by_a_kill_is_replaced_by_a_gap(tmp_path):
    with provider(Numbered(100)) as serving, Kept(tmp_path, serving.url) as system:
        system.start_balancer()
        system.wait_for("tradebal_trades_total", 100)
        serving.stop()
        system.kill_balancer()
        os.write(system.store.kept["fifo-0"], b'{"ev":"T","sym":"AAPL","q":101,"p":1')
        system.start_balancer()
        for shard in range(2):
            system.start("worker", shard)
        system.wait_for("tradebal_worker_gaps_total", 2, reason="restart")
        system.stop_all()
        assert numbers(system) == 100
        assert system.value("tradebal_worker_undecodable_total") == 0


def test_torn_length32_records_cannot_be_mended_so_killed_ones_begin_anew(tmp_path):
    with (
        provider(Numbered(100)) as serving,
        Kept(tmp_path, serving.url, shards='framing = "length32"') as system,
    ):
        system.start_balancer()
        for shard in range(2):
            system.start("worker", shard)
        system.wait_for("tradebal_worker_trades_total", 100)
        before = (system.run / "shard-0.fifo").stat().st_ino
        system.kill_balancer()
        os.write(system.store.kept["fifo-0"], b"\x20\0\0\0{")
        system.start_balancer()
        assert (system.run / "shard-0.fifo").stat().st_ino != before
        assert "made anew: shards=0,1" in system.log("balancer")
        system.wait_for("tradebal_worker_trades_total", 200)  # the provider plays its tape again
        system.wait_for("tradebal_worker_gaps_total", 1, reason="restart", shard="0")
        system.stop_all()


def test_a_kill_costs_nothing_of_what_waits_in_length32_either(tmp_path):
    with (
        provider(Numbered(20_000)) as serving,
        Kept(tmp_path, serving.url, shards='framing = "length32"') as system,
    ):
        system.start_balancer()
        system.wait_for("tradebal_trades_total", 20_000)
        system.wait_for("tradebal_shard_overflow_bytes", 1_000_000)
        serving.stop()
        before = (system.run / "shard-0.fifo").stat().st_ino
        system.kill_balancer()
        torn = next(fd for name, fd in system.store.kept.items() if name.startswith("overflow-0"))
        os.pwrite(torn, b"\x20\0\0\0{", os.fstat(torn).st_size)
        system.start_balancer()
        assert "torn record dropped: bytes=5" in system.log("balancer")
        assert (system.run / "shard-0.fifo").stat().st_ino == before
        for shard in range(2):
            system.start("worker", shard)
        system.wait_for("tradebal_worker_trades_total", 20_000)
        system.wait_for("tradebal_worker_gaps_total", 2, reason="restart")
        system.stop_all()
        assert numbers(system) == 20_000
        assert [audit["gaps"] for audit in system.audits()] == [["restart"]] * 2
        assert system.value("tradebal_worker_undecodable_total") == 0


def test_another_count_keeps_what_its_shards_still_have_and_names_what_is_lost(tmp_path):
    pins = "pin = { " + ", ".join(f'"{symbol.decode()}" = 2' for symbol in SYMBOLS) + " }"
    with provider(Numbered(20_000)) as serving, Kept(tmp_path, serving.url, workers=3, shards=pins) as system:
        system.start_balancer()
        system.wait_for("tradebal_trades_total", 20_000)
        serving.stop()
        system.kill_balancer()
        system.config.write_text(system.config.read_text().replace("count = 3", "count = 2").replace(pins, ""))
        system.start_balancer()
        system.store.receive()
        assert not {name for name in system.store.kept if "-2" in name[:11]}
        assert "bytes that waited for shard=2 before this start" in system.log("balancer")
        assert not (system.run / "shard-2.fifo").exists()


def test_state_of_another_version_is_not_trusted(tmp_path):
    with provider(Numbered(100)) as serving, Kept(tmp_path, serving.url) as system:
        system.start_balancer()
        system.wait_for("tradebal_trades_total", 100)
        serving.stop()
        system.kill_balancer()
        os.pwrite(system.store.kept["state"], json.dumps({"later": 1}).encode().ljust(512), 0)
        before = (system.run / "shard-0.fifo").stat().st_ino
        system.start_balancer()
        assert (system.run / "shard-0.fifo").stat().st_ino != before
