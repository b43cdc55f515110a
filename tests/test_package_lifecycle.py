"""The .deb in a clean, booted Debian without a network: installed, started, upgraded, removed and purged."""

import re
import shutil

import pytest

from tests import bundle
from tests.booted import DESK, KEY, Bundled, assert_growing, runs
from tests.packages import Debian, next_version, why_not_booted
from tests.waiting import until

pytestmark = [pytest.mark.skipif(bool(why_not_booted()), reason=why_not_booted()), pytest.mark.timeout(300)]

CONFIGURATION = "/etc/tradebal/tradebal.toml"
SIMULATED = '[feed]\nurl = "ws://127.0.0.1:9080/stocks"\n[metrics]\ninterval = 0.1\n[shards]\ncount = 3\n'


def with_key(machine):
    machine.run("install", "-d", "-m", "700", "/etc/credstore")
    machine.run("sh", "-c", f"echo {KEY} | install -m 600 /dev/stdin /etc/credstore/feed-key")


@pytest.fixture(params=["bookworm", "trixie"])
def debian(request, tmp_path):
    with Debian(tmp_path, request.param) as machine:
        yield machine


@pytest.fixture
def bookworm(tmp_path):
    with Debian(tmp_path) as machine:
        yield machine


def test_installed_without_a_network_its_commands_work(packages, bookworm):
    bookworm.install(packages["deb"])
    assert bookworm.run("dpkg", "--verify", "tradebal") == ""
    assert bookworm.run("tradebal", "shard", "--shards", "1", "SPY") == "SPY\t0\n"
    ready = bookworm.run("tradebal", "check", check=False)
    assert f"from {CONFIGURATION}" in ready
    assert "FAIL  feed key" in ready
    assert "router: kind=native" in ready
    # The one command that uses every Python package that comes along.
    assert "Every trade reached its worker, once and in order" in bookworm.run("tradebal", "demo", "--duration", "3")


def test_from_its_start_to_its_stop_every_trade_is_counted(packages, debian):
    debian.install(packages["deb"])
    debian.configure(SIMULATED)
    with_key(debian)
    debian.simulate("--session", "steady", "--rate", "20000", "--trades", "30000", "--key", KEY)
    debian.run("systemctl", "daemon-reload")
    debian.start()
    assert set(debian.states("ActiveState", "NRestarts").values()) == {"active 0"}
    until(lambda: "30,000 trades today" in debian.show("tradebal-balancer", "StatusText"), "the market's end")
    debian.run("systemctl", "stop", "tradebal.target")
    until(lambda: set(debian.states("ActiveState", "Result").values()) == {"inactive success"}, "all units to stop")
    counted = re.findall(r"counted in all: shard=\d trades=(\d+)", debian.messages("-t", "tradebal"))
    assert len(counted) == 3
    assert sum(map(int, counted)) == 30_000
    assert not debian.messages("-t", "tradebal", "-p", "err")


def test_with_the_default_configuration_the_log_says_how_to_set_the_key_and_nothing_flaps(packages, bookworm):
    bookworm.count = 7
    bookworm.install(packages["deb"])
    units = bookworm.run("systemctl", "list-unit-files", "--no-legend", "--state=enabled")
    assert "tradebal" not in units
    bookworm.start()
    balancer = "tradebal-balancer.service"
    until(lambda: bookworm.show(balancer, "ActiveState") == "failed", "the balancer to give up")
    text = bookworm.messages("-u", balancer, "-p", "err")
    assert "needs the provider's key, and there is none" in text
    assert "/etc/credstore/feed-key" in text
    assert bookworm.states("ActiveState", "NRestarts") == {
        unit: "failed 0" if unit == balancer else "active 0" for unit in bookworm.units()
    }
    # As it said, and all is well.
    with_key(bookworm)
    bookworm.simulate("--session", "steady", "--rate", "1000", "--trades", "1000")
    bookworm.configure('[feed]\nurl = "ws://127.0.0.1:9080/stocks"\n')
    bookworm.start()
    until(lambda: "1,000 trades today" in bookworm.show(balancer, "StatusText"), "trades")


def test_an_upgrade_at_speed_loses_nothing_that_was_received(packages, tmp_path):
    machine = Debian(tmp_path)
    machine.prepare("opt/desk/desk.py", (bundle.SOURCE / "tests/desk.py").read_text())
    machine.prepare("etc/systemd/system/tradebal-worker@.service.d/override.conf", DESK.read_text())
    configuration = f'{SIMULATED}[worker]\nhandler = "desk:Desk"\n'
    with machine:
        machine.install(packages["deb"])
        machine.configure(configuration)
        with_key(machine)
        machine.simulate("--session", "steady", "--rate", "50000")
        machine.run("systemctl", "daemon-reload")
        machine.start()
        machine.await_value("tradebal_worker_trades_total", 50_000)
        before = machine.states("MainPID")
        machine.install(next_version(packages["deb"], tmp_path))
        after = machine.states("MainPID")
        assert set(machine.states().values()) == {"active"}
        assert [unit for unit in before if before[unit] == after[unit]] == []
        assert machine.path(CONFIGURATION).read_text() == configuration
        assert "changed by the next version" in machine.path(f"{CONFIGURATION}.dpkg-dist").read_text()
        machine.await_value("tradebal_worker_trades_total", 50_000)
        machine.run("systemctl", "stop", "simulator")
        machine.await_caught_up()
        machine.run("systemctl", "stop", "tradebal.target")
        until(lambda: set(machine.states().values()) == {"inactive"}, "all units to stop")
        received = re.findall(r"^stopped: trades=(\d+)", machine.messages("-t", "tradebal"), re.MULTILINE)
        assert len(received) == 2
        handled = 0
        for shard in range(3):
            numbers, gaps = runs(machine.desk(shard))
            assert gaps[:1] == ["disconnect"]
            for run in numbers:  # the simulator begins anew with each connection
                assert_growing(run)
            handled += sum(map(len, numbers))
        assert handled == sum(map(int, received))


def test_an_upgrade_brings_a_configuration_that_nobody_changed_and_takes_along_what_is_no_more(
    packages, bookworm, tmp_path
):
    bookworm.install(packages["deb"])
    assert bookworm.path("/usr/lib/tradebal/packages/pycparser").exists()
    bookworm.install(next_version(packages["deb"], tmp_path))
    assert not bookworm.path("/usr/lib/tradebal/packages/pycparser").exists()
    assert "changed by the next version" in bookworm.path(CONFIGURATION).read_text()


def test_removed_it_stops_and_leaves_configuration_and_state_and_purged_nothing(packages, bookworm):
    bookworm.install(packages["deb"])
    bookworm.configure(SIMULATED)
    with_key(bookworm)
    bookworm.simulate("--session", "steady", "--rate", "1000", "--trades", "1000")
    bookworm.run("systemctl", "enable", "tradebal-session.timer")
    bookworm.run("systemctl", "daemon-reload")
    bookworm.start()
    until(lambda: "1,000 trades today" in bookworm.show("tradebal-balancer", "StatusText"), "trades")
    bookworm.run("systemctl", "stop", "simulator")
    bookworm.run("apt-get", "remove", "--yes", "tradebal")
    assert not bookworm.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "tradebal*")
    assert not bookworm.path("/sys/fs/cgroup/tradebal.slice").exists()
    assert bookworm.path(CONFIGURATION).read_text() == SIMULATED
    assert bookworm.path("/var/lib/tradebal").is_dir()
    bookworm.run("apt-get", "purge", "--yes", "tradebal")
    assert not bookworm.run("find", "/etc", "/run", "/usr", "/var", "-name", "*tradebal*")


def test_where_systemd_does_not_run_it_installs_and_goes_all_the_same(packages, bookworm):
    shutil.copy(packages["deb"], bookworm.path("/opt"))
    steps = "apt-get install --yes /opt/*.deb && tradebal --version && apt-get purge --yes tradebal"
    # As in a chroot, or while an image is built.
    said = bookworm.run("unshare", "--mount", "sh", "-ec", f"mount -t tmpfs tmpfs /run; {steps}")
    assert "\ntradebal 0." in said
    assert not bookworm.run("find", "/etc", "/usr", "/var", "-name", "*tradebal*")


@pytest.mark.skipif(shutil.which("rpm") is None, reason="there is no rpm here")
def test_the_rpm_installs_upgrades_and_removes_likewise(packages, tmp_path):
    # No clean system of its family is to be had here; this machine's own has rpm, and systemd to go with the scripts.
    machine = Bundled(tmp_path)
    with machine:
        rpm = f"/root/{packages['rpm'].name}"
        shutil.copy(packages["rpm"], machine.path(rpm))
        machine.run("rpm", "--install", "--nodeps", rpm)
        machine.configure(SIMULATED)
        with_key(machine)
        machine.simulate("--session", "steady", "--rate", "1000", "--trades", "1000")
        machine.run("systemctl", "daemon-reload")
        machine.start()
        until(lambda: "1,000 trades today" in machine.show("tradebal-balancer", "StatusText"), "trades")
        before = machine.states("MainPID")
        machine.run("rpm", "--upgrade", "--nodeps", "--replacepkgs", rpm)
        after = machine.states("MainPID")
        assert [unit for unit in before if after[unit] in ("0", before[unit])] == []
        assert machine.path(CONFIGURATION).read_text() == SIMULATED
        machine.run("rpm", "--erase", "tradebal")
        assert not machine.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "tradebal*")
        assert not machine.path("/usr/lib/tradebal").exists()
        assert machine.path(f"{CONFIGURATION}.rpmsave").read_text() == SIMULATED
