"""The command line: finds the command's module, imports no other, and turns its outcome into an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import tradebal
from tradebal.errors import UserError

COMMANDS = {
    "run": "balancer, workers and exporter in the foreground, without systemd",
    "demo": "a simulated market open, balanced before your eyes",
    "top": "what a running system does, live on your terminal",
    "init": "write a sample configuration, each key explained",
    "check": "the effective configuration, and whether this system is fit for it",
    "shard": "on which shard a symbol is",
    "balancer": "keep the one connection, and hand each trade to its shard",
    "worker": "read one shard, and hand its trades to a handler",
    "exporter": "serve the figures of all units to Prometheus",
    "simulate": "a provider to test against, with a realistic market",
    "record": "keep what a provider sends, with its times",
    "replay": "be a provider that sends a recording again",
}

_EXTRAS = {"trustme": "simulate", "websockets": "simulate", "rich": "top", "zstandard": "record"}

_EPILOG = """\
examples:
  tradebal demo                      see it work: no key and no network needed
  tradebal check                     what would stop a start here, and what to do about it
  TRADEBAL_FEED_KEY=… tradebal run   the real thing, until Ctrl-C

`tradebal COMMAND --help` explains a command. Configuration: --config FILE, else $TRADEBAL_CONFIG,
else /etc/tradebal/tradebal.toml; every key is optional.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; `argv` is without the program's name, by default the process's."""
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except UserError as error:
        return report(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python flushes stdout once more at exit; let that go nowhere instead of to the pipe that nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def report(error: UserError) -> int:
    """Print the error as its user should see it, and return the exit status that goes with it."""
    from tradebal.systemd import log  # only a mistake needs it

    level = "<3>" if log.is_journal(sys.stderr) else ""
    print(f"{level}tradebal: error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"{level}tradebal: hint: {error.hint}", file=sys.stderr)
    return error.code


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add --config, which `tradebal.config.load_config` reads."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="configuration (default: $TRADEBAL_CONFIG, else /etc/tradebal/tradebal.toml if it exists)",
    )


def _run(argv: list[str]) -> int:
    parser = _top_parser()
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    if argv[0].startswith("-"):
        parser.parse_args(argv)
    name = argv[0]
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}{_suggestion(name)}", hint="tradebal --help lists them", code=2)
    try:
        module = importlib.import_module(f"tradebal.commands.{name}")
        command = argparse.ArgumentParser(
            prog=f"tradebal {name}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.configure(command)
        if not {"-h", "--help"}.isdisjoint(argv):
            command.description = _wrapped(command.description or "")
        status: int = module.run(command.parse_args(argv[1:]))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise UserError(
            f"tradebal {name} needs the Python package {package}, which isn't installed",
            hint=f"pip install 'tradebal[{_EXTRAS[package]}]'",
        ) from None
    return status


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="tradebal",
        usage="tradebal [--help] [--version] COMMAND …",
        description=f"{tradebal.__doc__}\n\ncommands:\n{commands}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tradebal {tradebal.__version__}")
    return parser


def _wrapped(text: str) -> str:
    """Wrap a description's paragraphs; the formatter, which leaves the examples' lines alone, leaves these too."""
    import textwrap  # not for the start of a daemon

    return "\n".join(textwrap.fill(line, 100) for line in text.splitlines())


def _suggestion(name: str) -> str:
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
