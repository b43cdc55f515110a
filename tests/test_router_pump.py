"""pump moves bytes from a real socket to real FIFOs, and a FIFO that takes nothing stops no other."""

import contextlib
import fcntl
import os
import select
import socket
import threading

import pytest

from tests.frames import PING, close, frame, text
from tests.routing import STOCKS, drive
from tests.waiting import until
from tradebal.router.interface import Event, EventKind, Status
from tradebal.stream.framing import records

SECOND = 10**9
SMALL_PIPE = 4096


@pytest.fixture
def connection():
    """A connected pair: the provider's end, and ours, which doesn't block."""
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    with theirs, ours:
        yield theirs, ours


class Fifo:
    """A FIFO as the balancer makes it, and its reader."""

    def __init__(self, path, size):
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.size = fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, size)
        self.got = b""

    def read(self):
        """Read all there is; return how much that was."""
        before = len(self.got)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.got += os.read(self.fd, 1 << 20)
        return len(self.got) - before


@pytest.fixture
def fifo(tmp_path):
    """Makes FIFOs of a given size."""
    with contextlib.ExitStack() as stack:
        made = []

        def make_fifo(size=1 << 20):
            made.append(Fifo(tmp_path / f"shard-{len(made)}.fifo", size))
            stack.callback(os.close, made[-1].fd)
            return made[-1]

        yield make_fifo


def numbered(count, symbols, padding=0, begin=0):
    """Return `count` trades that go round `symbols`."""
    return [
        b'{"ev":"T","sym":"%s","q":%d,"x":"%s"}' % (symbols[number % len(symbols)], number, b"x" * padding)
        for number in range(begin, begin + count)
    ]


def messages(objects, per_frame=100):
    return b"".join(
        text(b"[" + b",".join(objects[at : at + per_frame]) + b"]") for at in range(0, len(objects), per_frame)
    )


def symbol_of_shard(make, shards, shard):
    """Return a symbol that goes to the shard."""
    for symbol in (b"AAPL", b"SPY", b"TSLA", b"NVDA", b"BTC/USD"):
        outcome = drive(make(shards, STOCKS), [text(b'{"ev":"T","sym":"%s"}' % symbol)])
        if outcome.shards[shard]:
            return symbol
    raise AssertionError(f"no symbol for shard {shard}")


def send_and_pump(router, theirs, ours, data, on_status=None):
    """Send all of `data` and pump until the router has taken it in."""
    theirs.setblocking(False)
    rest = memoryview(data)
    while True:
        with contextlib.suppress(BlockingIOError):
            while rest:
                rest = rest[theirs.send(rest) :]
        status = router.pump(ours.fileno(), SECOND)
        if on_status:
            on_status(status)
        elif status is Status.BUDGET:
            router.batches()
        else:
            assert status is Status.INPUT, status
        if not rest and status is Status.INPUT:
            return


@pytest.mark.parametrize("framing", ["ndjson", "length32"])
def test_trades_go_from_the_socket_to_their_fifos(make, connection, fifo, framing):
    router = make(4, STOCKS, framing=framing)
    fifos = [fifo() for _ in range(4)]
    for shard, one in enumerate(fifos):
        router.set_output(shard, one.fd)
    objects = numbered(20_000, [b"A", b"B", b"C", b"D", b"E", b"F"])

    def drain(status):
        assert status is Status.INPUT or (status is Status.BUDGET and router.batches() is not None)
        for one in fifos:
            one.read()

    stream = messages(objects)
    send_and_pump(router, *connection, stream, drain)
    expected = drive(make(4, STOCKS, framing=framing), [stream])
    assert [one.got for one in fifos] == expected.shards
    assert router.stalled() == []
    counters = router.counters()
    assert counters.written == sum(len(one.got) for one in fifos)
    assert counters.bytes == len(stream)
    assert counters.writes > 0
    assert counters.reads > 0
    assert counters.trades == len(objects)


def test_input_means_that_everything_staged_is_written(make, connection, fifo):
    router = make(1, STOCKS)
    out = fifo()
    router.set_output(0, out.fd)
    trade = b'{"ev":"T","sym":"A"}'
    theirs, ours = connection
    for count in range(1, 4):
        theirs.sendall(text(trade))
        assert router.pump(ours.fileno(), SECOND) is Status.INPUT
        out.read()
        assert out.got == (trade + b"\n") * count
        assert not router.pending(0)


def test_a_trade_before_an_event_is_written_when_pump_comes_back_with_it(make, connection, fifo):
    router = make(1, STOCKS)
    out = fifo()
    router.set_output(0, out.fd)
    theirs, ours = connection
    trade = b'{"ev":"T","sym":"A"}'
    theirs.sendall(text(trade) + frame(PING, b"hello") + text(trade))
    assert router.pump(ours.fileno(), SECOND) is Status.EVENT
    assert router.event() == Event(EventKind.PING, b"hello")
    out.read()
    assert out.got == trade + b"\n"
    assert router.pump(ours.fileno(), SECOND) is Status.INPUT
    out.read()
    assert out.got == (trade + b"\n") * 2


def test_a_closed_connection_is_told_after_all_that_came_before(make, connection, fifo):
    router = make(1, STOCKS)
    out = fifo()
    router.set_output(0, out.fd)
    theirs, ours = connection
    theirs.sendall(text(b'{"ev":"T","sym":"A"}') + frame(PING, b"half")[:3])
    theirs.shutdown(socket.SHUT_WR)
    assert router.pump(ours.fileno(), SECOND) is Status.CLOSED
    out.read()
    assert out.got == b'{"ev":"T","sym":"A"}\n'
    assert router.pump(ours.fileno(), SECOND) is Status.CLOSED


def test_a_failed_receive_gives_its_errno(make):
    router = make(1, STOCKS)
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with client:
            client.setblocking(False)
            client.send(b"unread, so that closing resets the connection")
            until(lambda: theirs.recv(1, socket.MSG_PEEK), "the bytes that stay unread")
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            theirs.close()
            status = until(
                lambda: status if (status := router.pump(client.fileno(), SECOND)) is not Status.INPUT else None,
                "the reset",
            )
    assert status is Status.ERROR
    assert os.strerror(router.errno) == "Connection reset by peer"


def test_without_a_socket_pump_uses_what_is_buffered(make, fifo):
    router = make(1, STOCKS)
    out = fifo()
    router.set_output(0, out.fd)
    data = text(b'{"ev":"T","sym":"A"}')
    router.space()[: len(data)] = data
    router.received(len(data))
    assert router.pump(-1, 0) is Status.INPUT
    out.read()
    assert out.got == b'{"ev":"T","sym":"A"}\n'


def test_nothing_is_received_after_a_close_frame(make, connection):
    router = make(1, STOCKS)
    theirs, ours = connection
    theirs.sendall(close(1000))
    assert router.pump(ours.fileno(), SECOND) is Status.EVENT
    assert router.event().kind is EventKind.CLOSE
    theirs.sendall(b"more")
    assert router.pump(ours.fileno(), SECOND) is Status.INPUT
    assert router.counters().bytes == len(close(1000))
    assert ours.recv(100) == b"more"


def test_pump_comes_back_when_its_time_is_used_up_though_more_keeps_coming(make, connection, fifo):
    router = make(1, STOCKS)
    out = fifo()
    router.set_output(0, out.fd)
    theirs, ours = connection
    stream = messages(numbered(1000, [b"A"]))
    ended = threading.Event()

    def keep_sending():
        theirs.settimeout(60)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not ended.is_set():
                theirs.sendall(stream)

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        select.select([ours], [], [], 30)
        for _ in range(100):
            assert router.pump(ours.fileno(), 0) in (Status.INPUT, Status.BUDGET)
            router.batches()
            out.read()
            if router.stalled():
                router.set_output(0, out.fd)
    finally:
        ended.set()
        ours.shutdown(socket.SHUT_RDWR)
        sender.join()
    assert router.counters().trades > 0


def test_each_call_with_no_time_still_receives_and_routes(make, connection, fifo):
    router = make(1, STOCKS)
    out = fifo()
    router.set_output(0, out.fd)
    theirs, ours = connection
    theirs.sendall(text(b'{"ev":"T","sym":"A"}'))
    assert router.pump(ours.fileno(), 0) in (Status.INPUT, Status.BUDGET)
    out.read()
    assert out.got == b'{"ev":"T","sym":"A"}\n'


def test_a_shard_without_an_output_waits_in_pending(make, connection):
    router = make(1, STOCKS)
    theirs, ours = connection
    theirs.sendall(text(b'{"ev":"T","sym":"A"}'))
    assert router.pump(ours.fileno(), SECOND) is Status.INPUT
    assert bytes(router.pending(0)) == b'{"ev":"T","sym":"A"}\n'
    assert router.stalled() == []
    assert (router.counters().writes, router.counters().written) == (0, 0)


@pytest.mark.parametrize("framing", ["ndjson", "length32"])
def test_a_full_fifo_stalls_its_shard_only_and_set_output_resumes_it(make, connection, fifo, framing):
    router = make(2, STOCKS, framing=framing)
    slow, fast = fifo(SMALL_PIPE), fifo()
    router.set_output(0, slow.fd)
    router.set_output(1, fast.fd)
    symbols = [symbol_of_shard(make, 2, shard) for shard in range(2)]
    stream = messages(numbered(2000, symbols))
    expected = drive(make(2, STOCKS, framing=framing), [stream]).shards
    send_and_pump(router, *connection, stream)
    fast.read()
    assert fast.got == expected[1]
    assert router.stalled() == [0]
    assert router.stalled() == []
    router.flush()
    assert router.stalled() == []  # it isn't tried again
    while router.pending(0):
        assert slow.read()
        assert slow.got + bytes(router.pending(0)) == expected[0]
        whole = len(slow.got) + router.torn(0)
        assert len(list(records(expected[0][:whole], framing))) > 0
        assert expected[0][:whole] + expected[0][whole:] == expected[0]
        router.set_output(0, slow.fd)
        router.flush()
    slow.read()
    assert slow.got == expected[0]
    assert router.counters().written == sum(map(len, expected))


@pytest.mark.parametrize("framing", ["ndjson", "length32"])
def test_a_short_write_stalls_and_tells_how_much_of_a_record_is_torn(make, fifo, framing):
    router = make(1, STOCKS, framing=framing)
    out = fifo(SMALL_PIPE)
    router.set_output(0, out.fd)
    objects = numbered(100, [b"A"], padding=100)
    data = messages(objects)
    router.space()[: len(data)] = data
    router.received(len(data))
    assert router.pump(-1, SECOND) is Status.INPUT
    assert router.stalled() == [0]
    assert router.counters().writes == 1
    assert router.counters().written == out.size
    out.read()
    assert len(out.got) == out.size
    rest = bytes(router.pending(0))
    torn = router.torn(0)
    assert 0 < torn < 200
    assert list(records(out.got + rest[:torn], framing)) + list(records(rest[torn:], framing)) == objects


def test_a_stalled_shard_that_is_full_blocks_and_goes_on_when_its_bytes_are_taken(make, connection, fifo):
    router = make(2, STOCKS)
    slow, fast = fifo(SMALL_PIPE), fifo()
    router.set_output(0, slow.fd)
    router.set_output(1, fast.fd)
    symbols = [symbol_of_shard(make, 2, shard) for shard in range(2)]
    stream = messages(numbered(6000, symbols, padding=1000))
    expected = drive(make(2, STOCKS), [stream]).shards
    taken = []

    def on_status(status):
        if status is Status.BLOCKED:
            assert router.blocked == 0
            assert router.stalled() in ([], [0])
            pending = bytes(router.pending(0))
            router.sent(0, len(pending))
            taken.append(pending)
        else:
            assert status is Status.INPUT
        fast.read()
        if router.stalled() == [1]:
            router.set_output(1, fast.fd)

    send_and_pump(router, *connection, stream, on_status)
    router.set_output(1, fast.fd)
    router.flush()
    fast.read()
    slow.read()
    assert fast.got == expected[1]
    assert len(taken) > 1
    assert slow.got + b"".join(taken) + bytes(router.pending(0)) == expected[0]
    assert router.counters().written == len(slow.got) + len(fast.got)


def test_an_output_may_be_taken_away_and_given_back(make, fifo):
    router = make(1, STOCKS)
    out = fifo()
    router.set_output(0, out.fd)
    assert router.inject(0, b"1")
    router.set_output(0, -1)
    router.flush()
    assert bytes(router.pending(0)) == b"1\n"
    assert router.inject(0, b"2")
    router.set_output(0, out.fd)
    assert not out.read()  # set_output itself writes nothing
    router.flush()
    out.read()
    assert out.got == b"1\n2\n"
    assert not router.pending(0)


def test_what_was_staged_first_is_written_first_after_a_reset(make, connection, fifo):
    router = make(1, STOCKS)
    theirs, ours = connection
    theirs.sendall(text(b'{"ev":"T","sym":"A","q":1}'))
    router.pump(ours.fileno(), SECOND)
    router.reset()
    assert router.inject(0, b'{"gap":1}')
    theirs.sendall(text(b'{"ev":"T","sym":"A","q":2}'))
    out = fifo()
    router.set_output(0, out.fd)
    router.pump(ours.fileno(), SECOND)
    out.read()
    assert out.got == b'{"ev":"T","sym":"A","q":1}\n{"gap":1}\n{"ev":"T","sym":"A","q":2}\n'


def test_an_output_that_fails_stalls_and_keeps_its_bytes(make):
    router = make(1, STOCKS)
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    os.close(read_end)
    try:
        router.set_output(0, write_end)
        assert router.inject(0, b"x")
        router.flush()
        assert router.stalled() == [0]
        assert bytes(router.pending(0)) == b"x\n"
    finally:
        os.close(write_end)


@pytest.fixture
def waiting_pump(make, connection, fifo):
    """A pump that waits for more, in a thread: the provider's end, the FIFO, what ends it, and how it ended."""
    theirs, ours = connection
    out = fifo()
    router = make(1, STOCKS)
    router.set_output(0, out.fd)
    wake, waker = os.pipe()
    statuses = []
    theirs.sendall(text(b'{"ev":"T","sym":"A","q":1}'))
    thread = threading.Thread(target=lambda: statuses.append(router.pump(ours.fileno(), 60 * SECOND, wake)))
    thread.start()

    def ended():
        thread.join(30)
        return statuses

    try:
        assert select.select([out.fd], [], [], 30)[0]
        yield theirs, out, waker, ended
    finally:
        os.write(waker, b"!")
        thread.join()
        os.close(wake)
        os.close(waker)


def test_a_pump_that_may_wait_writes_what_came_and_goes_on_with_what_comes(waiting_pump):
    theirs, out, waker, ended = waiting_pump
    for number in range(2, 50):
        theirs.sendall(text(b'{"ev":"T","sym":"A","q":%d}' % number))
        until(lambda number=number: out.read() and b'"q":%d}' % number in out.got, f"trade {number}")
    os.write(waker, b"!")
    assert ended() == [Status.INPUT]


def test_a_waiting_pump_ends_at_an_event(waiting_pump):
    theirs, _, _, ended = waiting_pump
    theirs.sendall(frame(PING, b"?"))
    assert ended() == [Status.EVENT]


def test_a_waiting_pump_ends_when_the_peer_does(waiting_pump):
    theirs, _, _, ended = waiting_pump
    theirs.shutdown(socket.SHUT_RDWR)
    assert ended() == [Status.CLOSED]


def test_a_waiting_pump_ends_when_an_output_stalls(waiting_pump):
    theirs, out, _, ended = waiting_pump
    padding = b"x" * 10_000
    stream = text(b"[" + b",".join([b'{"ev":"T","sym":"A","x":"%s"}' % padding] * (out.size // 10_000 + 5)) + b"]")
    theirs.sendall(stream)
    assert ended() == [Status.INPUT]


def test_a_waiting_pump_ends_when_its_time_is_used_up(make, connection):
    theirs, ours = connection
    wake, waker = os.pipe()
    router = make(1, STOCKS)
    theirs.sendall(text(b'{"ev":"T","sym":"A","q":1}'))
    assert router.pump(ours.fileno(), SECOND // 100, wake) in (Status.INPUT, Status.BUDGET)
    assert router.counters().trades == 1
    os.close(wake)
    os.close(waker)
