"""`tradebal exporter`: the process that Prometheus asks."""

from __future__ import annotations

import argparse

from tradebal.cli import add_config_argument
from tradebal.systemd import log

_EPILOG = """\
examples:
  tradebal exporter
  tradebal exporter --address 127.0.0.1:0      any free port; the log says which
  curl -s http://127.0.0.1:9570/metrics

/metrics has all units' figures (docs/metrics.md says what they mean), /-/healthy tells that the exporter answers,
/-/ready whether every configured unit is up (503 and their names if not), / is a page for people. Who runs
node_exporter already can do without: point its textfile collector to [shards] directory, folder metrics.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Serves what balancer and workers write about themselves, by HTTP, in Prometheus' text format."
    parser.epilog = _EPILOG
    add_config_argument(parser)
    parser.add_argument("--address", metavar="HOST:PORT", help="instead of the configuration's [metrics] address")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit status."""
    from tradebal.config import load_config, override
    from tradebal.monitoring import exporter

    config = load_config(args)
    if args.address is not None:
        config = override(config, "metrics.address", args.address, "--address")
    log.setup("exporter", log.level_of(config.log.level))
    return exporter.run(config)
