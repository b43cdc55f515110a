"""`tradebal worker`: the process that reads one shard."""

from __future__ import annotations

import argparse

from tradebal.cli import add_config_argument
from tradebal.systemd import log

_EPILOG = """\
examples:
  tradebal worker 3                                  the configured handler
  tradebal worker 3 --handler mybars:Bars            class Bars in mybars.py of the current directory

A handler derives from tradebal.handlers.Handler. Its module is looked for where Python finds modules, then in
the current directory. The worker may be started before the balancer, and either may restart alone.
SIGTERM or Ctrl-C ends it orderly: what is in the FIFO is handled first.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Reads one shard's FIFO, and hands its trades in batches to a handler."
    parser.epilog = _EPILOG
    add_config_argument(parser)
    parser.add_argument("--handler", metavar="MODULE:CLASS", help="instead of the configuration's [worker] handler")
    parser.add_argument("shard", type=int, metavar="N", help="number of the shard, from 0")


def run(args: argparse.Namespace) -> int:
    """Run the worker until it is told to stop; returns the exit status."""
    from tradebal.config import load_config, override
    from tradebal.worker.loop import Worker

    config = load_config(args)
    if args.handler is not None:
        config = override(config, "worker.handler", args.handler, "--handler")
    log.setup(f"worker-{args.shard}", log.level_of(config.log.level))
    return Worker(config, args.shard).run()
