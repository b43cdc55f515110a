"""`tradebal check` tells what would stop a start, what is only second best, and the command for each."""

import dataclasses
import fcntl
import os
import resource
import socket
import subprocess
import sys

import pytest

from tradebal.config import Config, Feed, Metrics, Overflow, Shards, Worker
from tradebal.run import checks
from tradebal.run.checks import Level
from tradebal.upstream.encryption import Encryption


def only(found):
    (finding,) = found
    return finding


@pytest.fixture
def configuration(tmp_path):
    """One that can start: directories of its own, a feed without a key, any free port."""
    return Config(
        feed=Feed(profile="coinbase"),
        shards=Shards(count=2, directory=tmp_path / "run", pipe_size=65536),
        overflow=Overflow(directory=tmp_path / "state" / "overflow", limit=65536),
        metrics=Metrics(address="127.0.0.1:0"),
    )


def check(file, **env):
    base = {k: v for k, v in os.environ.items() if k not in ("TRADEBAL_FEED_KEY", "CREDENTIALS_DIRECTORY")}
    return subprocess.run(
        [sys.executable, "-m", "tradebal", "check", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=base | env,
    )


@pytest.fixture
def file(tmp_path, configuration):
    from tradebal.config import dump

    path = tmp_path / "tradebal.toml"
    path.write_text(dump(configuration))
    return path


def test_a_system_that_is_fit_gets_exit_status_0_and_the_effective_configuration(file, configuration):
    done = check(file)
    assert done.stderr == ""
    assert done.returncode == 0
    assert f"# effective configuration, from {file}" in done.stdout
    assert f'directory = "{configuration.shards.directory}"' in done.stdout
    assert "read_size = " in done.stdout
    assert "FAIL" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("ready to start")
    assert "\x1b" not in done.stdout


def test_check_leaves_nothing_behind(file, tmp_path):
    check(file)
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_key_fails_and_the_key_is_never_shown(file):
    file.write_text(file.read_text().replace('"coinbase"', '"massive"'))
    done = check(file)
    assert done.returncode == 1
    assert "FAIL  feed key: " in done.stdout
    assert "TRADEBAL_FEED_KEY" in done.stdout
    assert "not ready: 1 would stop a start" in done.stdout
    done = check(file, TRADEBAL_FEED_KEY="hunter2")
    assert done.returncode == 0
    assert "ok    feed key: there" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_a_key_without_its_secret_fails_where_both_are_needed(configuration):
    config = dataclasses.replace(configuration, feed=Feed(profile="alpaca"))
    finding = only(checks.check_feed(config, {"TRADEBAL_FEED_KEY": "hunter2"}))
    assert finding.level is Level.FAIL
    assert "KEY:SECRET" in finding.text
    assert "hunter2" not in finding.text + finding.fix
    levels = [f.level for f in checks.check_feed(config, {"TRADEBAL_FEED_KEY": "hunter2:x"})]
    assert set(levels) == {Level.OK}


def test_certificates_that_cannot_be_read_fail(configuration, tmp_path):
    for name, reason in (("none.pem", "No such file"), ("empty.pem", "no certificates in it")):
        if name == "empty.pem":
            (tmp_path / name).touch()
        config = dataclasses.replace(configuration, feed=Feed(profile="coinbase", ca_file=tmp_path / name))
        *_, finding = checks.check_feed(config, {})
        assert finding.level is Level.FAIL
        assert name in finding.text
        assert reason in finding.text


def test_a_directory_is_tried_and_one_that_is_missing_by_its_parent(tmp_path):
    assert only(checks.check_directory("k", tmp_path, fifos=True)).level is Level.OK
    finding = only(checks.check_directory("k", tmp_path / "a" / "b"))
    assert finding.level is Level.OK
    assert f"can be made in {tmp_path}" in finding.text


def test_a_file_in_a_directorys_place_fails(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        finding = only(checks.check_directory("k", path))
        assert finding.level is Level.FAIL
        assert f"{tmp_path / 'file'} is in the way" in finding.text


def test_a_directory_without_permission_fails_with_the_command_that_makes_it(ordinary_user):
    closed = ordinary_user / "closed"
    closed.mkdir(0o500)
    finding = only(checks.check_directory("shards.directory", closed / "run"))
    assert finding.level is Level.FAIL
    assert finding.fix.startswith("sudo install -d -o ")
    assert f"{closed / 'run'}" in finding.fix


def test_a_directory_that_nobody_can_write_fails_for_root_too():
    finding = only(checks.check_directory("shards.directory", checks.Path("/proc/tradebal")))
    assert finding.level is Level.FAIL
    assert "install -d" in finding.fix
    own = checks.Path("/tmp/own")
    finding = only(checks.check_directory("shards.directory", checks.Path("/proc/tradebal"), own=own))
    assert finding.level is Level.WARN
    assert "`tradebal run` would take /tmp/own" in finding.text


def test_another_balancer_is_found_by_its_lock_and_named_by_its_pid(tmp_path):
    path = tmp_path / "balancer.lock"
    assert only(checks.check_lock(tmp_path)).level is Level.OK
    path.write_text("4711\n")
    assert only(checks.check_lock(tmp_path)).level is Level.OK
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finding = only(checks.check_lock(tmp_path))
    assert finding.level is Level.FAIL
    assert "pid 4711 runs" in finding.text
    assert finding.fix.startswith("kill 4711")


def test_the_lock_of_a_real_balancer_is_seen(tmp_path):
    from tradebal.balancer.fifos import DirectoryLock

    lock = DirectoryLock(tmp_path)
    try:
        assert f"pid {os.getpid()} runs" in only(checks.check_lock(tmp_path)).text
    finally:
        lock.release()
    assert only(checks.check_lock(tmp_path)).level is Level.OK


def test_pipes_that_are_to_be_had_are_ok():
    finding = only(checks.check_pipes(1, 4096))
    assert finding.level is Level.OK
    assert finding.text == "1 FIFOs of 4KiB: granted"


def test_pipes_above_the_limits_are_told_with_the_sysctl_that_raises_them():
    finding = only(checks.check_pipes(1024, 1 << 31))
    assert finding.level is Level.WARN
    assert f"fs.pipe-max-size={1 << 31}" in finding.fix
    assert "fs.pipe-max-size=" in finding.text


def test_more_overflow_than_this_machine_has_memory_is_a_warning(configuration):
    assert only(checks.check_overflow_memory(configuration)).level is Level.OK
    overflow = dataclasses.replace(configuration.overflow, limit=1 << 50)
    finding = only(checks.check_overflow_memory(dataclasses.replace(configuration, overflow=overflow)))
    assert finding.level is Level.WARN
    assert "overflow.limit" in finding.fix


def test_too_few_open_files_fail():
    assert only(checks.check_descriptors(1)).level is Level.OK
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        finding = only(checks.check_descriptors(1024))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert finding.level is Level.FAIL
    assert finding.fix.startswith("ulimit -n ")


def test_what_only_helps_never_stops_a_start():
    found = [*checks.check_receive_buffers(), checks.check_tls(Encryption("auto", None)), *checks.check_router()]
    assert [finding.subject for finding in found] == ["socket buffers", "TLS", "router"]
    assert all(finding.level is not Level.FAIL for finding in found)


def test_the_slow_router_is_told_loudly(monkeypatch):
    monkeypatch.setenv("TRADEBAL_ROUTER", "python")
    finding = only(checks.check_router())
    assert finding.level is Level.WARN
    assert "too slow" in finding.text
    assert finding.fix


@pytest.mark.parametrize(
    ("handler", "options", "reason"),
    [
        ("no_such_module:Class", {}, "no_such_module"),
        ("tradebal.handlers:NoSuchClass", {}, "NoSuchClass"),
        ("tradebal.handlers:Count", {"no_such_option": 1}, "no_such_option"),
    ],
)
def test_a_handler_that_cannot_be_used_fails(configuration, handler, options, reason):
    config = dataclasses.replace(configuration, worker=Worker(handler=handler, options=options))
    finding = only(checks.check_handler(config))
    assert finding.level is Level.FAIL
    assert reason in finding.text


def test_a_taken_address_is_a_warning_and_an_impossible_one_fails(configuration):
    def address(text):
        return only(checks.check_address(dataclasses.replace(configuration, metrics=Metrics(address=text))))

    assert address("127.0.0.1:0").level is Level.OK
    with socket.create_server(("127.0.0.1", 0)) as taken:
        finding = address(f"127.0.0.1:{taken.getsockname()[1]}")
    assert finding.level is Level.WARN
    assert "is taken" in finding.text
    assert address("192.0.2.1:0").level is Level.FAIL


@pytest.mark.parametrize("count", [1, 3, 7, 31])
def test_an_odd_count_spreads_symbols_well(count):
    finding = only(checks.check_spread(Config(shards=Shards(count=count))))
    assert finding.level is Level.OK


@pytest.mark.parametrize("count", [2, 8, 64])
def test_an_even_count_is_warned_of_with_a_better_one(count):
    finding = only(checks.check_spread(Config(shards=Shards(count=count))))
    assert finding.level is Level.WARN
    assert f"set shards.count to {count - 1} " in finding.fix
    assert f"or {count + 1} " in finding.fix


def test_pins_count_in_the_spread():
    assert checks.busiest_share(3, {"SPY": 0}) != checks.busiest_share(3, {"SPY": 2})
