"""The bundle on a real systemd: it starts, works, survives the death of its parts, and stops."""

import itertools
from pathlib import Path

from tests import bundle
from tests.booted import FETCH, KEY, System, assert_growing, needs_boot, runs
from tests.waiting import until

pytestmark = needs_boot


def test_the_target_starts_all_and_every_trade_is_counted_end_to_end(tmp_path):
    with System(tmp_path) as machine:
        machine.simulate("--session", "steady", "--rate", "20000", "--trades", "30000")
        machine.start()
        assert set(machine.states("ActiveState", "NRestarts").values()) == {"active 0"}
        # Each unit publishes at its own time, once a second.
        machine.await_value("tradebal_worker_trades_total", 30_000)
        machine.await_value("tradebal_trades_total", 30_000)
        assert machine.value("tradebal_worker_trades_total") == machine.value("tradebal_trades_total") == 30_000
        page = machine.run("/usr/bin/python3", "-c", FETCH, "http://127.0.0.1:9570/metrics")
        assert 'tradebal_up{unit="worker-2"} 1' in page
        until(lambda: "30,000 trades today" in machine.show("tradebal-balancer", "StatusText"), "today's total")
        assert machine.show("tradebal-balancer", "StatusText").startswith("live; ")
        assert_key_is_nowhere(machine)


def assert_key_is_nowhere(machine, *journal):
    for unit in machine.units():
        process = Path(f"/proc/{machine.host_pid(unit)}")
        for file in ("cmdline", "environ"):
            assert KEY.encode() not in (process / file).read_bytes(), (unit, file)
    assert KEY not in machine.run("journalctl", "--output=export", "--all", *journal)
    assert KEY not in machine.run("systemctl", "show", "tradebal-balancer.service")
    for directory in ("/run/tradebal", "/var/lib/tradebal"):
        for file in machine.path(directory).rglob("*"):
            assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_the_target_stops_in_order_and_leaves_nothing_behind(tmp_path):
    with System(tmp_path) as machine:
        machine.simulate("--session", "steady", "--rate", "20000")
        machine.start()
        machine.await_value("tradebal_worker_trades_total", 5_000)
        machine.run("systemctl", "stop", "tradebal.target")
        until(lambda: set(machine.states().values()) == {"inactive"}, "all units to stop")
        assert set(machine.states("Result").values()) == {"success"}
        lines = machine.messages("-t", "tradebal").splitlines()
        stopped = [
            next(i for i, line in enumerate(lines) if line.startswith(what))
            for what in ("stopped: ", "worker stopped: ")
        ]
        assert stopped == sorted(stopped)
        until(lambda: not machine.path("/run/tradebal").exists(), "the directory to go")
        assert "tradebal" not in machine.run("systemctl", "list-units", "--plain", "--no-legend", "tradebal*.service")
        assert not machine.messages("-t", "tradebal", "-p", "err")


def test_a_worker_killed_at_speed_is_back_misses_nothing_and_disturbs_nobody(tmp_path):
    with System(tmp_path).with_desk() as machine:
        machine.simulate("--session", "steady", "--rate", "50000", "--trades", "150000")
        machine.start()
        before = machine.states("MainPID")
        killed = "tradebal-worker@1.service"
        for thousands in (5, 15, 25):
            until(lambda: len(machine.desk(1)) > thousands * 1000, "some thousand trades")  # noqa: B023
            pid = machine.main_pid(killed)
            machine.kill(killed, "KILL")
            machine.await_new_pid(killed, pid)
        after = machine.states("MainPID")
        assert {unit for unit in before if before[unit] != after[unit]} == {killed}
        entries = until(lambda: all_there(machine, 150_000), "all trades")
        for shard, numbers in enumerate(entries):
            repeated = [(a, b) for a, b in itertools.pairwise(numbers) if b <= a]
            assert len(repeated) <= (3 if shard == 1 else 0)


def all_there(machine, count):
    """What each handler got, once that is trades 1 to `count`, and nothing else."""
    entries = [machine.desk(shard) for shard in range(machine.count)]
    return entries if set(itertools.chain(*entries)) == set(range(1, count + 1)) else None


def test_a_restarted_worker_misses_nothing(tmp_path):
    with System(tmp_path).with_desk() as machine:
        machine.simulate("--session", "steady", "--rate", "20000", "--trades", "60000")
        machine.start()
        machine.await_value("tradebal_worker_trades_total", 5_000)
        for _ in range(3):
            machine.run("systemctl", "restart", "tradebal-worker@1.service")
        until(lambda: sum(len(machine.desk(shard)) for shard in range(3)) >= 60_000, "all trades")
        assert sorted(itertools.chain(*map(machine.desk, range(3)))) == list(range(1, 60_001))
        assert_growing(machine.desk(1))


def test_what_waits_for_workers_survives_a_killed_balancer(tmp_path):
    with System(tmp_path).with_desk() as machine:
        machine.simulate("--session", "steady", "--rate", "100000", "--trades", "60000")
        machine.start()
        balancer = "tradebal-balancer.service"
        for worker in machine.workers():
            machine.kill(worker, "STOP")
        # More than a FIFO of a mebibyte holds: the rest is in the overflow.
        machine.await_value("tradebal_trades_total", 60_000)
        machine.run("systemctl", "stop", "simulator")
        before = machine.main_pid(balancer)
        machine.kill(balancer, "KILL")
        machine.await_new_pid(balancer, before)
        for worker in machine.workers():
            machine.kill(worker, "CONT")
        until(lambda: sum(len(machine.desk(shard)) for shard in range(3)) >= 60_003, "all trades")
        entries = [machine.desk(shard) for shard in range(3)]
        assert [entry.count("restart") for entry in entries] == [1, 1, 1]
        numbers = [number for entry in entries for number in entry if number != "restart"]
        assert sorted(numbers) == list(range(1, 60_001))


def test_a_balancer_killed_at_speed_tears_nothing_and_says_what_is_missing(tmp_path):
    with System(tmp_path).with_desk() as machine:
        machine.simulate("--session", "steady", "--rate", "100000")
        machine.start()
        balancer, stopped = "tradebal-balancer.service", "tradebal-worker@1.service"
        for kills in (1, 2):
            machine.await_value("tradebal_worker_trades_total", 20_000)
            # Its full FIFO ends in the middle of a record, as good as always.
            machine.kill(stopped, "STOP")
            machine.await_value("tradebal_shard_overflow_bytes", 1, shard="1")
            before = machine.main_pid(balancer)
            machine.kill(balancer, "KILL")
            machine.await_new_pid(balancer, before)
            machine.kill(stopped, "CONT")
            for shard in range(3):
                until(lambda: machine.desk(shard).count("disconnect") == kills, "the gap's end")  # noqa: B023
            timed = machine.value("tradebal_worker_latency_seconds_count")
            machine.await_value("tradebal_worker_latency_seconds_count", timed + 10)
        machine.run("systemctl", "stop", "simulator")
        machine.await_caught_up()  # else what is missing in the end is behind one more gap
        machine.run("systemctl", "stop", balancer)
        for shard in range(3):
            numbers, gaps = runs(machine.desk(shard))
            assert gaps == ["restart", "disconnect"] * 2
            for run in numbers:  # the simulator begins anew with each connection
                assert_growing(run)
        assert machine.value("tradebal_worker_undecodable_total") == 0
        assert machine.value("tradebal_worker_handler_exceptions_total") == 0


def test_a_restarted_balancer_hands_on_what_it_had(tmp_path):
    with System(tmp_path).with_desk() as machine:
        machine.simulate("--session", "steady", "--rate", "100000", "--trades", "20000")
        machine.start()
        machine.kill("tradebal-worker@2.service", "STOP")
        machine.await_value("tradebal_trades_total", 20_000)
        machine.run("systemctl", "stop", "simulator")
        inode = machine.path("/run/tradebal/shard-2.fifo").stat().st_ino
        machine.run("systemctl", "restart", "tradebal-balancer.service")
        assert machine.path("/run/tradebal/shard-2.fifo").stat().st_ino == inode
        assert "20,000 trades today" in machine.show("tradebal-balancer", "StatusText")
        machine.kill("tradebal-worker@2.service", "CONT")
        until(lambda: sum(len(machine.desk(shard)) for shard in range(3)) >= 20_000, "all trades")
        assert sorted(itertools.chain(*map(machine.desk, range(3)))) == list(range(1, 20_001))


def test_the_watchdog_restarts_what_hangs(tmp_path):
    with System(tmp_path) as machine:
        for unit in ("tradebal-balancer.service", "tradebal-worker@.service"):
            drop_in = machine.path(f"/run/systemd/system/{unit}.d/soon.conf")
            drop_in.parent.mkdir(parents=True)
            drop_in.write_text("[Service]\nWatchdogSec=1s\n")
        machine.run("systemctl", "daemon-reload")
        machine.simulate("--session", "steady", "--rate", "2000")
        machine.start()
        machine.await_value("tradebal_worker_trades_total", 100)
        hung = ("tradebal-balancer.service", "tradebal-worker@1.service")
        before = {unit: machine.main_pid(unit) for unit in machine.units()}
        for unit in hung:
            machine.kill(unit, "STOP")
        for unit in hung:
            machine.await_new_pid(unit, before[unit])
            assert "Watchdog timeout" in machine.messages("-u", unit)
        machine.await_value("tradebal_worker_trades_total", 100, shard="1")
        assert machine.main_pid("tradebal-worker@0.service") == before["tradebal-worker@0.service"]


def test_a_missing_key_is_explained_once_and_not_tried_again(tmp_path):
    machine = System(tmp_path, url="wss://socket.massive.com/stocks")
    machine.prepare("etc/credstore/feed-key", "")
    with machine:
        machine.start()
        until(lambda: machine.show("tradebal-balancer", "ActiveState") == "failed", "the balancer to give up")
        text = machine.messages("-u", "tradebal-balancer")
        assert "needs the provider's key" in text
        assert "LoadCredential=feed-key" in text
        assert machine.show("tradebal-balancer", "NRestarts") == "0"
        assert set(machine.states().values()) == {"failed", "active"}


def test_the_key_may_lie_encrypted_on_disk(tmp_path):
    machine = System(tmp_path)
    example = (bundle.SOURCE / "systemd/examples/encrypted-key.conf").read_text()
    machine.prepare("etc/systemd/system/tradebal-balancer.service.d/override.conf", example)
    with machine:
        machine.path("/etc/credstore.encrypted").mkdir(parents=True, exist_ok=True)
        paths = ("/etc/credstore/feed-key", "/etc/credstore.encrypted/feed-key")
        machine.run("systemd-creds", "encrypt", "--name=feed-key", *paths)
        machine.path(paths[0]).unlink()
        machine.simulate("--session", "steady", "--rate", "20000", "--key", KEY)
        machine.start()
        machine.await_value("tradebal_worker_trades_total", 1000)
        assert_key_is_nowhere(machine, "-u", "tradebal*")  # the simulator's own command line has it
