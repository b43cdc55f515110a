"""`tradebal balancer`: the one process that talks to the provider."""

from __future__ import annotations

import argparse

from tradebal.cli import add_config_argument
from tradebal.systemd import log


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Keeps the one connection to the provider, and writes each trade, untouched, to the FIFO of its symbol's "
        "shard. Log lines go to stderr; stdout gets one line for each 8192 trades. SIGTERM or Ctrl-C ends it orderly: "
        "what was received is handed on first. SIGHUP has it read its configuration again."
    )
    parser.epilog = "example:\n  TRADEBAL_FEED_KEY=… tradebal balancer --config ./tradebal.toml"
    add_config_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the balancer until it is told to stop; returns the exit status."""
    from tradebal.balancer.service import Balancer
    from tradebal.config import feed_key, load_config
    from tradebal.config.undumpable import make_undumpable

    config = load_config(arguments)
    log.setup("balancer", log.level_of(config.log.level))
    make_undumpable()
    return Balancer(config, feed_key(), reread=lambda: load_config(arguments)).run()
