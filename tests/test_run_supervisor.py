"""The supervisor keeps processes alive, stops them in order, and leaves none behind; shown with real processes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from tests import waiting
from tradebal.run.supervisor import State, Supervisor, Unit

BLOCKED = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT}); "
"""Holds a signal back until the script waits for it, so that it can't come too early."""


def python(code, *args):
    return (sys.executable, "-c", BLOCKED + textwrap.dedent(code), *map(str, args))


def wait_for_term(name, log, status=0):
    """A process that says when it is ready and when it ends, in a file that all share."""
    return python(
        f"""
        import sys
        log = open({str(log)!r}, "a", buffering=1)
        print("ready {name}", file=log)
        signal.sigwait({{signal.SIGTERM}})
        print("end {name}", file=log)
        sys.exit({status})
        """
    )


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture
def run():
    """Start a supervisor over units; what still runs at the test's end is killed."""
    started = []

    def start(*units, **options):
        changes = []
        supervisor = Supervisor(units, on_change=changes.append, **options)
        started.append(supervisor)
        supervisor.start()
        return supervisor, changes

    yield start
    for supervisor in started:
        supervisor.close()


def states(changes, unit):
    return [change.state for change in changes if change.unit == unit]


def test_units_stop_stage_by_stage_each_waiting_for_the_one_before(run, tmp_path):
    log = tmp_path / "log"
    supervisor, changes = run(
        Unit("exporter", wait_for_term("exporter", log), stage=2),
        Unit("balancer", wait_for_term("balancer", log), stage=0),
        Unit("worker-0", wait_for_term("worker-0", log), stage=1),
        Unit("worker-1", wait_for_term("worker-1", log), stage=1),
    )
    waiting.until(lambda: len(lines(log)) == 4, "all units")
    supervisor.stop()
    assert supervisor.wait(30) == 0
    ended = lines(log)[4:]
    assert ended[0] == "end balancer"
    assert sorted(ended[1:3]) == ["end worker-0", "end worker-1"]
    assert ended[3] == "end exporter"
    assert states(changes, "balancer") == [State.STARTED, State.STOPPING, State.STOPPED]


@pytest.mark.parametrize(
    ("code", "how"), [("import sys; sys.exit(5)", "status=5"), ("import os; os.kill(os.getpid(), 9)", "signal=SIGKILL")]
)
def test_a_unit_that_dies_is_started_again_and_its_end_told(run, tmp_path, code, how):
    flag = tmp_path / "flag"
    log = tmp_path / "log"
    script = f"""
    import os
    if not os.path.exists({str(flag)!r}):
        open({str(flag)!r}, "w").close()
        {code}
    print("ready", file=open({str(log)!r}, "w"))
    signal.sigwait({{signal.SIGTERM}})
    """
    supervisor, changes = run(Unit("u", python(script)))
    waiting.until(lambda: lines(log), "the second start")
    supervisor.stop()
    assert supervisor.wait(30) == 0
    assert states(changes, "u") == [State.STARTED, State.FAILED, State.STARTED, State.STOPPING, State.STOPPED]
    failed = changes[1]
    assert how in failed.text
    assert "restart_in=0.25s" in failed.text


def test_the_delay_grows_while_a_unit_keeps_failing(run):
    third = threading.Event()

    def note(change):
        if change.state is State.FAILED:
            texts.append(change.text)
            if len(texts) == 3:
                third.set()

    texts = []
    with Supervisor([Unit("u", python("sys = __import__('sys'); sys.exit(1)"))], on_change=note) as supervisor:
        assert third.wait(30)
        supervisor.stop()
        assert supervisor.wait(30) == 0
    assert [text.rpartition("=")[2] for text in texts] == ["0.25s", "0.5s", "1s"]


@pytest.mark.parametrize("status", [2, 3])
def test_a_unit_that_cannot_start_stops_everything_with_its_status(run, tmp_path, status):
    log = tmp_path / "log"
    supervisor, changes = run(
        Unit("balancer", python(f"import sys; sys.exit({status})")),
        Unit("worker-0", wait_for_term("worker-0", log), stage=1),
    )
    assert supervisor.wait(30) == status
    assert states(changes, "balancer") == [State.STARTED, State.STOPPED]
    assert states(changes, "worker-0") == [State.STARTED, State.STOPPING, State.STOPPED]


def test_a_unit_that_ignores_the_request_is_killed_after_its_time(run, tmp_path):
    log = tmp_path / "log"
    stubborn = python(f"print('ready', file=open({str(log)!r}, 'w'))\nwhile True: signal.pause()")
    supervisor, changes = run(Unit("u", stubborn, stop_timeout=0.2))
    waiting.until(lambda: lines(log), "the unit")
    supervisor.stop()
    assert supervisor.wait(30) == 1
    assert states(changes, "u") == [State.STARTED, State.STOPPING, State.KILLED, State.STOPPED]


def test_kill_ends_everything_at_once_with_what_the_units_started(run, tmp_path):
    log = tmp_path / "log"
    stubborn = python(
        f"""
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print(child.pid, file=open({str(log)!r}, "w"))
        while True: signal.pause()
        """
    )
    supervisor, changes = run(Unit("u", stubborn, stop_timeout=600), Unit("v", stubborn, stage=1, stop_timeout=600))
    waiting.until(lambda: lines(log), "the units")
    grandchild = int(lines(log)[0])
    supervisor.kill()
    assert supervisor.wait(30) == 1
    assert State.KILLED in states(changes, "u")
    assert State.KILLED in states(changes, "v")
    waiting.until(lambda: not is_running(grandchild), "the unit's own child to end")


def test_a_worker_that_dies_while_the_balancer_stops_is_started_again_for_what_is_left(run, tmp_path):
    log, flag = tmp_path / "log", tmp_path / "flag"
    slow = python(
        f"""
        import os, time
        print("ready balancer", file=open({str(log)!r}, "a"))
        signal.sigwait({{signal.SIGTERM}})
        while not os.path.exists({str(flag)!r}): time.sleep(0.01)
        """
    )
    supervisor, changes = run(
        Unit("balancer", slow, stage=0, stop_timeout=60), Unit("worker-0", wait_for_term("worker-0", log), stage=1)
    )
    waiting.until(lambda: len(lines(log)) == 2, "both units")
    supervisor.stop()
    waiting.until(lambda: State.STOPPING in states(changes, "balancer"), "the stop to begin")
    os.kill(supervisor.pid("worker-0"), signal.SIGKILL)
    waiting.until(lambda: lines(log).count("ready worker-0") == 2, "the worker's second start")
    flag.touch()
    assert supervisor.wait(30) == 0
    assert lines(log)[-1] == "end worker-0"


def test_a_stop_while_a_unit_waits_for_its_restart_ends_at_once(run):
    supervisor, changes = run(Unit("u", (sys.executable, "-c", "raise SystemExit(1)")))
    waiting.until(lambda: states(changes, "u").count(State.FAILED) == 2, "two failures")
    supervisor.stop()
    assert supervisor.wait(30) == 0


def test_the_descriptor_tells_the_end(run):
    import select

    supervisor, _ = run(Unit("u", python("signal.sigwait({signal.SIGTERM})")))
    assert select.select([supervisor], [], [], 0)[0] == []
    supervisor.stop()
    assert select.select([supervisor], [], [], 30)[0] == [supervisor]


def test_the_environment_is_handed_on_with_each_units_changes(run, tmp_path):
    out = tmp_path / "out"
    script = """
    import os, sys
    with open(sys.argv[1], "w") as out:
        out.write(repr([os.environ.get(name) for name in "ABC"]))
    signal.sigwait({signal.SIGTERM})
    """
    supervisor, _ = run(
        Unit("u", python(script, out), env={"A": None, "B": "new"}),
        env={**os.environ, "A": "a", "B": "b", "C": "c"},
    )
    waiting.until(lambda: out.exists() and out.read_text(), "the unit")
    assert out.read_text() == "[None, 'new', 'c']"
    supervisor.stop()
    assert supervisor.wait(30) == 0


def test_each_unit_has_a_session_of_its_own(run, tmp_path):
    log = tmp_path / "log"
    supervisor, _ = run(Unit("u", wait_for_term("u", log)))
    waiting.until(lambda: lines(log), "the unit")
    pid = supervisor.pid("u")
    assert os.getsid(pid) == pid
    assert os.getpgid(pid) == pid
    supervisor.stop()
    assert supervisor.wait(30) == 0
    assert supervisor.pid("u") is None


def test_a_command_that_does_not_exist_is_told_and_tried_again(run, capfd):
    supervisor, changes = run(Unit("u", ("/nonexistent/command",)))
    waiting.until(lambda: State.FAILED in states(changes, "u"), "the failure")
    supervisor.stop()
    supervisor.wait(30)
    assert "status=127" in changes[1].text
    assert "/nonexistent/command: can't be started: No such file or directory" in capfd.readouterr().err


def test_units_end_orderly_when_the_supervisor_is_killed(tmp_path):
    log = tmp_path / "log"
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from tests.test_run_supervisor import wait_for_term
from tradebal.run.supervisor import Supervisor, Unit
from pathlib import Path
supervisor = Supervisor([Unit("u", wait_for_term("u", Path({str(log)!r})))])
supervisor.start()
print(sys.stdin.readline())
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    with process:
        waiting.until(lambda: lines(log) == ["ready u"], "the unit")
        process.kill()
    waiting.until(lambda: lines(log) == ["ready u", "end u"], "the unit's own end")


def test_a_failing_callback_leaves_no_process_behind(tmp_path, monkeypatch):
    log = tmp_path / "log"
    pids = []
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def fail(change):
        pids.append(change.pid)
        raise RuntimeError("a mistake in the caller's code")

    with Supervisor([Unit("u", wait_for_term("u", log))], on_change=fail) as supervisor:
        assert supervisor.wait(30) == 1
    waiting.until(lambda: not is_running(pids[0]), "the unit to end")
