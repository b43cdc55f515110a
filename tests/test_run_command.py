"""`tradebal run` with the real balancer, workers and exporter, and a provider that isn't there."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tests import waiting
from tradebal import config
from tradebal.config import Config, Feed, Metrics, Overflow, Shards
from tradebal.errors import UserError
from tradebal.run import places
from tradebal.run.processes import units, written


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def configuration(tmp_path):
    """Nothing listens at port 1, which the balancer tries again and again."""
    return Config(
        feed=Feed(profile="coinbase", url="ws://127.0.0.1:1/"),
        shards=Shards(count=2, directory=tmp_path / "run", pipe_size=65536),
        overflow=Overflow(directory=tmp_path / "overflow"),
        metrics=Metrics(address=f"127.0.0.1:{free_port()}", interval=0.1),
    )


@pytest.fixture
def start(tmp_path, configuration):
    """Start `tradebal run` as a process of its own; what it prints goes to a file."""
    processes = []

    def run(*args, conf=configuration, cwd=None, **env):
        file = tmp_path / f"tradebal-{len(processes)}.toml"
        file.write_text(config.dump(conf))
        log = tmp_path / f"log-{len(processes)}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tradebal", "run", "--config", str(file), *args],
                cwd=cwd,
                stdout=out,
                stderr=out,
                env=os.environ | {"TMPDIR": str(tmp_path)} | env,
            )
        processes.append(process)
        return process, log

    yield run
    for process in processes:
        process.kill()
        process.wait()


def children(process):
    """Return the command lines of the process's children by pid, once exec has given them their own."""
    found = {}
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        for pid in (task / "children").read_text().split():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if " -m tradebal " in line:
                found[int(pid)] = line.partition(" -m tradebal ")[2]
    return found


def scrape(configuration):
    try:
        with urllib.request.urlopen(f"http://{configuration.metrics.address}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def all_up(configuration, count=2):
    figures = scrape(configuration)
    wanted = ["balancer", *(f"worker-{n}" for n in range(count))]
    return all(f'tradebal_up{{unit="{unit}"}} 1' in figures for unit in wanted)


def test_everything_runs_one_ctrl_c_stops_it_in_order_and_nothing_is_left(start, configuration, tmp_path):
    process, log = start()
    waiting.until(lambda: all_up(configuration), "balancer and workers in the exporter's figures")
    running = children(process)
    assert sorted(line.split(" --config")[0] for line in running.values()) == [
        "balancer",
        "exporter",
        "worker 0",
        "worker 1",
    ]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, log.read_text()
    ends = re.findall(r"tradebal-run INFO (\S+) stopped: ", log.read_text())
    assert ends[0] == "balancer"
    assert sorted(ends[1:3]) == ["worker-0", "worker-1"]
    assert ends[3] == "exporter"
    assert "Traceback" not in log.read_text()
    assert not any(Path(f"/proc/{pid}").exists() for pid in running)
    assert list(tmp_path.glob("tradebal-run-*")) == []


def test_a_worker_that_is_killed_comes_back(start, configuration):
    process, log = start("--shards", "1", "--handler", "tradebal.handlers:Count")
    waiting.until(lambda: all_up(configuration, 1), "the start")
    (worker,) = [pid for pid, line in children(process).items() if line.startswith("worker 0")]
    os.kill(worker, signal.SIGKILL)
    waiting.until(
        lambda: any(pid != worker and line.startswith("worker 0") for pid, line in children(process).items()),
        "a new worker",
    )
    assert "worker-0 ended unasked: signal=SIGKILL" in log.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()


PLANTED = """
import os
from pathlib import Path
Path(__file__).with_name(f"ran-{os.getpid()}").touch()
raise ImportError("planted")
"""
OWN_HANDLER = """
from tradebal.handlers import Handler

class Own(Handler):
    pass
"""


def test_a_module_in_the_current_directory_never_takes_an_installed_ones_place(start, configuration, tmp_path):
    for name in ("orjson", "sdnotify", "websocket", "prometheus_client"):
        (tmp_path / f"{name}.py").write_text(PLANTED)
    (tmp_path / "own_handler.py").write_text(OWN_HANDLER)
    process, log = start("--handler", "own_handler:Own", cwd=tmp_path, TRADEBAL_FEED_KEY="hunter2")
    waiting.until(lambda: all_up(configuration) or process.poll() is not None, "the start")
    assert process.poll() is None, log.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()
    assert list(tmp_path.glob("ran-*")) == []


def test_only_the_balancer_gets_the_key_and_no_command_line_has_it(start, configuration):
    process, log = start(TRADEBAL_FEED_KEY="hunter2")
    waiting.until(lambda: all_up(configuration), "the start")
    for pid, line in children(process).items():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except PermissionError:  # the balancer shows its to nobody but root
            assert line.startswith("balancer")
        else:
            assert (b"hunter2" in environment) is line.startswith("balancer")
        assert "hunter2" not in line
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "hunter2" not in log.read_text()


def test_a_second_run_on_the_same_directory_is_refused_and_names_the_first(start, configuration):
    first, _ = start()
    waiting.until(lambda: all_up(configuration), "the first run")
    balancer = next(pid for pid, line in children(first).items() if line.startswith("balancer"))
    second, log = start()
    assert second.wait(60) == 3
    assert log.read_text().startswith(f"tradebal: error: another balancer: pid {balancer} runs on ")


def test_a_unit_that_cannot_start_ends_the_run_with_its_message(start, configuration):
    process, log = start("--handler", "no_such_module:Handler")
    assert process.wait(60) == 2
    text = log.read_text()
    assert "no_such_module" in text
    assert "it can't start like this, so everything stops" in text
    assert "Traceback" not in text


def test_everything_ends_when_the_run_is_killed(start, configuration):
    process, _ = start()
    waiting.until(lambda: all_up(configuration), "the start")
    running = children(process)
    assert len(running) == 4
    process.kill()
    process.wait()
    waiting.until(lambda: not any(is_running(pid) for pid in running), "all children to end")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


STUBBORN = """
import pathlib, signal, sys
state = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: state.write_text("asked"))
state.write_text("ready")
while not pathlib.Path(sys.argv[1] + "-end").exists():
    signal.sigtimedwait([], 0.01)
"""
SUPERVISE = """
import sys
from tradebal.commands.run import supervise
from tradebal.run.supervisor import Supervisor, Unit
units = [Unit("u", (sys.executable, "-c", *sys.argv[2:]), stop_timeout=600)]
sys.exit(supervise(Supervisor(units), echo=float(sys.argv[1])))
"""


def test_a_second_ctrl_c_kills_what_does_not_stop(tmp_path):
    state = tmp_path / "state"
    with subprocess.Popen([sys.executable, "-c", SUPERVISE, "0", STUBBORN, str(state)]) as process:
        waiting.until(lambda: state.exists() and state.read_text() == "ready", "the unit")
        process.send_signal(signal.SIGINT)
        waiting.until(lambda: state.read_text() == "asked", "the unit to be asked")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1


def test_a_signals_echo_kills_nothing(tmp_path):
    state = tmp_path / "state"
    with subprocess.Popen([sys.executable, "-c", SUPERVISE, "600", STUBBORN, str(state)]) as process:
        waiting.until(lambda: state.exists() and state.read_text() == "ready", "the unit")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        waiting.until(lambda: state.read_text() == "asked", "the unit to be asked")
        process.send_signal(signal.SIGINT)
        (tmp_path / "state-end").touch()
        assert process.wait(60) == 0


def test_units_are_stopped_balancer_first_and_exporter_last(tmp_path):
    made = units(2, tmp_path / "t.toml")
    assert [(unit.name, unit.stage) for unit in made] == [
        ("balancer", 0),
        ("worker-0", 1),
        ("worker-1", 1),
        ("exporter", 2),
    ]


def test_the_effective_configuration_is_a_private_file_as_long_as_it_is_needed(configuration):
    with written(configuration) as file:
        assert config.load(file) == configuration
        assert file.parent.stat().st_mode & 0o077 == 0
    assert not file.parent.exists()


def test_directories_that_the_file_sets_are_never_replaced(configuration):
    assert places.for_this_user(configuration, {}) == configuration


@pytest.fixture
def unusable(monkeypatch, tmp_path):
    """A configuration whose default directories nobody can make, root included; temporary files go to tmp_path."""
    nowhere = Path("/dev/null/tradebal")
    monkeypatch.setattr(Shards, "directory", nowhere)
    monkeypatch.setattr(Overflow, "directory", nowhere)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Config(shards=Shards(directory=nowhere), overflow=Overflow(directory=nowhere))


def test_without_root_the_xdg_directories_take_the_defaults_place(tmp_path, unusable):
    state, run = tmp_path / "state", tmp_path / "run"
    run.mkdir()
    own = places.for_this_user(unusable, {"XDG_RUNTIME_DIR": str(run), "XDG_STATE_HOME": str(state)})
    assert own.shards.directory == run / "tradebal"
    assert own.overflow.directory == state / "tradebal" / "overflow"


def test_without_xdg_directories_a_private_one_is_made(tmp_path, unusable):
    own = places.for_this_user(unusable, {})
    private = tmp_path / f"tradebal-{os.geteuid()}"
    assert own.shards.directory == private
    assert own.overflow.directory == private / "overflow"
    assert private.stat().st_mode & 0o777 == 0o700


def test_a_private_directory_that_others_may_write_to_is_refused(tmp_path, unusable):
    trap = tmp_path / f"tradebal-{os.geteuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    with pytest.raises(UserError, match="belongs to somebody else, or others may write to it"):
        places.for_this_user(unusable, {})
    trap.rmdir()
    trap.symlink_to(tmp_path)
    with pytest.raises(UserError):
        places.for_this_user(unusable, {})
