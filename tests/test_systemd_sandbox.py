"""The units are valid, and no more exposed than they must be: judged by systemd-analyze, and tried from inside."""

import shutil
import subprocess

import pytest

from tests import bundle
from tests.booted import System, needs_boot
from tests.waiting import until

UNITS = bundle.SOURCE / "systemd"
MOST_EXPOSED = {
    "tradebal-balancer.service": 1.3,
    "tradebal-worker@.service": 0.5,
    "tradebal-exporter.service": 1.0,
    "tradebal-directory.service": 0.5,
}
PROBE = """\
import socket
from pathlib import Path

from tradebal.handlers import Handler


def tried(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return "done"


class Probe(Handler):
    def __init__(self, context):
        super().__init__(context)
        what = {
            "inet": lambda: socket.socket(socket.AF_INET),
            "etc": lambda: Path("/etc/probe").write_text(""),
            "var": lambda: Path("/var/lib/probe").write_text(""),
            "own": lambda: Path("/var/lib/desk/probe").write_text(""),
            "root": lambda: list(Path("/root").iterdir()),
            "bus": lambda: list(Path("/run/dbus").iterdir()),
            "key": lambda: Path("/etc/credstore/feed-key").read_text(),
        }
        context.log.info("probe: %s", {name: tried(action) for name, action in what.items()})
"""

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")


@needs_analyze
@pytest.mark.parametrize(("unit", "most"), MOST_EXPOSED.items())
def test_exposure_is_low(unit, most):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={most * 10:.0f}", "--no-pager", UNITS / unit],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_boot
def test_systemd_finds_nothing_to_complain_of_in_any_unit(tmp_path):
    with System(tmp_path) as machine:
        for unit in sorted(
            file for kind in ("service", "target", "timer", "slice") for file in UNITS.glob(f"*.{kind}")
        ):
            name = unit.name.replace("@.", "@0.")
            # Man pages come with the package.
            done = machine.run("systemd-analyze", "verify", "--man=no", name, stderr=True)
            assert done == "", unit
        assert not machine.messages("-p", "warning", "_PID=1")


@needs_boot
def test_a_worker_reaches_no_network_no_key_and_no_file_but_what_a_drop_in_gives(tmp_path):
    machine = System(tmp_path).with_desk()
    machine.configuration = machine.configuration.replace("desk:Desk", "desk:Probe")
    machine.prepare("etc/tradebal/tradebal.toml", machine.toml(1))
    machine.prepare("opt/desk/desk.py", PROBE)
    with machine:
        machine.run("mkdir", "-p", "/run/dbus")
        machine.start()
        machine.await_entry("probe:", "-u", "tradebal-worker@0")
        probe = next(line for line in machine.messages("-u", "tradebal-worker@0").splitlines() if "probe:" in line)
        closed = {
            "inet": "Address family not supported by protocol",
            "etc": "Read-only file system",
            "var": "Read-only file system",
            "own": "done",
            "root": "Permission denied",
            "bus": "Permission denied",
            "key": "Permission denied",
        }
        assert probe == f"probe: {closed}"


@needs_boot
def test_the_drop_in_for_the_network_opens_it(tmp_path):
    machine = System(tmp_path, count=1).with_desk()
    machine.configuration = machine.configuration.replace("desk:Desk", "desk:Probe")
    machine.prepare("etc/tradebal/tradebal.toml", machine.toml(1))
    machine.prepare("opt/desk/desk.py", PROBE)
    network = (UNITS / "examples/handler-needs-network.conf").read_text()
    machine.prepare("etc/systemd/system/tradebal-worker@.service.d/network.conf", network)
    with machine:
        machine.start()
        machine.await_entry("'inet': 'done'", "-u", "tradebal-worker@0")


@needs_boot
def test_the_session_s_end_stops_the_target_and_its_start_starts_it_again(tmp_path):
    with System(tmp_path) as machine:
        assert machine.run("systemctl", "is-enabled", "tradebal-session.timer", check=False) == "disabled\n"
        machine.run("systemctl", "enable", "--now", "tradebal-session.timer")
        machine.run("systemctl", "start", "tradebal-session-end.timer")
        assert machine.run("systemctl", "is-enabled", "tradebal-session-end.timer") == "enabled\n"
        machine.start()
        machine.run("systemctl", "start", machine.show("tradebal-session-end.timer", "Unit"))
        until(lambda: set(machine.states().values()) <= {"inactive", "failed"}, "all units to stop")
        machine.run("systemctl", "start", machine.show("tradebal-session.timer", "Unit"))
        assert machine.show("tradebal-worker@0.service", "ActiveState") == "active"


@needs_boot
def test_the_balancers_memory_goes_into_no_core_dump_and_no_swap(tmp_path):
    with System(tmp_path) as machine:
        balancer = "tradebal-balancer.service"
        machine.start()
        assert machine.show(balancer, "LimitCORE", "MemorySwapMax") == "0 0"
        environment = f"/proc/{machine.main_pid(balancer)}/environ"
        user = ("setpriv", "--reuid=tradebal", "--regid=tradebal", "--clear-groups")
        assert "Permission denied" in machine.run(*user, "cat", environment, check=False, stderr=True)
