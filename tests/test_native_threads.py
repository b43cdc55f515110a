"""The C core lets other threads run while it works, and refuses a second caller meanwhile."""

import os
import select
import socket
import threading

import pytest

from tests.frames import text
from tests.routing import STOCKS
from tradebal.router.interface import Status

native = pytest.importorskip("tradebal.router.native", reason="the C core isn't built")


@pytest.fixture
def blocked_pump():
    """A router whose pump waits, in a thread, for a full pipe that blocks; its read end; how the thread ends."""
    theirs, ours = socket.socketpair()
    read_end, write_end = os.pipe()
    router = native.Router(1, STOCKS)
    router.set_output(0, write_end)
    record = b'{"ev":"T","sym":"A","padding":"' + b"x" * (1 << 17) + b'"}'
    theirs.sendall(text(record)[: 1 << 16])
    statuses = []

    def run():
        while (status := router.pump(ours.fileno(), 10**9)) is Status.INPUT:
            select.select([ours], [], [], 30)
        statuses.append(status)

    thread = threading.Thread(target=run)
    with theirs, ours:
        thread.start()
        theirs.sendall(text(record)[1 << 16 :])
        assert select.select([read_end], [], [], 30)[0]
        yield router, read_end, record
        theirs.close()
        thread.join()
    os.close(read_end)
    os.close(write_end)
    assert statuses == [Status.CLOSED]


def read_exactly(fd, size):
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


def test_other_threads_run_while_pump_waits_for_the_kernel(blocked_pump):
    _, read_end, record = blocked_pump
    assert read_exactly(read_end, len(record) + 1) == record + b"\n"


@pytest.mark.parametrize(
    "call",
    [
        lambda router: router.process(),
        lambda router: router.pump(-1, 0),
        lambda router: router.space(),
        lambda router: router.received(0),
        lambda router: router.event(),
        lambda router: router.flush(),
        lambda router: router.pending(0),
        lambda router: router.sent(0, 0),
        lambda router: router.torn(0),
        lambda router: router.inject(0, b"{}"),
        lambda router: router.set_output(0, -1),
        lambda router: router.stalled(),
        lambda router: router.reset(),
        lambda router: router.counters(),
        lambda router: router.shard_counters(),
        lambda router: router.batches(),
    ],
)
def test_a_call_into_a_router_that_is_at_work_is_refused(blocked_pump, call):
    router, read_end, record = blocked_pump
    with pytest.raises(RuntimeError, match="at work in another thread"):
        call(router)
    assert read_exactly(read_end, len(record) + 1) == record + b"\n"
