"""What the command line promises whatever the command."""

import argparse
import os
import subprocess
import sys
import types

import pytest

import tradebal
from tradebal import cli, config
from tradebal.config import read
from tradebal.errors import UserError


def tradebal_command(*args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "tradebal", *args], capture_output=True, text=True, timeout=60, check=False, **kwargs
    )


@pytest.fixture
def command(monkeypatch):
    """Put a function in a command's place."""

    def put(run, configure=lambda parser: None):
        module = types.ModuleType("tradebal.commands.check")
        module.configure, module.run = configure, run
        monkeypatch.setitem(sys.modules, "tradebal.commands.check", module)

    return put


def test_help_lists_every_command():
    done = tradebal_command("--help")
    assert done.returncode == 0
    for name, text in cli.COMMANDS.items():
        assert f"  {name}" in done.stdout
        assert text in done.stdout


def test_version_is_the_packages():
    assert tradebal_command("--version").stdout == f"tradebal {tradebal.__version__}\n"


def test_no_command_gives_the_help_and_exit_status_2(capsys):
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().err


def test_a_mistyped_command_gets_a_suggestion(capsys):
    assert cli.main(["balancr"]) == 2
    assert capsys.readouterr().err == (
        "tradebal: error: unknown command 'balancr'; did you mean 'balancer'?\n"
        "tradebal: hint: tradebal --help lists them\n"
    )


def test_help_and_a_mistake_import_nothing_heavy():
    script = (
        "import sys; from tradebal import cli\n"
        "try: cli.main([sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    for argument in ("--help", "nonsense"):
        done = subprocess.run(
            [sys.executable, "-c", script, argument], capture_output=True, text=True, timeout=60, check=True
        )
        loaded = set(done.stderr.split())
        heavy = {"websocket", "websockets", "prometheus_client", "rich", "orjson", "ssl", "asyncio"}
        heavy |= {"tradebal.router.native"}
        assert not loaded & heavy
        assert not any(name.startswith("tradebal.commands.") for name in loaded)


def test_the_configuration_imports_only_the_standard_library():
    script = "import sys, tradebal.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    ours = {name for name in done.stdout.split() if name.startswith("tradebal")}
    beside = {name for name in ours if not name.startswith("tradebal.config")}
    assert beside == {"tradebal", "tradebal.errors", "tradebal.stream", "tradebal.stream.framing"}


def test_a_user_error_is_one_line_with_its_hint_and_exit_status(command, capsys):
    def run(args):
        raise UserError("the port is taken", hint="stop the other one", code=3)

    command(run)
    assert cli.main(["check"]) == 3
    assert capsys.readouterr().err == "tradebal: error: the port is taken\ntradebal: hint: stop the other one\n"


def test_ctrl_c_ends_quietly_with_130(command, capsys):
    def run(args):
        raise KeyboardInterrupt

    command(run)
    assert cli.main(["check"]) == 130
    assert capsys.readouterr().err == ""


def test_a_missing_extra_names_what_to_install(command, capsys):
    def run(args):
        raise ModuleNotFoundError("No module named 'websockets'", name="websockets.server")

    command(run)
    assert cli.main(["check"]) == 1
    assert capsys.readouterr().err == (
        "tradebal: error: tradebal check needs the Python package websockets, which isn't installed\n"
        "tradebal: hint: pip install 'tradebal[simulate]'\n"
    )


def test_another_missing_module_stays_a_traceback(command):
    def run(args):
        raise ModuleNotFoundError("No module named 'tradebal.nonsense'", name="tradebal.nonsense")

    command(run)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["check"])


def test_a_reader_that_goes_away_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "tradebal", "shard", "SPY"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("name", ["check", "shard", "run"])
def test_help_of_a_command_shows_examples(name):
    done = tradebal_command(name, "--help")
    assert done.returncode == 0
    assert "example" in done.stdout
    assert f"tradebal {name}" in done.stdout.partition("example")[2]


def parsed(*argv):
    parser = argparse.ArgumentParser()
    cli.add_config_argument(parser)
    return parser.parse_args(argv)


def test_the_file_is_the_options_then_the_environments_then_the_systems(tmp_path, monkeypatch):
    for name, count in (("option", 1), ("environment", 2), ("system", 3)):
        (tmp_path / name).write_text(f"[shards]\ncount = {count}\n")
    monkeypatch.setattr(read, "SYSTEM_FILE", tmp_path / "none")
    monkeypatch.delenv("TRADEBAL_CONFIG", raising=False)
    assert config.load_config(parsed()) == config.Config()
    monkeypatch.setattr(read, "SYSTEM_FILE", tmp_path / "system")
    assert config.load_config(parsed()).shards.count == 3
    monkeypatch.setenv("TRADEBAL_CONFIG", str(tmp_path / "environment"))
    assert config.load_config(parsed()).shards.count == 2
    assert config.load_config(parsed("--config", str(tmp_path / "option"))).shards.count == 1


def test_a_broken_configuration_is_one_error_line(tmp_path):
    file = tmp_path / "t.toml"
    file.write_text("[shards]\ncount = 0\n")
    done = tradebal_command("check", "--config", str(file))
    assert done.returncode == 2
    assert done.stderr == (f"tradebal: error: {file}: shards.count = 0: must be a whole number from 1 to 1024\n")


def test_init_writes_a_sample_that_changes_nothing_and_overwrites_nothing(tmp_path):
    file = tmp_path / "tradebal.toml"
    assert tradebal_command("init", str(file)).returncode == 0
    assert config.load(file) == config.Config()
    assert "#max_message = " in file.read_text()
    assert tradebal_command("init").stdout == file.read_text()
    file.write_text("mine")
    done = tradebal_command("init", str(file))
    assert (done.returncode, file.read_text()) == (1, "mine")
    assert done.stderr == (
        f"tradebal: error: {file} exists\ntradebal: hint: name another file, or move this one away\n"
    )
