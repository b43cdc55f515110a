"""The processes that make up a whole tradebal, in the order in which they have to be stopped."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tradebal.config import Config, dump
from tradebal.run.supervisor import Unit

_BALANCER_STOP = 30.0
"""Seconds: it says good-bye to the provider, then gives slow workers time to read their FIFOs."""

_WORKER_STOP = 20.0
"""Seconds: a worker handles what is left in its FIFO, then its handler closes."""

_EXPORTER_STOP = 5.0


def units(shards: int, file: Path) -> list[Unit]:
    """Return the balancer, a worker for each shard, and the exporter, all with the configuration in `file`.

    The balancer stops first, so that the workers can read their FIFOs to the end; the exporter last, so that the final
    figures can be fetched. Only the balancer gets the feed's key, and none imports what lies in the current directory
    (-P): a file named orjson.py there would run beside the key. A worker puts that directory last on its path, for
    its handler. (-I would also leave out PYTHONPATH and the user's own packages, where tradebal may be installed.)
    """

    def unit(name: str, stage: int, stop_timeout: float, *arguments: str) -> Unit:
        command = (sys.executable, "-P", "-m", "tradebal", *arguments, "--config", str(file))
        env = {} if arguments[0] == "balancer" else {"TRADEBAL_FEED_KEY": None, "CREDENTIALS_DIRECTORY": None}
        # So a balancer that is killed or restarted loses nothing of what waits for workers.
        return Unit(name, command, stage, stop_timeout, env, keeps_descriptors=arguments[0] == "balancer")

    return [
        unit("balancer", 0, _BALANCER_STOP, "balancer"),
        *(unit(f"worker-{number}", 1, _WORKER_STOP, "worker", str(number)) for number in range(shards)),
        unit("exporter", 2, _EXPORTER_STOP, "exporter"),
    ]


@contextlib.contextmanager
def written(config: Config) -> Iterator[Path]:
    """Keep the effective configuration in a file that only this user can read, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="tradebal-run-") as directory:
        file = Path(directory) / "tradebal.toml"
        source = config.source or "the defaults"
        file.write_text(f"# effective configuration of a `tradebal run`, from {source}\n{dump(config)}")
        yield file
