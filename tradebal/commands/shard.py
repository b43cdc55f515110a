"""Answers on which shard, and so with which worker, a symbol is."""

from __future__ import annotations

import argparse

from tradebal.cli import add_config_argument
from tradebal.config import load_config, override
from tradebal.router.symbols import shard_of

_EPILOG = """\
examples:
  tradebal shard SPY AAPL BRK.B
  tradebal shard --shards 16 SPY     where it would be with 16 shards
  cut -d, -f1 universe.csv | xargs tradebal shard | awk '$2 == 3'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Print on which shard each symbol is, as the balancer would place it."
    parser.epilog = _EPILOG
    add_config_argument(parser)
    parser.add_argument("--shards", type=int, metavar="N", help="number of shards (default: the configuration's)")
    parser.add_argument("symbols", nargs="+", metavar="SYMBOL", help="as the provider writes it")


def run(args: argparse.Namespace) -> int:
    """Print one line a symbol: symbol, tab, shard, and "pinned" if it was placed by hand."""
    config = load_config(args)
    if args.shards is not None:
        config = override(config, "shards.count", args.shards, "--shards")
    pins = {symbol.encode(): shard for symbol, shard in config.shards.pin.items()}
    for symbol in args.symbols:
        name = symbol.encode(errors="surrogateescape")
        mark = "\tpinned" if name in pins else ""
        print(f"{symbol}\t{shard_of(name, config.shards.count, pins)}{mark}")
    return 0
