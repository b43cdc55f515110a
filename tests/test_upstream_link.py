"""A live connection: pings, silence, every way in which it ends, and what the next try makes of it."""

import json
import logging
import random
import socket
import threading

import pytest

from tests import frames
from tests.upstream import (
    KEY,
    Authority,
    Owner,
    feed,
    massive,
    massive_login,
    owner,
    provider,
    raw_server,
    read_frame,
    status,
    upgrade,
)
from tradebal.router.interface import Event, EventKind
from tradebal.upstream.link import Phase

TRADE = b'{"ev":"T","sym":"MSFT","p":1}'
RESET_ON_CLOSE = b"\1\0\0\0\0\0\0\0"


@pytest.fixture(autouse=True)
def _all_logs(caplog):
    caplog.set_level(logging.INFO, logger="tradebal.upstream")


def lost_lines(caplog):
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("disconnected: ")]


def lost_line(caplog):
    (line,) = lost_lines(caplog)
    return line


def raw_massive(client):
    """Log a client in over a bare socket."""
    upgrade(client)
    client.sendall(frames.text(status("connected", "Connected Successfully").encode()))
    assert json.loads(read_frame(client)[1])["action"] == "auth"
    client.sendall(frames.text(status("auth_success", "authenticated").encode()))
    assert json.loads(read_frame(client)[1])["action"] == "subscribe"
    client.sendall(frames.text(status("success", "subscribed to: T.*").encode()))


def after_login(action):
    """Return a script for a raw server: log in, then `action(client)`."""

    def script(client):
        raw_massive(client)
        action(client)

    return script


def stay(client):
    """Answer pings and close frames until the client leaves."""
    while True:
        opcode, payload = read_frame(client)
        if opcode == frames.PING:
            client.sendall(frames.frame(frames.PONG, payload))
        elif opcode == frames.CLOSE:
            client.sendall(frames.frame(frames.CLOSE, payload))
            return


# --- pings


def test_pings_in_a_burst_are_answered_each_with_its_payload():
    answers = []

    def burst(client):
        many = frames.text(b"[" + b",".join([TRADE] * 500) + b"]")
        for number in range(20):
            client.sendall(many + frames.frame(frames.PING, b"ping %d" % number) + many)
        answers.extend(read_frame(client) for _ in range(20))
        stay(client)

    with raw_server(after_login(burst)) as url, owner(url) as it:
        it.run_until(lambda: len(answers) == 20, "all pongs")
        assert answers == [(frames.PONG, b"ping %d" % number) for number in range(20)]
        assert len(it.trades()) == 20 * 1000


def test_ping_inside_a_fragmented_message_is_answered_before_the_message_ends():
    answers = []

    def fragmented(client):
        start, *_, end = frames.fragments(b"[" + TRADE + b"]", [10])
        client.sendall(start + frames.frame(frames.PING, b"x" * 125))
        answers.append(read_frame(client))
        client.sendall(end)
        stay(client)

    with raw_server(after_login(fragmented)) as url, owner(url) as it:
        it.run_until(it.trades, "the trade")
        assert answers == [(frames.PONG, b"x" * 125)]


def test_silence_is_answered_by_a_ping_and_a_pong_keeps_the_connection():
    with raw_server(after_login(stay)) as url, owner(url, ping_interval=60.0, ping_timeout=60.0) as it:
        it.run_until_phase(Phase.LIVE)
        for count in range(1, 4):
            it.advance(60)
            it.run_until(lambda count=count: kinds(it).count(EventKind.PONG) == count, "a pong")
        assert it.link.connected
        assert it.link.round_trips.count == 3
        assert it.link.next_deadline() - it.now() > 50


def kinds(it):
    return [event.kind for event in it.events]


def test_any_received_data_counts_as_life_when_pongs_go_missing():
    def no_pongs(client):
        while True:
            assert read_frame(client)[0] == frames.PING
            client.sendall(frames.text(b"[" + TRADE + b"]"))

    with raw_server(after_login(no_pongs)) as url, owner(url, ping_interval=60.0, ping_timeout=60.0) as it:
        it.run_until_phase(Phase.LIVE)
        for count in range(1, 4):
            it.advance(60)
            it.run_until(lambda count=count: len(it.trades()) == count, "a trade")
        assert it.link.connected


def test_half_open_connection_is_given_up_after_a_ping_without_answer(caplog):
    def mute(client):
        while client.recv(4096):
            pass

    with raw_server(after_login(mute)) as url, owner(url, ping_interval=60.0, ping_timeout=60.0) as it:
        it.run_until_phase(Phase.LIVE)
        it.advance(119)
        it.turn()
        assert it.link.connected, "a ping must have been out for the whole timeout"
        it.advance(61)
        it.run_until_lost("silent")
        assert "nothing came for 18" in lost_line(caplog)


def test_reading_that_is_paused_on_purpose_is_not_taken_for_silence():
    with raw_server(after_login(stay)) as url, owner(url, ping_interval=60.0, ping_timeout=60.0) as it:
        it.run_until_phase(Phase.LIVE)
        it.reading = False
        for _ in range(5):
            it.advance(50)
            it.link.on_data(it.now(), 0)
            it.turn()
        assert it.link.connected


# --- ends


@pytest.mark.parametrize(
    ("code", "reason", "shown"),
    [
        (1000, b"", 'code=1000 (normal closure) said=""'),
        (1001, b"deploy", 'code=1001 (going away) said="deploy"'),
        (1011, b"oops\nline", 'code=1011 (internal error) said="oops\N{REPLACEMENT CHARACTER}line"'),
        (4999, b"own", 'code=4999 (a code of the provider\'s own) said="own"'),
    ],
)
def test_close_frame_is_answered_logged_and_followed_by_a_reconnect(caplog, code, reason, shown):
    answers = []

    def closing(client):
        client.sendall(frames.text(b"[" + TRADE + b"]") + frames.close(code, reason))
        answers.append(read_frame(client))

    with raw_server(after_login(closing), after_login(stay)) as url, owner(url) as it:
        it.run_until_lost("closed")
        assert shown in lost_line(caplog)
        assert answers == [(frames.CLOSE, code.to_bytes(2, "big"))]
        assert it.trades() == [TRADE]
        it.run_until_phase(Phase.LIVE)
        assert it.link.connects == 2
        assert it.happened == ["opened", "live", "closed", "opened", "outage", "live"]


def test_close_frame_without_code_is_answered_without_code():
    answers = []

    def closing(client):
        client.sendall(frames.frame(frames.CLOSE))
        answers.append(read_frame(client))

    with raw_server(after_login(closing)) as url, owner(url) as it:
        it.run_until_lost("closed")
        assert answers == [(frames.CLOSE, b"")]


def test_peer_that_never_ends_the_connection_after_its_close_frame_is_left_after_a_second(caplog):
    left = threading.Event()

    def clinging(client):
        client.sendall(frames.close(1001))
        while client.recv(4096):
            pass
        left.set()

    with raw_server(after_login(clinging)) as url, owner(url) as it:
        it.run_until_phase(Phase.CLOSING)
        assert it.link.connection is not None
        it.advance(1)
        it.run_until_lost("closed")
        assert left.wait(20)


def test_end_without_a_close_frame_is_named(caplog):
    with raw_server(after_login(lambda client: None)) as url, owner(url) as it:
        it.run_until_lost("eof")
        assert "ended the connection without a close frame" in lost_line(caplog)


def test_reset_in_the_middle_of_a_frame_is_named_and_keeps_what_came_before(caplog):
    def reset(client):
        client.sendall(frames.text(b"[" + TRADE + b"]") + frames.text(b"[" + TRADE * 2)[:20])
        assert client.recv(5) == b"ready"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    with raw_server(after_login(reset)) as url, owner(url) as it:
        it.run_until(it.trades, "the whole trade")
        it.link.connection.sock.send(b"ready")
        it.run_until_lost("reset")
        assert "the connection was reset" in lost_line(caplog)
        assert it.trades() == [TRADE]


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 1002),
        (frames.frame(frames.TEXT, b"x", reserved=4), 1002),
        (frames.frame(frames.TEXT, b"x", mask=b"abcd"), 1002),
        (frames.text(b"\xff\xfe"), 1007),
        (frames.frame(frames.TEXT, b"", length_size=8, length=1 << 40), 1009),
    ],
)
def test_garbage_is_answered_by_a_close_frame_that_says_why(caplog, garbage, code):
    answers = []

    def spoil(client):
        client.sendall(frames.text(b"[" + TRADE + b"]") + garbage)
        answers.append(read_frame(client))

    with raw_server(after_login(spoil)) as url, owner(url) as it:
        it.run_until_lost("violation")
        assert f"broke the websocket protocol: code={code}" in lost_line(caplog)
        opcode, payload = answers[0]
        assert (opcode, int.from_bytes(payload[:2], "big")) == (frames.CLOSE, code)
        assert it.trades() == [TRADE]


def test_tls_connection_that_is_cut_is_a_loss_like_any_other(tmp_path):
    authority = Authority(tmp_path)
    server = authority.server("127.0.0.1")
    with (
        raw_server(after_login(lambda client: None), after_login(stay), tls=server) as url,
        owner(url, ca_file=authority.file) as it,
    ):
        it.run_until_lost("eof")
        it.run_until_phase(Phase.LIVE)


@pytest.mark.parametrize("tls", [False, True])
def test_answers_wait_without_blocking_while_the_peer_does_not_read(tls, tmp_path):
    authority = Authority(tmp_path)
    read_now = threading.Event()
    pongs = []

    def deaf(client):
        ping = frames.frame(frames.PING, b"p" * 125)
        for _ in range(40):
            client.sendall(ping * 1000)
        assert read_now.wait(60)
        while len(pongs) < 1000:
            pongs.append(read_frame(client))
        client.sendall(frames.text(b"[" + TRADE + b"]"))
        stay(client)

    server = authority.server("127.0.0.1") if tls else None
    with (
        raw_server(after_login(deaf), tls=server) as url,
        owner(url, ca_file=authority.file, ping_interval=600.0) as it,
    ):
        it.run_until(lambda: kinds(it).count(EventKind.PING) == 40_000, "all pings", 60)
        assert it.link.connection.wants_write
        read_now.set()
        it.run_until(it.trades, "a trade after the jam")
        assert set(pongs) == {(frames.PONG, b"p" * 125)}


# --- outages


def test_outage_runs_from_the_last_data_before_the_loss_to_the_first_answer_after():
    def leave_when_told(client):
        assert read_frame(client) == (frames.TEXT, b"go")
        client.sendall(frames.close(1001))

    clock = [100]
    with raw_server(after_login(leave_when_told), after_login(stay)) as url:
        it = Owner(feed(url), clock_ns=lambda: clock[0]).start()
        try:
            it.run_until_phase(Phase.LIVE)
            clock[0] = 200
            it.link.connection.send_text("go")
            it.run_until_lost("closed")
            assert it.link.live_since_ns == 0
            clock[0] = 300
            it.run_until(lambda: it.link.connects == 2, "the second connection")
            assert it.outages == [(200, 300)]
            assert (it.link.gaps, it.link.gap_seconds) == (1, 1e-7)
            assert it.link.live_since_ns == 300
        finally:
            it.link.close()


def test_tries_in_between_that_never_flow_make_the_outage_longer_not_more():
    def refuse(client):
        upgrade(client)
        client.sendall(frames.close(1013))

    scripts = [after_login(lambda client: client.sendall(frames.close(1001))), refuse, refuse, after_login(stay)]
    with raw_server(*scripts) as url, owner(url) as it:
        it.run_until(lambda: it.link.connects == 2, "the second connection")
        assert it.link.disconnects["closed"] == 3
        assert len(it.outages) == 1


def test_first_connection_ends_no_outage():
    def refuse(client):
        upgrade(client)
        client.sendall(frames.close(1013))

    with raw_server(refuse, after_login(stay)) as url, owner(url) as it:
        it.run_until_phase(Phase.LIVE)
        assert it.outages == []
        assert it.link.gaps == 0


def test_trades_that_come_after_the_loss_was_reported_are_not_missing():
    def refused_late(client):
        client.sendall(frames.text(status("max_connections", "Maximum").encode()))
        assert read_frame(client)[0] == frames.CLOSE
        client.sendall(frames.text(b"[" + TRADE + b"]") + frames.close(1000))

    with raw_server(after_login(refused_late), after_login(stay)) as url, owner(url) as it:
        it.run_until_lost("connection_taken")
        assert it.trades() == [TRADE]
        assert it.outages == []
        it.run_until(lambda: it.link.connects == 2, "the second connection")
        assert len(it.outages) == 1


# --- tries


def test_each_try_says_what_happened_and_when_it_tries_next(caplog):
    def refuse(client):
        upgrade(client)
        client.sendall(frames.close(1013, b"later"))

    with raw_server(refuse) as url, owner(url) as it:
        it.run_until(lambda: it.link.disconnects["closed"] == 3, "three losses")
    for number, line in enumerate(lost_lines(caplog)[:3], 2):
        assert 'code=1013 (try again later) said="later"' in line
        assert line.endswith(f"(attempt {number})")


def test_a_minute_of_healthy_flow_resets_the_backoff_and_less_does_not(caplog):
    def goodbye(client):
        assert read_frame(client)[0] == frames.PING
        client.sendall(frames.close(1001))

    # The clock is moved while a try may already be under way.
    patient = {"ping_interval": 20.0, "ping_timeout": 600.0, "connect_timeout": 600.0, "login_timeout": 600.0}
    with raw_server(after_login(goodbye)) as url, owner(url, **patient) as it:
        for healthy, number in [(20, 2), (20, 3), (20, 4), (60, 2), (20, 3)]:
            it.run_until_phase(Phase.LIVE)
            it.advance(healthy)
            count = it.link.disconnects["closed"]
            it.run_until(lambda count=count: it.link.disconnects["closed"] > count, "a loss")
            assert lost_lines(caplog)[-1].endswith(f"(attempt {number})")
            it.run_until(lambda: it.link.connection is None, "the end of the connection")
            it.advance(30)


def test_network_is_never_given_up():
    it = Owner(feed("ws://127.0.0.1:1/", connect_timeout=600.0), rng=random.Random(1)).start()
    try:
        for count in range(1, 41):
            it.run_until(lambda count=count: it.link.disconnects["refused"] >= count, "another failure")
            assert it.link.next_deadline() - it.now() <= 30
            it.advance(30)
    finally:
        it.link.close()


# --- stopping


def test_stop_says_goodbye_and_waits_for_the_answer():
    goodbyes = []

    def polite(connection):
        massive_login(connection)
        connection.send(status("success", "subscribed to: T.*"))
        for _ in connection:
            pass
        goodbyes.append(connection.protocol.close_rcvd.code)

    with provider(polite) as url, owner(url) as it:
        it.run_until_phase(Phase.LIVE)
        it.stop()
        assert it.link.connection is None
        assert it.link.fds() == []
        assert it.happened[-1] == "closed"
        assert it.losses() == {}
    assert goodbyes == [1000]


def test_stop_during_a_try_or_between_tries_stops_at_once():
    with raw_server(lambda client: client.recv(65536) and client.recv(1)) as url, owner(url) as it:
        it.link.stop(it.now())
        assert it.link.phase is Phase.STOPPED
    with owner("ws://127.0.0.1:1/") as it:
        it.run_until(lambda: it.link.disconnects["refused"], "a failure")
        it.link.stop(it.now())
        assert it.link.phase is Phase.STOPPED
        assert it.link.fds() == []


def test_stop_does_not_wait_for_a_peer_that_does_not_answer():
    def mute(client):
        while client.recv(4096):
            pass

    with raw_server(after_login(mute)) as url, owner(url) as it:
        it.run_until_phase(Phase.LIVE)
        it.link.stop(it.now())
        it.advance(1)
        it.run_until_phase(Phase.STOPPED)


def test_events_after_the_end_change_nothing():
    with provider(massive) as url, owner(url) as it:
        it.run_until_phase(Phase.LIVE)
        it.stop()
        for kind in EventKind:
            it.link.on_event(Event(kind, b"x", 1000), it.now())
        it.link.on_closed(it.now())
        it.link.tick(it.now() + 1000)
        assert it.link.phase is Phase.STOPPED


def test_link_shows_its_key_to_nobody():
    with owner("ws://127.0.0.1:1/") as it:
        assert KEY not in repr(vars(it.link)) + repr(it.link)
        assert it.link.redact(f"a {KEY} b") == "a *** b"
