"""The other end of TLS: servers that choose the cipher, send records of any kind, or are cut off or tampered with."""

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests import frames
from tests.conftest import RUN_IN_GUEST
from tests.upstream import accept_upgrade, owner, raw_server, read_request
from tests.waiting import until
from tradebal.config import CustomFeed
from tradebal.tls import kernel

TRADES = CustomFeed(trade_key="ev", trade_values=("T",), symbol_key="sym")
"""A provider without a login: trades from the first frame on."""

ALERT, HANDSHAKE, DATA = 21, 22, 23

KEY_UPDATE = b"\x18\x00\x00\x01\x00"
KEY_UPDATE_REQUESTED = b"\x18\x00\x00\x01\x01"


def ticket(size=64):
    """A NewSessionTicket message (RFC 8446, section 4.6.1)."""
    body = bytes(8) + b"\x08" + bytes(8) + size.to_bytes(2, "big") + b"t" * size + bytes(2)
    return b"\x04" + len(body).to_bytes(3, "big") + body


def trade(number):
    return b'{"ev":"T","sym":"MSFT","q":%d}' % number


def message(*numbers):
    return frames.text(b"[" + b",".join(map(trade, numbers)) + b"]")


@contextlib.contextmanager
def client(url, authority, mode, **options):
    """An owner of a link that decrypts by `mode`."""
    with owner(url, "custom", key=None, custom=TRADES, tls=mode, ca_file=authority.file, **options) as it:
        yield it


def stay(peer):
    with contextlib.suppress(OSError):
        while peer.recv(4096):
            pass


def expand_label(secret, label, size, algorithm):
    """HKDF-Expand-Label (RFC 8446, section 7.1), by another library than the one under test."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return HKDFExpand(algorithm, size, info).derive(secret)


def nonce(iv, sequence):
    return bytes(a ^ b for a, b in zip(iv, sequence.to_bytes(12, "big"), strict=True))


class Forger:
    """A TLS 1.3 server's sending side that seals records itself, of any kind; receiving is OpenSSL's still."""

    def __init__(self, peer, log):
        assert peer.version() == "TLSv1.3"
        self.peer = peer
        self.fd = peer.fileno()
        name = peer.cipher()[0]
        self.algorithm = hashes.SHA384() if name.endswith("SHA384") else hashes.SHA256()
        self.aead = ChaCha20Poly1305 if "CHACHA20" in name else AESGCM
        self.key_size = 16 if "AES_128" in name else 32
        (secret,) = re.findall(r"SERVER_TRAFFIC_SECRET_0 \S+ (\S+)", log.read_text())
        self._use(bytes.fromhex(secret))

    def _use(self, secret):
        self.secret = secret
        self.key = expand_label(secret, "key", self.key_size, self.algorithm)
        self.iv = expand_label(secret, "iv", 12, self.algorithm)
        self.sequence = 0

    def record(self, content_type, content, padding=0):
        inner = content + bytes([content_type]) + bytes(padding)
        header = bytes([DATA, 3, 3]) + (len(inner) + 16).to_bytes(2, "big")
        sealed = self.aead(self.key).encrypt(nonce(self.iv, self.sequence), inner, header)
        self.sequence += 1
        return header + sealed

    def send(self, content_type, content, padding=0):
        self.raw(self.record(content_type, content, padding))

    def sendall(self, data):
        self.send(DATA, data)

    def raw(self, data):
        plain = socket.socket(fileno=self.fd)
        try:
            plain.sendall(data)
        finally:
            plain.detach()

    def update_key(self, message=KEY_UPDATE):
        self.send(HANDSHAKE, message)
        self._use(expand_label(self.secret, "traffic upd", self.algorithm.digest_size, self.algorithm))

    def upgrade(self):
        self.sendall(accept_upgrade(read_request(self.peer)))


@contextlib.contextmanager
def forging_server(authority, tmp_path, *scripts):
    """Serve `script(forger)` over TLS 1.3, without tickets of OpenSSL's own; yield the URL."""
    log = tmp_path / "server.keys"
    context = authority.server("127.0.0.1")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.keylog_filename = str(log)

    def run(script):
        def serve(peer):
            forger = Forger(peer, log)
            log.write_text("")
            script(forger)

        return serve

    with raw_server(*map(run, scripts), tls=context) as url:
        yield url


@contextlib.contextmanager
def openssl_server(authority, *arguments):
    """Run OpenSSL's s_server with these arguments; yield it."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl isn't installed")
    server = OpenSslServer(program, authority, arguments)
    try:
        yield server
    finally:
        server.end()


class OpenSslServer:
    """s_server: what is written to its input goes to the client, but for commands of a letter."""

    def __init__(self, program, authority, arguments):
        command = [program, "s_server", "-accept", "127.0.0.1:0", "-cert", authority.bundle("127.0.0.1"), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self.said = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        port = self.find(rb"ACCEPT 127.0.0.1:(\d+)").decode()
        self.url = f"wss://127.0.0.1:{port}/stocks"

    def _read(self):
        while data := self.process.stdout.read(65536):
            self.said += data

    def find(self, pattern):
        return until(lambda: re.search(pattern, self.said), f"{pattern} from s_server")[1]

    def upgrade(self):
        """Answer the opening handshake, once the request is there."""
        self.find(rb"Sec-WebSocket-Key: (\S+)\r\n")
        request = self.said[self.said.rindex(b"GET ") :]
        self.send(accept_upgrade(request))

    def send(self, data):
        self.process.stdin.write(data)

    def end(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdin.close()
        self.process.stdout.close()


@contextlib.contextmanager
def relay(url, mangle):
    """Pass everything on to `url`, each of the server's TLS records through `mangle(number, record)`; yield the URL.

    `mangle` returns what the client gets; None ends both connections.
    """
    place = url.split("/")[2].split(":")

    def script(near):
        with socket.create_connection((place[0], int(place[1]))) as far:
            back = threading.Thread(target=pour, args=(near, far))
            back.start()
            with contextlib.suppress(OSError):
                for number in range(1 << 30):
                    record = read_record(far)
                    passed = mangle(number, record) if record else None
                    if passed is None:
                        break
                    near.sendall(passed)
            for sock in (near, far):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            back.join()

    with raw_server(script) as near_url:
        yield near_url.replace("ws://", "wss://")


def pour(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)


def read_record(sock):
    header = exactly(sock, 5)
    return header + exactly(sock, int.from_bytes(header[3:5], "big")) if header else b""


def exactly(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            return b""
        data += more
    return data


needs_kernel_tls = pytest.mark.skipif(bool(kernel.why_not()), reason=f"{kernel.why_not()}; {RUN_IN_GUEST}")
