"""TLS by the kernel: what holds for OpenSSL holds for it, and what it can't do is said and got over."""

import pytest

from tests.tls_peers import (
    ALERT,
    HANDSHAKE,
    KEY_UPDATE,
    KEY_UPDATE_REQUESTED,
    client,
    forging_server,
    message,
    needs_kernel_tls,
    stay,
    ticket,
    trade,
)
from tests.tls_promises import *  # noqa: F403
from tests.tls_promises import many_trades
from tests.upstream import raw_server

pytestmark = needs_kernel_tls


@pytest.fixture
def mode():
    return "kernel"


@pytest.mark.parametrize("update", [KEY_UPDATE, KEY_UPDATE_REQUESTED], ids=["told", "requested"])
def test_new_keys_are_followed_or_cost_one_reconnect_at_once(mode, authority, tmp_path, caplog, update):
    heard = []

    def rekey(forger):
        forger.upgrade()
        forger.sendall(message(1))
        forger.update_key(update)
        forger.sendall(message(2))
        heard.append(forger.peer.recv(100))
        stay(forger.peer)

    def calm(forger):
        forger.upgrade()
        forger.sendall(message(3))
        stay(forger.peer)

    with forging_server(authority, tmp_path, rekey, calm) as url, client(url, authority, mode) as it:
        it.run_until(lambda: len(it.trades()) == 2, "two trades")
        if it.link.connects == 1:  # a kernel that takes new keys (6.14)
            assert it.trades() == [trade(1), trade(2)]
            it.link.connection.sock.send(b"after that")
            it.run_until(lambda: heard, "what was sent after that")
            assert heard == [b"after that"]
            assert not it.losses()
        else:
            assert it.trades() == [trade(1), trade(3)]
            assert it.losses() == {"tls_rekey": 1}
            assert "this kernel can't follow; trying again in 0.0 s" in caplog.text


def test_flood_of_records_that_hold_no_data_ends_the_connection(mode, authority, tmp_path):
    def flood(forger):
        forger.upgrade()
        forger.raw(b"".join(forger.record(HANDSHAKE, ticket()) for _ in range(100)))
        stay(forger.peer)

    with forging_server(authority, tmp_path, flood) as url, client(url, authority, mode) as it:
        it.run_until_lost("tls")


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        (25, b"x"),
        (HANDSHAKE, b"\x04\xff\xff\xff"),
        (ALERT, b"\x02"),
    ],
    ids=["type", "length", "alert"],
)
def test_what_is_no_tls_ends_the_connection(mode, authority, tmp_path, content_type, content):
    def babble(forger):
        forger.upgrade()
        forger.send(content_type, content)
        stay(forger.peer)

    with forging_server(authority, tmp_path, babble) as url, client(url, authority, mode) as it:
        it.run_until_lost("tls")


def test_user_canceled_is_told_and_the_connection_goes_on(mode, authority, tmp_path, caplog):
    def waver(forger):
        forger.upgrade()
        forger.send(ALERT, b"\x01\x5a")
        forger.sendall(message(1))
        stay(forger.peer)

    with forging_server(authority, tmp_path, waver) as url, client(url, authority, mode) as it:
        it.run_until(it.trades, "a trade")
    assert "tls alert: name=user_canceled level=warning" in caplog.text


def unsupported(authority):
    context = authority.server("127.0.0.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # noqa: F405
    context.set_ciphers("ECDHE-ECDSA-AES256-SHA384")
    return context


def test_cipher_that_the_kernel_has_not_is_decrypted_here_over_the_same_connection(authority, caplog):
    caplog.set_level("INFO")
    with raw_server(many_trades, tls=unsupported(authority)) as url, client(url, authority, "auto") as it:
        it.run_until(lambda: len(it.trades()) == 3001, "all trades")
        assert it.link.tls == "user"
    assert "by=user cause=the kernel has no TLSv1.2 with ECDHE-ECDSA-AES256-SHA384" in caplog.text


def test_cipher_that_the_kernel_has_not_is_refused_where_nothing_but_the_kernel_will_do(authority, caplog):
    with raw_server(many_trades, tls=unsupported(authority)) as url, client(url, authority, "kernel") as it:
        it.run_until_lost("tls")
    assert 'feed.tls = "kernel", but the kernel has no TLSv1.2' in caplog.text
