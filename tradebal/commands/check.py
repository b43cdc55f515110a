"""Shows the effective configuration and whether this system is fit for it, before a start would find out."""

from __future__ import annotations

import argparse
import sys

from tradebal.cli import add_config_argument
from tradebal.config import dump, load_config
from tradebal.run.checks import Level, findings
from tradebal.systemd.log import wants_colour
from tradebal.upstream.profiles import resolve

_EPILOG = """\
Exit status: 0 ready, 1 something would stop a start, 2 the configuration can't be used.

examples:
  tradebal check
  tradebal check --config ./tradebal.toml && tradebal run --config ./tradebal.toml
  sudo -u tradebal tradebal check    as the user of the systemd services
"""

_COLOURS = {Level.OK: "\x1b[32m", Level.WARN: "\x1b[33m", Level.FAIL: "\x1b[31m"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Print the effective configuration, then check this system; each finding comes with the command that fixes it."
    )
    parser.epilog = _EPILOG
    add_config_argument(parser)
    parser.add_argument(
        "--configuration-only", action="store_true", help="only whether the configuration can be used; print nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Print configuration and findings; returns 1 if one of them would stop a start."""
    config = load_config(args)
    if args.configuration_only:
        resolve(config.feed)
        return 0
    colours = wants_colour(sys.stdout)
    print(f"# effective configuration, from {config.source or 'the defaults alone'}")
    print(dump(config, conceal=True))
    count = dict.fromkeys(Level, 0)
    for finding in findings(config):
        count[finding.level] += 1
        word = f"{finding.level.value:4}"
        if colours:
            word = f"{_COLOURS[finding.level]}{word}\x1b[0m"
        print(f"{word}  {finding.subject}: {finding.text}")
        if finding.fix:
            print(f"      fix: {finding.fix}")
    if count[Level.FAIL]:
        print(f"\nnot ready: {count[Level.FAIL]} would stop a start, {count[Level.WARN]} to be warned of")
        return 1
    print(f"\nready to start, {count[Level.WARN]} to be warned of")
    return 0
