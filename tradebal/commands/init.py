"""`tradebal init`: a sample configuration to start from, each key explained."""

from __future__ import annotations

import argparse
from pathlib import Path

_EPILOG = """\
examples:
  tradebal init tradebal.toml                  a new file; an existing one is never overwritten
  tradebal init | grep -A4 max_message         only look
  sudo tradebal init --system /etc/tradebal/tradebal.toml
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Writes a sample configuration: each key with its meaning, its range and its default, commented out, so that "
        "the file changes nothing until a line is uncommented."
    )
    parser.epilog = _EPILOG
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a new file (default: standard output)")
    parser.add_argument("--system", action="store_true", help="with the notes for the systemd services")


def run(args: argparse.Namespace) -> int:
    """Write the sample; returns the exit status."""
    from tradebal.config.sample import sample
    from tradebal.errors import UserError

    text = sample(system=args.system)
    if args.file is None:
        print(text, end="")
        return 0
    try:
        with args.file.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{args.file} exists", hint="name another file, or move this one away") from None
    except OSError as error:
        raise UserError(f"{args.file} can't be written: {error.strerror}") from None
    print(f"{args.file} written; next: tradebal check --config {args.file}")
    return 0
