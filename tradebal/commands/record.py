"""`tradebal record`: keeps what a provider sends, to be played again by `tradebal replay`."""

from __future__ import annotations

import argparse
import math
import re
import signal
from pathlib import Path

from tradebal.cli import add_config_argument
from tradebal.config import kinds
from tradebal.systemd import log

_EPILOG = """\
examples:
  TRADEBAL_FEED_KEY=… tradebal record monday.zst --duration 6.5h
  tradebal record btc.gz --config coinbase.toml --max-size 1GiB
  tradebal replay monday.zst                              play it again

Providers let an account open one connection: while this runs, no balancer may run with the same key,
or they throw each other out. On a full market prefer .zst: gzip can't keep up with the open.
"""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Connects, logs in, subscribes and reconnects as the balancer does, and writes each message, untouched and "
        "with its time, to FILE, until Ctrl-C. A kill loses at most a second. docs/recordings.md describes the format."
    )
    parser.epilog = _EPILOG
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="a new file; .zst and .gz are compressed, zstd or gzip, as it is written",
    )
    add_config_argument(parser)
    parser.add_argument(
        "--append", action="store_true", help="go on in an existing recording of the same provider and URL"
    )
    parser.add_argument(
        "--duration", type=_duration, default=math.inf, metavar="TIME", help="stop after 90, 90s, 15m or 6.5h"
    )
    parser.add_argument(
        "--max-size", type=_size, metavar="SIZE", help="stop when the file has this size, such as 10GiB"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress line each second")


def run(args: argparse.Namespace) -> int:
    """Record until a signal or a limit; returns the exit status: 1 if no login ever succeeded."""
    from tradebal.config import feed_key, load_config
    from tradebal.config.undumpable import make_undumpable
    from tradebal.recordings.recorder import Recorder

    config = load_config(args)
    log.setup("record")
    make_undumpable()
    recorder = Recorder(
        config.feed,
        feed_key(),
        args.file,
        append=args.append,
        duration=args.duration,
        max_size=args.max_size,
        progress=not args.quiet,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: recorder.stop())
    recorder.run()
    print(
        f"recorded: file={args.file} messages={recorder.messages} trades={recorder.trades} "
        f"bytes={recorder.message_bytes} connects={recorder.connects} gaps={recorder.gaps}"
    )
    return 0 if recorder.connects else 1


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text, re.ASCII)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError("must be a time such as 90, 90s, 15m or 6.5h")
    return float(match[1]) * _UNITS[match[2]]


def _size(text: str) -> int:
    kind = kinds.Size(1, 1 << 50)
    try:
        return kind.read(int(text) if text.isdecimal() else text)
    except kinds.RefusedError as refused:
        raise argparse.ArgumentTypeError(f"must be {refused.allowed}") from None
