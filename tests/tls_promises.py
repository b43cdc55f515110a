"""What holds whoever decrypts: tests that test_tls_user.py runs with OpenSSL, test_ktls_connection.py with the kernel.

Each takes a fixture `mode`: the value of feed.tls.
"""

import ssl
import threading

import pytest

from tests.tls_peers import (
    ALERT,
    DATA,
    HANDSHAKE,
    client,
    forging_server,
    message,
    openssl_server,
    relay,
    stay,
    ticket,
    trade,
)
from tests.upstream import Authority, accept_upgrade, raw_server, read_request
from tradebal.upstream.link import Phase

CIPHERS_1_2 = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
CIPHERS_1_3 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def by(it):
    return it.link.tls, it.link.connection.cipher.partition("/")[2]


def many_trades(peer):
    peer.sendall(accept_upgrade(read_request(peer)) + message(0))
    for first in range(1, 3001, 100):
        peer.sendall(message(*range(first, first + 100)))
    stay(peer)


@pytest.mark.parametrize("cipher", CIPHERS_1_2)
def test_each_cipher_of_tls_1_2_carries_trades(mode, authority, cipher):
    context = authority.server("127.0.0.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with raw_server(many_trades, tls=context) as url, client(url, authority, mode) as it:
        it.run_until(lambda: len(it.trades()) == 3001, "all trades")
        assert it.trades() == [trade(number) for number in range(3001)]
        assert by(it) == (mode, cipher)


@pytest.mark.parametrize("cipher", [*CIPHERS_1_2, *CIPHERS_1_3])
def test_each_cipher_of_openssl_s_server_carries_trades(mode, authority, cipher):
    choice = ["-tls1_3", "-ciphersuites"] if cipher.startswith("TLS_") else ["-tls1_2", "-cipher"]
    with openssl_server(authority, *choice, cipher) as server, client(server.url, authority, mode) as it:
        threading.Thread(target=server.upgrade).start()
        it.run_until_phase(Phase.LIVE)
        assert by(it) == (mode, cipher)
        for number in range(1, 4):
            server.send(message(number))
            it.run_until(lambda number=number: len(it.trades()) == number, "a trade")
        it.link.connection.send_text("heard")
        server.find(rb"(\x81\x85)")


def test_many_records_are_as_good_as_one(mode, authority, tmp_path):
    def drip(forger):
        forger.upgrade()
        stream = message(*range(500))
        for at in range(0, len(stream), 7):
            forger.sendall(stream[at : at + 7])
        forger.send(DATA, b"")
        forger.send(DATA, message(500), padding=300)
        stay(forger.peer)

    with forging_server(authority, tmp_path, drip) as url, client(url, authority, mode) as it:
        it.run_until(lambda: len(it.trades()) == 501, "all trades")
        assert it.trades() == [trade(number) for number in range(501)]


def test_session_tickets_are_skipped_wherever_they_come(mode, authority, tmp_path):
    def generous(forger):
        forger.send(HANDSHAKE, ticket())
        request = read_request(forger.peer)
        forger.send(HANDSHAKE, ticket() + ticket(1000))
        forger.sendall(accept_upgrade(request))
        forger.send(HANDSHAKE, ticket())
        forger.sendall(message(1))
        forger.send(HANDSHAKE, ticket(20_000)[:9000])
        forger.send(HANDSHAKE, ticket(20_000)[9000:])
        forger.sendall(message(2))
        stay(forger.peer)

    with forging_server(authority, tmp_path, generous) as url, client(url, authority, mode) as it:
        it.run_until(lambda: len(it.trades()) == 2, "both trades")
        assert not it.losses()


def test_close_notify_is_an_orderly_end(mode, authority, tmp_path, caplog):
    def leave(forger):
        forger.upgrade()
        forger.sendall(message(1))
        forger.send(ALERT, b"\x01\x00")
        stay(forger.peer)

    with forging_server(authority, tmp_path, leave) as url, client(url, authority, mode) as it:
        it.run_until_lost("eof")
        assert it.trades() == [trade(1)]
    assert "without a close frame" in caplog.text


@pytest.mark.parametrize("kept", [0, 3, 40])
def test_stream_that_is_cut_anywhere_loses_nothing_before_the_cut(mode, authority, tmp_path, kept):
    def cut(forger):
        forger.upgrade()
        forger.sendall(message(1))
        forger.raw(forger.record(DATA, message(2))[:kept])

    with forging_server(authority, tmp_path, cut) as url, client(url, authority, mode) as it:
        it.run_until_lost("eof")
        assert it.trades() == [trade(1)]


def test_record_that_was_tampered_with_ends_the_connection_and_nothing_of_it_is_taken(
    mode, authority, tmp_path, caplog
):
    def speak(forger):
        forger.upgrade()
        forger.sendall(message(1))
        record = bytearray(forger.record(DATA, message(2)))
        record[20] ^= 1
        forger.raw(record)
        stay(forger.peer)

    with forging_server(authority, tmp_path, speak) as url, client(url, authority, mode) as it:
        it.run_until_lost("tls_record")
        assert it.trades() == [trade(1)]
    assert "a TLS record was broken" in caplog.text


@pytest.mark.parametrize(
    "header",
    [b"\x17\x03\x03\xff\xff", b"\x17\x03\x03\x00\x05", b"\x17\x09\x03\x01\x00", b"HTTP/"],
    ids=["longer than permitted", "too short for its cipher", "of no known version", "no record"],
)
def test_header_that_no_record_has_is_a_broken_record(mode, authority, tmp_path, header):
    def spoil(forger):
        forger.upgrade()
        forger.sendall(message(1))
        forger.raw(header + bytes(256))
        stay(forger.peer)

    with forging_server(authority, tmp_path, spoil) as url, client(url, authority, mode) as it:
        it.run_until(lambda: it.link.connection is None and it.losses(), "a loss")
        assert it.losses() == {"tls_record": 1}
        assert it.trades() == [trade(1)]


def test_record_that_holds_more_than_permitted_is_a_broken_record(mode, authority, tmp_path):
    def exceed(forger):
        forger.upgrade()
        forger.sendall(message(1))
        forger.sendall(message(*range(1000)))
        stay(forger.peer)

    with forging_server(authority, tmp_path, exceed) as url, client(url, authority, mode) as it:
        it.run_until(lambda: it.link.connection is None and it.losses(), "a loss")
        assert it.losses() == {"tls_record": 1}
        assert it.trades() == [trade(1)]


def test_record_that_is_missing_ends_the_connection(mode, authority):
    context = authority.server("127.0.0.1")
    context.num_tickets = 0
    seen = []

    def swallow(number, record):
        if record[0] != DATA or len(record) < 3000:
            return record
        seen.append(number)
        return b"" if len(seen) == 2 else record

    with (
        raw_server(many_trades, tls=context) as url,
        relay(url, swallow) as way,
        client(way, authority, mode) as it,
    ):
        it.run_until_lost("tls_record")
        assert it.trades() == [trade(number) for number in range(101)]


@pytest.mark.parametrize(("code", "name"), [(80, "internal_error"), (20, "bad_record_mac"), (40, "handshake_failure")])
def test_fatal_alert_is_named(mode, authority, tmp_path, caplog, code, name):
    def give_up(forger):
        forger.upgrade()
        forger.send(ALERT, bytes([2, code]))
        stay(forger.peer)

    with forging_server(authority, tmp_path, give_up) as url, client(url, authority, mode) as it:
        it.run_until_lost("tls_alert")
    assert f"by a TLS alert ({name})" in caplog.text


def test_handshake_message_that_nobody_asked_for_ends_the_connection(mode, authority, tmp_path):
    def demand(forger):
        forger.upgrade()
        forger.send(HANDSHAKE, b"\x0d\x00\x00\x03\x00\x00\x00")  # CertificateRequest
        stay(forger.peer)

    with forging_server(authority, tmp_path, demand) as url, client(url, authority, mode) as it:
        it.run_until_lost("tls")


def test_what_is_sent_arrives_while_much_is_received(mode, authority):
    heard = []

    def converse(peer):
        peer.sendall(accept_upgrade(read_request(peer)))
        for number in range(200):
            peer.sendall(message(*range(100)))
            if number % 10 == 0:
                heard.append(read_request(peer))
        peer.sendall(message(*range(100)))
        stay(peer)

    context = authority.server("127.0.0.1")
    with raw_server(converse, tls=context) as url, client(url, authority, mode) as it:
        it.run_until_phase(Phase.LIVE)
        for number in range(20):
            it.link.connection.sock.send(b"line %d\r\n\r\n" % number)
        it.run_until(lambda: len(it.trades()) == 20_100, "all trades")
    assert heard == [b"line %d\r\n\r\n" % number for number in range(20)]
