"""One receive step for each kind of TLS, so that the loop doesn't need to know who decrypts."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable
from typing import NamedTuple

from tradebal.router.interface import Router, Status
from tradebal.upstream.connection import Connection

Pump = Callable[[int], Status]
"""Runs the router on a descriptor (-1: on what is buffered) until nothing is left for Python to decide."""


class Step(NamedTuple):
    """What a receive step came to."""

    drained: bool = False
    """Nothing more is there now."""
    ended: bool = False
    """The stream is at its end, or broken."""
    error: OSError | None = None
    """What broke it."""


class Intake:
    """Receives from a connection whose descriptor gives plaintext: the router reads it directly."""

    def __init__(self, router: Router, connection: Connection, pump: Pump) -> None:
        self.connection = connection
        self._router = router
        self._pump = pump

    def receive(self) -> Step:
        """Give the router what the connection has, and run it."""
        status = self._pump(self.connection.fileno())
        return self._step(status, drained=status is Status.INPUT)

    def wait(self, wake: int, until_ns: int) -> bool:  # noqa: ARG002
        """After a drained step, wait until `until_ns` (CLOCK_MONOTONIC) or for `wake`; whether the connection has more.

        The router waits itself where it reads from the descriptor.
        """
        return False

    def _step(self, status: Status, *, drained: bool = False) -> Step:
        error = OSError(self._router.errno, os.strerror(self._router.errno)) if status is Status.ERROR else None
        return Step(drained, status in (Status.CLOSED, Status.ERROR), error)

    def _fill(self) -> Step:
        """Read through the connection into the router's buffer until one of them has nothing to give or no room."""
        try:
            while space := self._router.space():
                count = self.connection.receive_into(space)
                self._router.received(count)
                if not count:
                    return Step(ended=True)
        except BlockingIOError:
            return Step(drained=True)
        except OSError as failure:
            return Step(ended=True, error=failure)
        return Step()


class KernelIntake(Intake):
    """Receives from a connection that the kernel decrypts: the router reads it, but for records that hold no data."""

    _aside = False

    def receive(self) -> Step:
        """Give the router what the connection has, and run it.

        recv fails at a record that holds no data, and poll may not report one that changes the key: so each drained
        step is followed by one through the connection, which takes such records.
        """
        if self._aside:
            self._aside = False
            step = self._fill()
            self._pump(-1)
            return step
        status = self._pump(self.connection.fileno())
        self._aside = status is Status.INPUT or (status is Status.ERROR and self._router.errno == errno.EIO)
        if self._aside:
            return Step()
        return self._step(status)


class UserIntake(Intake):
    """Receives from a connection that OpenSSL decrypts in this process: it fills the router's buffer."""

    def receive(self) -> Step:
        """Give the router what the connection has, and run it."""
        step = self._fill()
        self._pump(-1)
        return step

    def wait(self, wake: int, until_ns: int) -> bool:
        """Wait as the router does on a descriptor."""
        poller = select.poll()
        for fd in (self.connection.fileno(), wake):
            poller.register(fd, select.POLLIN)
        left = max(0, until_ns - time.monotonic_ns())
        return [fd for fd, _ in poller.poll(left / 1e6)] == [self.connection.fileno()]


_KINDS = {"none": Intake, "kernel": KernelIntake, "user": UserIntake}


def make_intake(router: Router, connection: Connection, pump: Pump) -> Intake:
    """Return what receives from this connection."""
    return _KINDS[connection.tls](router, connection, pump)
