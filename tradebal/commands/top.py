"""`tradebal top`: a running system on your terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import deque
from pathlib import Path

from tradebal.cli import add_config_argument

_EPILOG = """\
examples:
  tradebal top                                  until Ctrl-C
  ssh host tradebal top --once                  one picture, as plain text
  tradebal top --once --json | jq .backlog      for scripts; without --once, a line each time it changes

It reads the metrics files that balancer and workers write each second ([shards] directory, folder metrics), so it
needs neither the exporter nor Prometheus, and only the right to read these files.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Shows a running system's rates, backlog and losses, shard by shard."
    parser.epilog = _EPILOG
    add_config_argument(parser)
    parser.add_argument("--directory", type=Path, metavar="DIR", help="the metrics files' directory, if not the usual")
    parser.add_argument("--once", action="store_true", help="show one moment (with rates: it takes a second or two)")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def run(args: argparse.Namespace) -> int:
    """Show it; returns the exit status."""
    if not args.json:
        import rich  # noqa: F401 (say at once what is missing)

    from tradebal.monitoring import top

    directory = args.directory or _directory(args)
    if args.json:
        both = top.moments(directory)
        if args.once:
            next(both)
        for now, rates in both:
            print(json.dumps(top.as_json(now, rates)), flush=True)
            if args.once:
                break
    elif args.once:
        from rich.console import Console

        now, rates = top.second(directory)
        console = Console(width=None if sys.stdout.isatty() else 80)
        console.print(top.draw(now, rates, deque([rates.routed]), sys.maxsize))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            top.watch(directory)
    return 0


def _directory(args: argparse.Namespace) -> Path:
    """Return where the running system keeps its metrics: the configured place, else where `tradebal run` goes."""
    from tradebal.config import load_config
    from tradebal.run.places import for_this_user

    config = load_config(args)
    if not config.metrics_directory.is_dir():
        config = for_this_user(config)
    return config.metrics_directory
