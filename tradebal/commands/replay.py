"""`tradebal replay`: a provider that sends what was recorded."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import signal
import threading
from datetime import date, time
from pathlib import Path

from tradebal.config import kinds
from tradebal.errors import UserError
from tradebal.market import output
from tradebal.systemd import log

_EPILOG = """\
examples:
  tradebal replay monday.zst                                at the pace of that day
  tradebal replay monday.zst --from 09:29 --until 09:35     only the open
  tradebal replay monday.zst --speed max --once             as fast as one client reads it, then end
  tradebal replay us-trades-2013-10-07.csv.gz --speed 60    a CSV of trades, an hour a minute

To have it balanced, give its address to the balancer, and any key:
  printf '[feed]\\nurl = "ws://127.0.0.1:9080/stocks"\\n' > replay.toml
  TRADEBAL_FEED_KEY=any tradebal run --config replay.toml
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Serves a recording over a websocket: login and subscription as its provider has them, then the recorded "
        "messages, to each client from the start. FILE is what `tradebal record` wrote, a CSV of US trades, or frames "
        "as cryptofeed keeps them; its contents tell which. At the playback's end connections stay open, as after the "
        "market's close."
    )
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", type=Path, help="recording, plain or compressed with gzip or zstd")
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="1|N|max",
        help="factor on the recording's pace, or max: as fast as each client reads (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--from",
        dest="since",
        type=_clock,
        metavar="HH:MM",
        help="play from this time of day on, New York time, one day",
    )
    parser.add_argument("--until", type=_clock, metavar="HH:MM", help="play up to this time of day, New York time")
    parser.add_argument(
        "--profile", choices=("massive", "alpaca", "coinbase", "kraken", "plain"),
        help="whose login to play (default: the recording's); plain: none, it plays to whoever connects",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="close with 1000 and exit after one client had all of it")
    parser.add_argument(
        "--max-message", type=_size, default=64 << 20, metavar="SIZE",
        help="longest message to read, which bounds the memory that a forged file can take (default: 64MiB)",
    )  # fmt: skip
    csv = parser.add_argument_group("a CSV of trades")
    csv.add_argument("--date", type=_date, metavar="YYYY-MM-DD", help="its day (default: the one in the file's name)")
    csv.add_argument(
        "--trades-per-frame", type=_positive, default=128, metavar="N",
        help="most trades in one message; fewer where fewer are due at a time (default: 128)",
    )  # fmt: skip
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    server.add_argument("--port", type=_port, metavar="N", help="default: 9080, with TLS 9443; 0: any free one")
    server.add_argument("--port-file", type=Path, metavar="FILE", help="write the port there once it listens")
    server.add_argument(
        "--tls", action=argparse.BooleanOptionalAction, default=False, help="wss, with a certificate made for this run"
    )
    server.add_argument("--ca-out", type=Path, metavar="FILE", help="write the certificate to trust there (PEM)")
    server.add_argument("--report", type=Path, metavar="FILE", help="write what was sent as JSON when it ends")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal, or with --once until a client had the whole playback; returns the exit status."""
    from tradebal.market.certificate import ThrowAwayAuthority
    from tradebal.market.connection import Manners
    from tradebal.market.server import Provider
    from tradebal.recordings.importers import open_source
    from tradebal.recordings.replay import Between, RecordingPlayback, dialogue_of, rule_of

    if args.since is not None and args.until is not None and args.until <= args.since:
        raise UserError("--until must be later in the day than --from", code=2)
    if args.tls != bool(args.ca_out):
        raise UserError("--tls and --ca-out go together: a client must be able to trust the certificate", code=2)
    with open_source(args.file, args.date, args.max_message) as source:
        rule = rule_of(source)
        dialogue = dialogue_of(args.profile or source.profile, source.url, rule)
    playback = RecordingPlayback(
        args.file,
        rule,
        args.speed,
        args.trades_per_frame,
        args.date,
        Between(args.since, args.until),
        args.max_message,
    )
    log.setup("replay")
    authority = ThrowAwayAuthority(*({args.host} - {"0.0.0.0", "::"})) if args.tls else None  # noqa: S104
    if authority:
        output.write(args.ca_out, authority.pem)
    provider = Provider(
        playback,
        dialogue,
        host=args.host,
        port=(9443 if args.tls else 9080) if args.port is None else args.port,
        tls=authority.server_context() if authority else None,
        manners=Manners(close_at_end=args.once),
    )
    done = provider.finished if args.once else threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with provider, contextlib.suppress(KeyboardInterrupt):
        if args.port_file:
            output.write(args.port_file, b"%d\n" % provider.port)
        print(f"listening: url={provider.url}", flush=True)
        done.wait()
    report = provider.report()
    if args.report:
        output.write(
            args.report, json.dumps({"file": str(args.file), **dataclasses.asdict(report)}, indent=2).encode() + b"\n"
        )
    print(f"sent: trades={report.trades} frames={report.frames} bytes={report.bytes} clients={len(report.clients)}")
    whole = any(client.finished and not client.dropped for client in report.clients)
    return 1 if playback.damage or (args.once and not whole) else 0


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    speed = float(text)
    if not 0 < speed < math.inf:
        raise argparse.ArgumentTypeError("must be max, or a number greater than 0")
    return speed


def _size(text: str) -> int:
    kind = kinds.Size(1, 1 << 30)
    try:
        return kind.read(int(text) if text.isdecimal() else text)
    except kinds.RefusedError as refused:
        raise argparse.ArgumentTypeError(f"must be {refused.allowed}") from None


def _clock(text: str) -> time:
    clock = time.fromisoformat(text)
    if clock.tzinfo is not None:
        raise argparse.ArgumentTypeError("must be HH:MM, New York time")
    return clock


def _date(text: str) -> date:
    return date.fromisoformat(text)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    return port


# argparse names a refused value's type by these.
_speed.__name__ = "speed"
_clock.__name__ = "time of day"
_date.__name__ = "date"
_positive.__name__ = "number"
_port.__name__ = "port"
