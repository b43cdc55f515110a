"""TLS by OpenSSL in the balancer's process."""

import pytest

from tests.tls_peers import KEY_UPDATE_REQUESTED, client, forging_server, message, stay, trade
from tests.tls_promises import *  # noqa: F403


@pytest.fixture
def mode():
    return "user"


def test_new_keys_are_followed_and_answered(mode, authority, tmp_path):
    pongs = []

    def rekey(forger):
        forger.upgrade()
        forger.sendall(message(1))
        forger.update_key()
        forger.sendall(message(2))
        forger.update_key(KEY_UPDATE_REQUESTED)
        forger.sendall(message(3))
        pongs.append(forger.peer.recv(100))
        forger.sendall(message(4))
        stay(forger.peer)

    with forging_server(authority, tmp_path, rekey) as url, client(url, authority, mode) as it:
        it.run_until(lambda: len(it.trades()) == 3, "trades under the new keys")
        it.link.connection.sock.send(b"under our new keys")
        it.run_until(lambda: len(it.trades()) == 4, "the last trade")
        assert it.trades() == [trade(number) for number in range(1, 5)]
        assert not it.losses()
    assert pongs == [b"under our new keys"]
