"""`tradebal demo`: the market open, simulated, balanced before your eyes."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Plays a market open on this machine: a simulated provider sends it over wss, one balancer takes it in and "
        "hands each trade to one of the workers. It needs no key, no root and no systemd. At the end it counts: exit "
        "status 0 if every trade that was sent was handled once and in order, 1 if not."
    )
    parser.epilog = "examples:\n  tradebal demo\n  tradebal demo --workers 8 --duration 60"
    parser.add_argument("--workers", type=int, default=4, choices=range(1, 65), metavar="N", help="default: 4")
    parser.add_argument("--duration", type=float, default=20.0, metavar="S", help="seconds to play (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another market (default: 0)")
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="wss (default), or ws")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the busiest moment into an SVG file")


def run(arguments: argparse.Namespace) -> int:
    """Play it, print the summary, and return 0 only if nothing was lost."""
    import trustme  # noqa: F401 (say at once what is missing, not after the simulator failed)
    import websockets  # noqa: F401

    from tradebal.monitoring.view import PictureView, View, open_view
    from tradebal.run.demo import Demo
    from tradebal.systemd import log

    log.setup("demo", logging.WARNING)
    title = "tradebal demo: a market open, simulated"
    with tempfile.TemporaryDirectory(prefix="tradebal-demo-") as directory:
        demo = Demo(
            Path(directory),
            workers=arguments.workers,
            duration=arguments.duration,
            seed=arguments.seed,
            tls=arguments.tls,
        )
        view: View = open_view(title)
        picture = PictureView(title, view) if arguments.picture else None
        try:
            outcome = demo.play(picture or view)
        finally:
            view.close()
        print(outcome.summary())
        if picture:
            picture.save(arguments.picture, "make demo", outcome.summary())
    if outcome.good:
        print(f"\nEvery trade reached its worker, once and in order, in {outcome.seconds:.0f} s.")
        return 0
    print("\nTrades were lost, or came twice or out of order: this must not happen. Please report it.")
    return 1
