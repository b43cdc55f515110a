"""Runs everything in the foreground for those without systemd: a laptop, a container, a test."""

from __future__ import annotations

import argparse
import logging
import select
import signal
import time

from tradebal.cli import add_config_argument
from tradebal.config import Config, load_config, override
from tradebal.errors import UserError
from tradebal.run.checks import Level, check_lock
from tradebal.run.places import for_this_user
from tradebal.run.processes import units, written
from tradebal.run.supervisor import Supervisor
from tradebal.systemd import log
from tradebal.wakeup import Wakeup

_EPILOG = """\
Ctrl-C or SIGTERM stops the balancer first, then the workers, once they have read what is left, then the
exporter; a second Ctrl-C kills what still runs. A user without root gets directories of their own where the
configuration leaves the defaults.

Exit status: 0 stopped as asked, 1 something failed or had to be killed, 2 the configuration can't be used,
3 something else holds what is needed.

examples:
  TRADEBAL_FEED_KEY=… tradebal run
  tradebal run --config ./tradebal.toml --shards 2
  tradebal run --handler mybars:Bars    class Bars of mybars.py in the current directory
"""

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ECHO = 0.5
"""Seconds within which a further signal is the first one's echo: timeout(1), for one, signals process and group."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Run balancer, workers and exporter in the foreground, restart what dies, and stop all in order at Ctrl-C."
    )
    parser.epilog = _EPILOG
    add_config_argument(parser)
    parser.add_argument("--shards", type=int, metavar="N", help="instead of the configuration's shards.count")
    parser.add_argument("--handler", metavar="MODULE:CLASS", help="instead of the configuration's worker.handler")


def run(args: argparse.Namespace) -> int:
    """Run until asked to stop, or until something can't start; returns the exit status."""
    config = load_config(args)
    if args.shards is not None:
        config = override(config, "shards.count", args.shards, "--shards")
    if args.handler is not None:
        config = override(config, "worker.handler", args.handler, "--handler")
    log.setup("run")
    config = _own_places(config)
    _refuse_second(config)
    with written(config) as file:
        return supervise(Supervisor(units(config.shards.count, file)))


def supervise(supervisor: Supervisor, *, echo: float = _ECHO) -> int:
    """Start the supervisor's units, turn signals into its stop, and return its exit status. For the main thread.

    A Ctrl-C that comes later than `echo` seconds after the first signal kills.
    """
    wakeup = Wakeup()
    try:
        with wakeup.signals(dict.fromkeys(_SIGNALS, lambda *_: None)), supervisor:
            _until_done(supervisor, wakeup, echo)
            return supervisor.wait() or 0
    finally:
        wakeup.close()


def _until_done(supervisor: Supervisor, wakeup: Wakeup, echo: float) -> None:
    asked_at: float | None = None
    while True:
        ready, _, _ = select.select([supervisor.fileno(), wakeup.fileno()], [], [])
        if supervisor.fileno() in ready:
            return
        now = time.monotonic()
        for number in wakeup.take():
            if number not in _SIGNALS:
                continue
            name = signal.Signals(number).name
            if asked_at is None:
                asked_at = now
                _log.info("stopping in order: signal=%s (Ctrl-C again kills)", name)
                supervisor.stop()
            elif number == signal.SIGINT and now - asked_at >= echo:
                _log.warning("killing what still runs: signal=%s", name)
                supervisor.kill()


def _own_places(config: Config) -> Config:
    own = for_this_user(config)
    for key, before, now in (
        ("shards.directory", config.shards.directory, own.shards.directory),
        ("overflow.directory", config.overflow.directory, own.overflow.directory),
    ):
        if before != now:
            _log.info("%s=%s, as this user can't write to %s", key, now, before)
    return own


def _refuse_second(config: Config) -> None:
    # The balancer itself would refuse, but by then our workers would be taking the other's trades.
    for finding in check_lock(config.shards.directory):
        if finding.level is Level.FAIL:
            raise UserError(f"another balancer: {finding.text}", hint=finding.fix, code=3)
