"""What the kernel is given at the end of a handshake opens the server's next record, and seals one for it.

Where the kernel has no TLS, its calls are caught, and another library does with the keys what it would do; what the
kernel itself does with them, test_ktls_connection.py shows.
"""

import errno
import os
import socket
import ssl
import struct
import threading

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tests.tls_peers import DATA, exactly, nonce, openssl_server, stay
from tests.tls_promises import CIPHERS_1_2, CIPHERS_1_3
from tests.upstream import Authority, raw_server
from tradebal.tls import kernel
from tradebal.upstream.encryption import Encryption

STRUCTS = {51: "=8s16s4s8s", 52: "=8s32s4s8s", 54: "=12s32s0s8s"}
"""iv, key, salt and sequence number by cipher number, as linux/tls.h has them."""


class Direction:
    """One direction's crypto_info, as the kernel reads it."""

    def __init__(self, info):
        self.version, self.cipher = struct.unpack_from("=HH", info)
        layout = STRUCTS[self.cipher]
        self.iv, self.key, self.salt, sequence = struct.unpack_from(layout, info, 4)
        assert len(info) == 4 + struct.calcsize(layout)
        self.sequence = int.from_bytes(sequence, "big")
        self.aead = (ChaCha20Poly1305 if self.cipher == 54 else AESGCM)(self.key)
        self.explicit = self.version == kernel.TLS_1_2 and self.cipher != 54

    def _nonce(self, explicit):
        if self.explicit:
            return self.salt + explicit
        return nonce(self.salt + self.iv, self.sequence)

    def _extra(self, size):
        if self.version == kernel.TLS_1_3:
            return bytes([DATA, 3, 3]) + (size + 16).to_bytes(2, "big")
        return self.sequence.to_bytes(8, "big") + bytes([DATA, 3, 3]) + size.to_bytes(2, "big")

    def open(self, payload):
        explicit, sealed = (payload[:8], payload[8:]) if self.explicit else (b"", payload)
        return self.aead.decrypt(self._nonce(explicit), sealed, self._extra(len(sealed) - 16))

    def seal(self, data):
        explicit = self.iv if self.explicit else b""
        inner = data + (bytes([DATA]) if self.version == kernel.TLS_1_3 else b"")
        sealed = explicit + self.aead.encrypt(self._nonce(explicit), inner, self._extra(len(inner)))
        return bytes([DATA, 3, 3]) + len(sealed).to_bytes(2, "big") + sealed


@pytest.fixture
def given_keys(monkeypatch):
    """Catches what goes to the kernel: {direction: crypto_info}."""
    given = {}

    class Caught(socket.socket):
        def setsockopt(self, level, option, value):
            if level != 282:
                return super().setsockopt(level, option, value)
            if option in given:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            given[option] = bytes(value) if option in (kernel.TX, kernel.RX) else value
            return None

    monkeypatch.setattr(kernel, "why_not", lambda: "")
    monkeypatch.setattr(kernel, "attach", lambda sock: None)
    return Caught, given


def connect(caught, port, authority):
    sock = caught(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", port))
    with sock:
        return Encryption("kernel", authority.file).wrap_socket(sock, server_hostname="127.0.0.1")


def port_of(url):
    return int(url.split("/")[2].split(":")[1])


@pytest.mark.parametrize("cipher", CIPHERS_1_2)
def test_keys_of_tls_1_2_open_and_seal(given_keys, tmp_path, cipher):
    authority = Authority(tmp_path)
    context = authority.server("127.0.0.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    heard, done = [], threading.Event()

    def serve(peer):
        peer.sendall(b"what the server says")
        heard.append(peer.recv(100))
        done.set()

    with raw_server(serve, tls=context) as url:
        caught, given = given_keys
        with connect(caught, port_of(url), authority) as sock:
            assert (sock.by, sock.version, sock.cipher) == ("kernel", "TLSv1.2", cipher)
            assert opened(sock, given[kernel.RX]) == b"what the server says"
            sock.send(Direction(given[kernel.TX]).seal(b"what the client says"))
            assert done.wait(20)
    assert heard == [b"what the client says"]


@pytest.mark.parametrize("cipher", CIPHERS_1_3)
def test_keys_of_tls_1_3_open_and_seal(given_keys, tmp_path, cipher):
    authority = Authority(tmp_path)
    caught, given = given_keys
    with (
        openssl_server(authority, "-tls1_3", "-ciphersuites", cipher, "-num_tickets", "0") as server,
        connect(caught, port_of(server.url), authority) as sock,
    ):
        assert (sock.by, sock.version, sock.cipher) == ("kernel", "TLSv1.3", cipher)
        server.send(b"what the server says")
        assert opened(sock, given[kernel.RX]) == b"what the server says" + bytes([DATA])
        sock.send(Direction(given[kernel.TX]).seal(b"what the client says"))
        server.find(rb"(what the client says)")


def opened(sock, info):
    header = exactly(sock, 5)
    return Direction(info).open(exactly(sock, int.from_bytes(header[3:5], "big")))


def test_no_nonce_is_used_twice_in_tls_1_2(given_keys, tmp_path):
    """The client's Finished message was sealed with a nonce of OpenSSL's choice; the kernel goes on from it."""
    authority = Authority(tmp_path)
    context = authority.server("127.0.0.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS_1_2[0])
    flights = []
    caught, given = given_keys

    class Listening(caught):
        def sendall(self, data, *rest):
            flights.append(data)
            return super().sendall(data, *rest)

    with raw_server(stay, tls=context) as url, connect(Listening, port_of(url), authority):
        finished = flights[-1][-(8 + 16 + 16) :]
        assert int.from_bytes(Direction(given[kernel.TX]).iv, "big") == int.from_bytes(finished[:8], "big") + 1


def test_nothing_of_the_secrets_is_left_open_or_in_a_file(given_keys, tmp_path, monkeypatch):
    authority = Authority(tmp_path)
    logs = []
    real = os.memfd_create
    monkeypatch.setattr(os, "memfd_create", lambda *rest: logs.append(real(*rest)) or os.dup(logs[-1]))
    context = authority.server("127.0.0.1")
    caught, _ = given_keys
    with raw_server(stay, tls=context) as url, connect(caught, port_of(url), authority):
        (log,) = logs
        size = os.fstat(log).st_size
        assert size > 500
        assert os.pread(log, size, 0) == bytes(size)
        os.close(log)
