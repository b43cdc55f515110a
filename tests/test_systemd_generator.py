"""The generator turns shards.count into wanted workers; no mistake in the configuration stops a boot."""

import os
import resource
import subprocess

import pytest

from tests import bundle
from tests.booted import System, needs_boot
from tests.waiting import until
from tradebal.config import Shards, declared_keys

GENERATOR = bundle.SOURCE / "systemd/tradebal-generator"

BROKEN = {
    "no TOML": b"[shards\ncount = 3\n",
    "not UTF-8": b"\xff\xfe",
    "nested too deeply": b"a = " + b"[" * 100_000,
    "text for a number": b'[shards]\ncount = "3"\n',
    "none": b"[shards]\ncount = 0\n",
    "too many": b"[shards]\ncount = 1025\n",
    "a truth value": b"[shards]\ncount = true\n",
    "no table": b"shards = 3\n",
}


def generate(directory, configuration):
    """Run it as PID 1 does; returns the wanted units and what it wrote to stderr."""
    file = directory / "tradebal.toml"
    if configuration is not None:
        file.write_bytes(configuration)
    normal = directory / "normal"
    normal.mkdir()
    done = subprocess.run(
        [GENERATOR, normal, directory / "early", directory / "late"],
        env={"TRADEBAL_CONFIG": str(file), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return sorted(path.name for path in normal.glob("tradebal.target.wants/*")), done.stderr


def test_one_worker_is_wanted_for_each_shard(tmp_path):
    wanted, _ = generate(tmp_path, b"[shards]\ncount = 3\n")
    assert wanted == [f"tradebal-worker@{shard}.service" for shard in range(3)]
    link = tmp_path / "normal/tradebal.target.wants" / wanted[0]
    assert str(link.readlink()) == "/usr/lib/systemd/system/tradebal-worker@.service"


@pytest.mark.parametrize("configuration", [None, b"", b"[feed]\n"], ids=["no file", "empty", "no count"])
def test_without_a_count_it_has_the_configuration_s_default(tmp_path, configuration):
    assert len(generate(tmp_path, configuration)[0]) == Shards.count


def test_its_bounds_are_the_configuration_s(tmp_path):
    allowed = next(key.allowed for key in declared_keys() if key.path == "shards.count")
    assert allowed == "a whole number from 1 to 1024"
    assert len(generate(tmp_path, b"[shards]\ncount = 1024\n")[0]) == 1024


@pytest.mark.parametrize("configuration", BROKEN.values(), ids=BROKEN)
def test_a_broken_configuration_wants_nothing_and_is_no_failure(tmp_path, configuration):
    wanted, _ = generate(tmp_path, configuration)
    assert wanted == []


def test_it_takes_less_than_a_tenth_of_a_second(tmp_path):
    taken = []
    for run in range(3):
        directory = tmp_path / str(run)
        directory.mkdir()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        generate(directory, b"[shards]\ncount = 64\n")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.1


@needs_boot
def test_another_count_takes_a_daemon_reload_and_a_restart_of_the_target(tmp_path):
    def up(machine):
        lines = machine.run("systemctl", "list-units", "--plain", "--no-legend", "tradebal-worker@*").splitlines()
        return {line.split()[0]: line.split()[2] for line in lines}

    with System(tmp_path, count=3) as machine:
        machine.simulate("--session", "steady", "--rate", "2000")
        machine.start()
        machine.await_value("tradebal_worker_trades_total", 100)
        for count in (5, 2):
            machine.path("/etc/tradebal/tradebal.toml").write_text(machine.toml(count))
            machine.run("systemctl", "daemon-reload")
            machine.run("systemctl", "restart", "tradebal.target")
            expected = {f"tradebal-worker@{shard}.service": "active" for shard in range(count)}
            until(lambda: up(machine) == expected, f"{count} workers")  # noqa: B023
            machine.await_value("tradebal_worker_trades_total", 1, shard=str(count - 1))
            assert len(list(machine.path("/run/tradebal").glob("shard-*.fifo"))) == count
        # Without a shard for it, a worker isn't started, and nothing has failed.
        machine.run("systemctl", "start", "tradebal-worker@4.service")
        assert machine.show("tradebal-worker@4.service", "ActiveState", "ConditionResult") == "inactive no"


@needs_boot
def test_a_boot_with_a_broken_configuration_succeeds_and_says_what_is_wrong(tmp_path):
    machine = System(tmp_path)
    machine.prepare("etc/tradebal/tradebal.toml", "[shards]\ncount = many\n")
    with machine:
        # (journald writes over the file's beginning.)
        assert "no worker will be started" in machine.path("/dev/kmsg").read_text()
        machine.start()
        assert "tradebal-worker@" not in machine.run("systemctl", "list-units", "--all", "--plain", "--no-legend")
        until(lambda: machine.show("tradebal-balancer", "ActiveState") == "failed", "the balancer to refuse")
        assert "tradebal.toml: line 2, column 9: not valid TOML" in machine.messages("-u", "tradebal-balancer")
        machine.run("systemctl", "daemon-reload")
        machine.await_entry("no worker will be started", "-t", "tradebal-generator")
