"""Writes the manual pages that say what the program says itself: tradebal(1) from the commands' help, and
tradebal.toml(5) from the declarations of the configuration's keys.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import tradebal
from tradebal import cli, config
from tradebal.config.sample import meanings, shown

_WHAT_IT_IS = """\
tradebal keeps the one connection that providers of market data let an account open, never falls behind, and hands each
trade's text, untouched, to one of N workers, always the same one for the same symbol.

Under systemd, "systemctl start tradebal.target" runs all of it, see tradebal-balancer.service(8). Without systemd,
"tradebal run" does. "tradebal demo" shows it with a simulated market.
"""

_FILES = {
    "/etc/tradebal/tradebal.toml": "The configuration, see tradebal.toml(5).",
    "/etc/credstore/feed-key": "The provider's key, one line, for root alone; systemd hands it to the balancer.",
    "/run/tradebal/shard-N.fifo": "The trades of shard N.",
    "/run/tradebal/metrics": "What each process tells about itself, in Prometheus' text format.",
    "/var/lib/tradebal/overflow/rejects.ndjson": "What the provider sent and could not be routed.",
    "/usr/share/doc/tradebal/examples": "Drop-ins for the units.",
}

_ENVIRONMENT = {
    "TRADEBAL_CONFIG": "Names the configuration where --config does not.",
    "TRADEBAL_FEED_KEY": "The provider's key, where systemd gives no credential feed-key.",
}

_STATUS = {
    "0": "Done.",
    "1": "Failed: something was lost, or a check found what would stop a start.",
    "2": "The command line or the configuration cannot be used.",
    "3": "Something else holds what is needed: a second balancer, or a port that is taken.",
}

_RULES = """\
A TOML file, in which every key is optional. What cannot be used is refused with one line that names file, key, value
and what is allowed. "tradebal check" prints the effective configuration and tells whether this system is fit for it.

Sizes are numbers of bytes, or strings with a binary unit such as "64MiB". Durations are numbers of seconds. Paths are
absolute.

The provider's key is never in this file. It comes from systemd's credential feed-key, else from the environment
variable TRADEBAL_FEED_KEY. Where a provider gives a key and a secret, both are in it, joined by a colon: KEY:SECRET.
"""


def tradebal_1() -> str:
    """Return tradebal(1)."""
    lines = [*_head("tradebal", 1, "Takes the whole market's trades over one connection, and hands them to N workers")]
    lines += [".SH SYNOPSIS", ".B tradebal", r"[\-\-help] [\-\-version]", ".I COMMAND", "…"]
    lines += [".SH DESCRIPTION", *_prose(_WHAT_IT_IS), ".SH COMMANDS"]
    for name in cli.COMMANDS:
        lines += _command(name)
    lines += [".SH FILES", *_list(_FILES)]
    lines += [".SH ENVIRONMENT", *_list(_ENVIRONMENT)]
    lines += [".SH EXIT STATUS", *_list(_STATUS)]
    lines += [".SH SEE ALSO", ".BR tradebal.toml (5),", ".BR tradebal\\-balancer.service (8),", ".BR systemctl (1)"]
    return "\n".join(lines) + "\n"


def tradebal_toml_5() -> str:
    """Return tradebal.toml(5)."""
    lines = [*_head("tradebal.toml", 5, "Configuration of tradebal"), ".SH SYNOPSIS", "/etc/tradebal/tradebal.toml"]
    lines += [".SH DESCRIPTION", *_prose(_RULES)]
    table = ""
    for key in config.declared_keys():
        where, _, name = key.path.rpartition(".")
        if where != table:
            table = where
            title = f"[[{where.removesuffix('[]')}]]" if where.endswith("[]") else f"[{where}]"
            lines += [f".SH {_escape(title)}", *_prose(meanings()[where])]
        lines += [".TP", rf"\fB{_escape(name)}\fR", *_prose(key.doc)]
        lines += [".br", f"Must be {_marked(key.allowed)}."]
        if key.default:
            lines += [".br", f"Default: {_escape(key.default)}"]
        elif shown(key):
            lines += [".br", f"Example: {_escape(shown(key))}"]
    lines += [".SH SEE ALSO", ".BR tradebal (1),", ".BR tradebal\\-balancer.service (8)"]
    return "\n".join(lines) + "\n"


def _head(name: str, section: int, what: str) -> Iterator[str]:
    version = f"tradebal {tradebal.__version__}"
    manual = {1: "User Commands", 5: "File Formats"}[section]
    yield f'.TH {_escape(name).upper() if section == 1 else _escape(name)} {section} "" "{version}" "{manual}"'
    # Commands and TOML are to be copied: no hyphenation, no stretched lines.
    yield from (".nh", ".ad l", ".SH NAME", rf"{_escape(name)} \- {_escape(what)}")


def _command(name: str) -> Iterator[str]:
    module = importlib.import_module(f"tradebal.commands.{name}")
    parser = argparse.ArgumentParser(prog=f"tradebal {name}", add_help=False)
    module.configure(parser)
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    yield f".SS {_escape(name)}"
    yield rf"\fB{_escape(usage)}\fR"
    yield ".PP"
    yield from _prose(parser.description or cli.COMMANDS[name])
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        value = action.metavar or action.dest.upper()
        value = "" if action.nargs == 0 else " ".join(value) if isinstance(value, tuple) else value
        label = f"{', '.join(action.option_strings)} {value}".strip()
        yield from (".TP", rf"\fB{_escape(label)}\fR")
        yield from _prose((action.help or "") % {"default": action.default, "prog": parser.prog} or label)
    yield from _epilog(parser.epilog or "")


def _epilog(text: str) -> Iterator[str]:
    """Examples are indented in a help text, and are shown as they are; all else is prose."""
    inside = False
    yield ".PP"
    for line in text.strip().splitlines():
        example = line.startswith("  ")
        if example != inside:
            yield ".RS 4\n.EX" if example else ".EE\n.RE\n.PP"
            inside = example
        elif not example and not line:
            yield ".PP"
        if example:
            yield _escape(line.strip())
        elif line.endswith(":"):
            yield f".PP\n{_marked(line)}"
        elif line:
            yield _marked(line)
    if inside:
        yield ".EE\n.RE"


def _list(entries: dict[str, str]) -> Iterator[str]:
    for name, text in entries.items():
        yield from (".TP", rf"\fB{_escape(name)}\fR", _marked(text))


def _prose(text: str) -> Iterator[str]:
    for line in text.strip().splitlines():
        yield _marked(line) if line else ".PP"


def _marked(text: str) -> str:
    """Escape, with `code` in bold."""
    parts = [_escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:
        return _escape(text)
    marked = "".join(rf"\fB{part}\fR" if number % 2 else part for number, part in enumerate(parts))
    return rf"\&{marked}" if marked[:1] in {".", "'"} else marked


def _escape(text: str) -> str:
    for character, written in {"\\": r"\e", "-": r"\-", "'": r"\(aq", '"': r"\(dq", "^": r"\(ha", "~": r"\(ti"}.items():
        text = text.replace(character, written)
    return rf"\&{text}" if text.startswith(".") else text


def main() -> int:
    """Write both pages into the directory that is named."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tradebal.1").write_text(tradebal_1())
    (directory / "tradebal.toml.5").write_text(tradebal_toml_5())
    return 0


if __name__ == "__main__":
    sys.exit(main())
