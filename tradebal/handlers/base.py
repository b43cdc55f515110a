"""What a handler is, and what it is given to work with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from tradebal.stream.batch import Batch
from tradebal.stream.framing import Framing
from tradebal.stream.gap import Gap


def _nobody_asks() -> bool:
    return False


@dataclass(frozen=True)
class Context:
    """Where a handler runs. One that is tested without a worker can do with `Context(shard=0, shards=1)`."""

    shard: int
    """Number of the worker's shard, from 0."""
    shards: int
    """How many shards there are."""
    framing: Framing = "ndjson"
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """For a handler's own metrics; they are published with the worker's, and get its `shard` label."""
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("tradebal.handler"))
    keep_alive: Callable[[], bool] = _nobody_asks
    """To be called at least once a second by a handler that waits, so that worker and watchdog know that it lives.
    Returns whether the worker was asked to stop: then come back soon."""


class Handler:
    """Gets one shard's trades, in order. Derive from it, and override what you need.

    Options in the configuration's `[worker.options]` arrive as keyword arguments: give `__init__` a parameter for
    each. A ValueError that it raises is shown as an error of the configuration. The worker calls from one thread;
    an exception in any other method is logged and counted, and the worker goes on behind what it had handed over
    (or stops in front of it: `on_error = "stop"`).

    Delivery is at least once: a batch stays in the FIFO until `on_trades` has returned. A worker that is killed before
    that gets the same trades again when it is back, perhaps with more behind them in the same batch. Whoever stores
    results makes exactly once of it with `committed`.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    def on_trades(self, batch: Batch) -> None:
        """Take the trades of one read, as soon as they were read. Until it returns, nothing else is read."""

    def on_gap(self, gap: Gap) -> None:
        """Learn that trades are missing between the batch before and the batch that follows."""

    def committed(self) -> bytes | None:
        """Return the `Batch.receipt` that was stored last, in one transaction with its batch's results; None: none was.

        Asked once, before the first batch: if the FIFO begins with that very batch, the worker before this one was
        killed between the handler's commit and its own, and the batch isn't handed over again.
        """
        return None

    def on_tick(self, now: float) -> None:
        """Do what time asks for. Called about once a second, also under load; `now` is time.time()."""

    def close(self) -> None:
        """Finish: the worker stops, and everything that it had read was handed over."""
