"""A wait in poll ends at once when a signal or another thread asks for it."""

import os
import select
import signal

import pytest

from tradebal.wakeup import Wakeup


@pytest.fixture
def wakeup():
    it = Wakeup()
    yield it
    it.close()


def readable(wakeup):
    return bool(select.select([wakeup], [], [], 0)[0])


def test_it_is_readable_from_wake_until_it_is_taken(wakeup):
    assert not readable(wakeup)
    wakeup.wake()
    wakeup.wake()
    assert readable(wakeup)
    assert wakeup.take() == b"\0\0"
    assert not readable(wakeup)
    assert wakeup.take() == b""


def test_a_signal_wakes_by_its_number_and_its_handler_is_put_back_afterwards(wakeup):
    seen = []
    before = signal.getsignal(signal.SIGUSR1)
    with wakeup.signals({signal.SIGUSR1: lambda number, _: seen.append(number)}):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert wakeup.take() == bytes([signal.SIGUSR1])
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_wakes_that_nobody_takes_never_wait(wakeup):
    for _ in range(100_000):  # more than a pipe holds
        wakeup.wake()
    assert readable(wakeup)


def test_waking_what_is_closed_does_nothing(wakeup):
    wakeup.close()
    wakeup.wake()
    assert wakeup.fileno() == -1
