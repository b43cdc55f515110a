"""The command line of the simulated provider."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import signal
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tradebal.config.kinds import RefusedError, Size
from tradebal.errors import UserError
from tradebal.market import output
from tradebal.systemd import log

if TYPE_CHECKING:
    from tradebal.market.sent_log import SentLog
    from tradebal.market.server import Provider
    from tradebal.market.sessions import Session

_log = logging.getLogger(__name__)

_EPILOG = """\
sessions:
  open     the market open within --duration (20) seconds: 572 trades/s, then 800,000 within a second, then decay
  steady   always --rate (2,500) trades/s
  burst    midday: 3,500 trades/s, and 80,000 in bursts
  max      as fast as the client reads, 128 trades a frame

examples:
  tradebal simulate                              the market open at wss://127.0.0.1:9443/stocks
  tradebal simulate --session steady --no-tls    an ordinary hour at ws://127.0.0.1:9080/stocks
  tradebal simulate --session max --trades 10000000 --once --report sent.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = """\
Serve Massive's stock trades as Massive does, from a market that is made up but has a real one's symbols, skew,
fields and rates. Every client gets the session from its own start; the same --seed makes the same trades. Trades are
numbered 1, 2, 3… (`q`), so that losses and duplicates show. The market has trades only: a subscription to another
channel (Q, A, AM, LULD) is refused as Massive refuses what an account's plan doesn't hold."""
    parser.epilog = _EPILOG
    play = parser.add_argument_group("what is played")
    play.add_argument("--session", choices=("open", "steady", "burst", "max"), default="open", help="default: open")
    play.add_argument("--rate", type=_positive, metavar="N", help="trades/s: of steady, or the peak of open and burst")
    play.add_argument(
        "--duration", type=_positive, metavar="S", help="default: open and max 20, burst 60, steady without end"
    )
    play.add_argument("--trades", type=_count, metavar="N", help="end after N trades")
    play.add_argument("--seed", type=int, default=0, metavar="N", help="another market (default: 0)")
    play.add_argument("--repeat", action="store_true", help="play the session again and again; numbers go on")
    play.add_argument("--once", action="store_true", help="close and exit when a client has had the whole session")
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    where.add_argument("--port", type=_port, metavar="N", help="default: 9443, without TLS 9080; 0: any free one")
    where.add_argument("--port-file", type=Path, metavar="FILE", help="write the port there once it listens")
    where.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="wss (default), or ws")
    where.add_argument("--ca-out", type=Path, metavar="FILE", help="write the certificate to trust there (PEM)")
    manners = parser.add_argument_group("how clients are treated")
    manners.add_argument(
        "--key", action="append", default=[], help="a made-up key to accept (repeatable; default: any)"
    )
    manners.add_argument(
        "--login-timeout", type=_positive, default=10.0, metavar="S", help="until auth_timeout (default: 10)"
    )
    manners.add_argument("--ping-every", type=_seconds, default=30.0, metavar="S", help="0: never (default: 30)")
    manners.add_argument(
        "--buffer",
        type=_size,
        default=256 << 20,
        metavar="SIZE",
        help='unread bytes, such as "64MiB", for which a slow consumer is cut off (default: 256MiB); 0: wait for it',
    )
    manners.add_argument(
        "--evict",
        choices=("random", "newest", "oldest"),
        default="random",
        help="which of two connections with one key dies (default: random, by --seed)",
    )
    record = parser.add_argument_group("what was sent")
    record.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write the counts there (JSON), when a client has had the whole session, and at the end",
    )
    record.add_argument(
        "--sent-log",
        type=Path,
        metavar="FILE",
        help="write a line for each block sent: client, first number, trades, CLOCK_MONOTONIC ns (CSV)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until the session is over (--once), or SIGINT or SIGTERM."""
    from tradebal.market.connection import Manners
    from tradebal.market.dialogue import MassiveDialogue
    from tradebal.market.sent_log import SentLog
    from tradebal.market.server import Provider
    from tradebal.market.stocks import StockPlayback

    log.setup("simulate")
    session = _session(args)
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        tls = _tls(args, stack) if args.tls else None
        sent_log = None
        if args.sent_log:
            try:
                sent_log = SentLog(args.sent_log)
            except OSError as error:
                raise output.unwritable(args.sent_log, error) from None
            stack.callback(sent_log.close)
        provider = Provider(
            StockPlayback(session, seed=args.seed, trades=args.trades, repeat=args.repeat),
            lambda: MassiveDialogue(keys=args.key, channels=()),
            host=args.host,
            port=(9443 if args.tls else 9080) if args.port is None else args.port,
            tls=tls,
            manners=Manners(
                login_timeout=args.login_timeout,
                ping_every=args.ping_every,
                buffer_limit=args.buffer,
                evict=args.evict,
                close_at_end=args.once,
            ),
            seed=args.seed,
            sent_log=sent_log,
        )
        with provider:
            _log.info("listening: url=%s session=%s seed=%d", provider.url, session.name, args.seed)
            if args.port_file:
                output.write(args.port_file, b"%d\n" % provider.port)
            while _watch(provider, stop) and not args.once:
                # Whoever waits for the report need not stop us to get it.
                _report(provider, args, sent_log)
                provider.finished.clear()
        _report(provider, args, sent_log)
    return 0


def _session(args: argparse.Namespace) -> Session:
    from tradebal.market import sessions

    duration: float | None = args.duration
    match args.session:
        case "open":
            return sessions.market_open(duration or 20.0, args.rate or sessions.FULL_RATE)
        case "steady":
            return sessions.steady(duration or math.inf, args.rate or sessions.STEADY_RATE)
        case "burst":
            return sessions.burst(duration or 60.0, args.rate or sessions.BURST_RATE, args.seed)
    if args.rate:
        raise UserError("--rate doesn't go with --session max", hint="use --session steady --rate N", code=2)
    return sessions.full_speed(duration or (math.inf if args.trades else 20.0))


def _tls(args: argparse.Namespace, stack: ExitStack) -> ssl.SSLContext:
    from tradebal.market.certificate import ThrowAwayAuthority

    authority = ThrowAwayAuthority(*({args.host} - {"0.0.0.0", "::"}))  # noqa: S104
    path = args.ca_out
    if path is None:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tradebal-simulate-"))) / "ca.pem"
    output.write(path, authority.pem)
    _log.info("certificate to trust: file=%s (feed.ca_file, or SSL_CERT_FILE)", path)
    return authority.server_context()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set, while the block runs."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(provider: Provider, stop: threading.Event) -> bool:
    """Log progress once a second until a client has had the whole session (True), or it is time to end (False)."""
    before, since = provider.report().trades, time.monotonic()
    while not stop.wait(0.05):
        if provider.finished.is_set():
            return True
        elapsed = time.monotonic() - since
        if elapsed < 1:
            continue
        since += elapsed
        sent, backlog = provider.report().trades, provider.backlog()
        if sent != before or backlog:
            _log.info("sending: rate=%.0f trades=%d backlog_bytes=%d", (sent - before) / elapsed, sent, backlog)
        before = sent
    return False


def _report(provider: Provider, args: argparse.Namespace, sent_log: SentLog | None) -> None:
    """Log the counts, and write them where they were asked for; the report comes last, so it says that all is there."""
    report = provider.report()
    _log.info(
        "sent: clients=%d trades=%d frames=%d bytes=%d peak=%d",
        len(report.clients),
        report.trades,
        report.frames,
        report.bytes,
        report.peak,
    )
    if sent_log:
        sent_log.flush()
    if args.report:
        outcome = {"session": args.session, "seed": args.seed, "tls": args.tls, **dataclasses.asdict(report)}
        output.write(args.report, json.dumps(outcome, indent=2).encode() + b"\n")


def _positive(text: str) -> float:
    value = _seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _size(text: str) -> int:
    kind = Size(0, 1 << 40)
    try:
        return kind.read(int(text) if text.isdecimal() else text)
    except RefusedError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None
