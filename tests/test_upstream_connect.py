"""The opening handshake: every way in works, every way to fail is one line that says where, why and what to do."""

import contextlib
import importlib.util
import logging
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests import frames
from tests.upstream import (
    Authority,
    accept_upgrade,
    massive,
    owner,
    provider,
    raw_server,
    read_request,
    status,
    upgrade,
)
from tests.waiting import until
from tradebal.config import Feed
from tradebal.errors import UserError
from tradebal.upstream.connector import Connector
from tradebal.upstream.failures import Failure
from tradebal.upstream.link import Phase
from tradebal.upstream.target import target

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy_from_outside(monkeypatch):
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def named(monkeypatch):
    """Lets the name provider.test stand for 127.0.0.1, as /etc/hosts would."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest: real("127.0.0.1" if host == "provider.test" else host, *rest)
    )
    return lambda url: url.replace("127.0.0.1", "provider.test")


def line_of_failure(caplog, it, reason):
    it.run_until_lost(reason)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith(f"connect failed: reason={reason}: ")
    assert "trying again in" in line
    return line


def wait_until_closed(client):
    while client.recv(4096):
        pass


# --- ways in


def test_first_frames_in_the_same_segment_as_the_answer_are_not_swallowed():
    greeting = frames.text(status("connected", "Connected Successfully").encode()) + frames.text(
        b'[{"ev":"T","sym":"A"}]'
    )

    def early(client):
        client.sendall(accept_upgrade(read_request(client)) + greeting)
        wait_until_closed(client)

    with raw_server(early) as url, owner(url) as it:
        it.run_until(it.trades, "the trade behind the greeting")
        assert it.messages() == [status("connected", "Connected Successfully").encode()[1:-1]]


def test_first_frames_in_the_same_tls_record_as_the_answer_are_not_swallowed(authority):
    def early(client):
        client.sendall(accept_upgrade(read_request(client)) + frames.text(b'[{"ev":"T","sym":"A"}]'))
        wait_until_closed(client)

    with raw_server(early, tls=authority.server("127.0.0.1")) as url, owner(url, ca_file=authority.file) as it:
        it.run_until(it.trades, "the trade behind the answer")


def test_answer_that_comes_byte_by_byte_is_understood():
    def dripping(client):
        for byte in accept_upgrade(read_request(client)) + frames.text(b'[{"ev":"T","sym":"A"}]'):
            client.sendall(bytes([byte]))
        wait_until_closed(client)

    with raw_server(dripping) as url, owner(url) as it:
        it.run_until(it.trades, "a trade")


def test_handshake_offers_no_extension_and_carries_the_configured_headers():
    requests = []

    def keep(client):
        request = read_request(client)
        requests.append(request.decode().split("\r\n"))
        client.sendall(accept_upgrade(request))
        wait_until_closed(client)

    headers = {"X-Desk": "7", "user-agent": "desk"}
    with raw_server(keep, path="/stocks?a=b") as url, owner(url, headers=headers) as it:
        it.run_until_phase(Phase.LOGIN)
    (lines,) = requests
    assert lines[0] == "GET /stocks?a=b HTTP/1.1"
    fields = [line.partition(":")[0].lower() for line in lines[1:]]
    assert "X-Desk: 7" in lines
    assert fields.count("user-agent") == 1
    assert not {"sec-websocket-extensions", "origin", "cookie"} & set(fields)


def test_configured_host_header_replaces_the_usual_one():
    requests = []

    def keep(client):
        requests.append(read_request(client).decode().split("\r\n"))

    with raw_server(keep) as url, owner(url, headers={"host": "other.example"}) as it:
        it.run_until(lambda: requests, "the request")
    assert [line for line in requests[0] if line.lower().startswith("host:")] == ["Host: other.example"]


def test_tls_with_a_private_authority_works_by_name_with_sni(authority, named):
    asked_for = []
    server = authority.server("provider.test")
    server.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    with provider(massive, tls=server) as url, owner(named(url), ca_file=authority.file) as it:
        it.run_until(it.trades, "a trade")
        assert it.link.tls in ("user", "kernel")
        assert asked_for == ["provider.test"]


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_ipv6_works():
    with provider(massive, host="::1", family=socket.AF_INET6) as url, owner(url) as it:
        it.run_until(it.trades, "a trade")


class ConnectProxy:
    """A proxy that knows CONNECT (RFC 9110, section 9.3.6) and nothing else."""

    def __init__(self, authorization=None):
        self.requests = []
        self.authorization = authorization

    def __call__(self, client):
        request = read_request(client)
        self.requests.append(request.split(b" ")[1].decode())
        if self.authorization and f"Proxy-Authorization: {self.authorization}".encode() not in request:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        port = int(request.split(b" ")[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as provider_side:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self.copy, args=(provider_side, client))
            back.start()
            self.copy(client, provider_side)
            back.join()

    @staticmethod
    def copy(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("tls", [False, True])
def test_proxy_of_the_environment_is_used(tls, authority, named, monkeypatch):
    proxy = ConnectProxy("Basic dXNlcjpwQHNz")
    server = authority.server("provider.test") if tls else None
    with provider(massive, tls=server) as url, raw_server(proxy, path="") as proxy_url:
        place = proxy_url.removeprefix("ws://")
        monkeypatch.setenv("https_proxy" if tls else "http_proxy", f"http://user:p%40ss@{place}")
        with owner(named(url), ca_file=authority.file) as it:
            it.run_until(it.trades, "a trade")
        assert proxy.requests == [named(url).split("/")[2]]


def test_loopback_and_no_proxy_go_past_the_proxy(named, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with provider(massive) as url, owner(url) as it:
        it.run_until_phase(Phase.LIVE)
    monkeypatch.setenv("no_proxy", "example.com,.test")
    with provider(massive) as url, owner(named(url)) as it:
        it.run_until_phase(Phase.LIVE)


# --- ways to fail


def test_proxy_that_refuses_is_named_without_its_password(caplog, monkeypatch):
    with raw_server(ConnectProxy("Basic other"), path="") as proxy_url:
        place = proxy_url.removeprefix("ws://")
        monkeypatch.setenv("https_proxy", f"http://user:hunter2@{place}")
        with owner("wss://provider.test/stocks") as it:
            line = line_of_failure(caplog, it, "proxy")
    assert f"provider.test:443 through the proxy {place} of https_proxy" in line
    assert "HTTP status 407" in line
    assert "hunter2" not in caplog.text


def test_proxy_that_is_not_there_is_named(caplog, monkeypatch):
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    with owner("wss://provider.test/stocks") as it:
        assert "through the proxy 127.0.0.1:1 of all_proxy" in line_of_failure(caplog, it, "refused")


def test_unusable_proxy_setting_is_a_clear_error(caplog, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://")
    with owner("wss://provider.test/stocks") as it:
        assert "https_proxy in the environment holds no proxy URL" in line_of_failure(caplog, it, "proxy")


def test_socks_proxy_without_its_package_says_what_to_install(caplog, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    with owner("wss://provider.test/stocks") as it:
        assert "pip install python-socks" in line_of_failure(caplog, it, "proxy")


def test_unknown_name_is_named(caplog):
    with owner("wss://no-such-name.invalid/stocks") as it:
        line = line_of_failure(caplog, it, "dns")
    assert 'no-such-name.invalid:443: the name "no-such-name.invalid" wasn\'t found' in line


def test_refused_connection_names_host_and_port(caplog):
    with owner("ws://127.0.0.1:1/stocks") as it:
        assert "127.0.0.1:1: nothing accepts connections there" in line_of_failure(caplog, it, "refused")


@pytest.mark.parametrize(
    ("answer", "reason", "said"),
    [
        ("401 Unauthorized", "refused_key", "check the feed key"),
        ("403 Forbidden", "not_authorized", "the plan"),
        ("404 Not Found", "http_status", "check feed.url"),
        ("200 OK", "http_status", "check feed.url"),
        ("429 Too Many Requests", "rate_limited", "is another process trying too?"),
        ("503 Service Unavailable", "http_status", "status page"),
        ("599 Hm", "http_status", "HTTP status 599"),
    ],
)
def test_http_status_says_what_to_do(caplog, answer, reason, said):
    def refuse(client):
        read_request(client)
        client.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 4\r\n\r\nbody".encode())

    with raw_server(refuse) as url, owner(url) as it:
        line = line_of_failure(caplog, it, reason)
    assert said in line
    assert answer.split(" ")[0] in line


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [
        ("77", 77, 77),
        ("999999999", 300, 300),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0.25),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300, 300),
        ("soon", 0, 0.25),
        ("-5", 0, 0.25),
    ],
)
def test_retry_after_is_honoured_within_bounds(caplog, field, least, most):
    def refuse(client):
        read_request(client)
        client.sendall(f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {field}\r\n\r\n".encode())

    with raw_server(refuse) as url, owner(url) as it:
        line = line_of_failure(caplog, it, "http_status")
    assert least - 0.05 <= float(line.rpartition("trying again in ")[2].split()[0]) <= most + 0.05


@pytest.mark.parametrize("to", ["wss://elsewhere.example/x?token=abc", "ws://u:p@elsewhere.example/x"])
def test_redirect_is_not_followed_but_shown(caplog, to):
    def redirect(client):
        read_request(client)
        client.sendall(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n".encode())

    with raw_server(redirect) as url, owner(url) as it:
        line = line_of_failure(caplog, it, "redirect")
    assert "elsewhere.example/x;" in line
    assert "abc" not in line
    assert "u:p" not in line


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x15\x03\x01\xff\xfe\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Ok\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: many\r\n\r\n",
    ],
)
def test_what_is_no_websocket_server_is_said_so(caplog, answer):
    def other(client):
        read_request(client)
        client.sendall(answer)
        wait_until_closed(client)

    with raw_server(other) as url, owner(url) as it:
        assert "no websocket server" in line_of_failure(caplog, it, "handshake")


@pytest.mark.parametrize("field", [b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Protocol: x"])
def test_answer_with_what_was_not_offered_is_refused(caplog, field):
    def generous(client):
        client.sendall(accept_upgrade(read_request(client), field))
        wait_until_closed(client)

    with raw_server(generous) as url, owner(url) as it:
        assert "wasn't asked for" in line_of_failure(caplog, it, "handshake")


def test_connection_that_ends_during_the_handshake_is_named(caplog):
    with raw_server(read_request) as url, owner(url) as it:
        assert "during the opening handshake" in line_of_failure(caplog, it, "handshake")


def test_reset_during_the_handshake_is_named(caplog):
    def reset(client):
        read_request(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with raw_server(reset) as url, owner(url) as it:
        assert "reset" in line_of_failure(caplog, it, "reset")


def test_untrusted_certificate_is_named_with_the_setting_that_helps(caplog, authority):
    with provider(massive, tls=authority.server("127.0.0.1")) as url, owner(url) as it:
        line = line_of_failure(caplog, it, "certificate")
    assert "unable to get local issuer certificate" in line
    assert "feed.ca_file" in line


def test_certificate_for_another_name_is_refused(caplog, authority):
    with (
        provider(massive, tls=authority.server("other.test")) as url,
        owner(url, ca_file=authority.file) as it,
    ):
        assert "IP address mismatch" in line_of_failure(caplog, it, "certificate")


def test_wss_to_a_port_without_tls_is_named(caplog):
    def plain(client):
        client.recv(1)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        wait_until_closed(client)

    with raw_server(plain) as url, owner(url.replace("ws://", "wss://")) as it:
        assert "use ws:// in feed.url" in line_of_failure(caplog, it, "tls")


def test_silent_server_times_out_and_says_what_was_waited_for(caplog):
    with raw_server(wait_until_closed) as url, owner(url, connect_timeout=0.3) as it:
        assert "no answer to the opening handshake within 0.3 s" in line_of_failure(caplog, it, "timeout")


def test_silent_tls_server_times_out_and_says_what_was_waited_for(caplog):
    with raw_server(wait_until_closed) as url, owner(url.replace("ws://", "wss://"), connect_timeout=0.3) as it:
        assert "no TCP or TLS connection within 0.3 s" in line_of_failure(caplog, it, "timeout")


def test_endless_answer_is_cut_off_by_the_same_timeout(caplog):
    gone = threading.Event()

    def endless(client):
        read_request(client)
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        with contextlib.suppress(OSError):
            while True:
                client.sendall(b"X: y\r\n")
                time.sleep(0.001)
        gone.set()

    with raw_server(endless) as url, owner(url, connect_timeout=0.5) as it:
        line_of_failure(caplog, it, "timeout")
        assert gone.wait(20), "the connection must be let go of"


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("line", [b"X: y\r\n", b"x" * 1000], ids=["fields without end", "a line without end"])
def test_headers_without_end_are_cut_off_at_64_kib(caplog, authority, tls, line):
    sent = []

    def endless(client):
        read_request(client)
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        sent.append(0)
        with contextlib.suppress(OSError):
            while True:
                client.sendall(line)
                sent[0] += len(line)

    server = authority.server("127.0.0.1") if tls else None
    with raw_server(endless, tls=server) as url, owner(url, connect_timeout=60.0, ca_file=authority.file) as it:
        assert "more than 64 KiB of headers; check feed.url" in line_of_failure(caplog, it, "handshake")
    assert sent[0] < 16 << 20, "no more than what the kernel's buffers take"


def test_refusal_with_an_endless_body_is_cut_off_and_still_named_by_its_status(caplog):
    def endless(client):
        read_request(client)
        client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 999999999999\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                client.sendall(bytes(4096))

    with raw_server(endless) as url, owner(url, connect_timeout=60.0) as it:
        assert "HTTP status 503 Service Unavailable" in line_of_failure(caplog, it, "http_status")


def test_sslkeylogfile_in_the_environment_is_ignored_and_cleared(caplog, authority, monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with provider(massive, tls=authority.server("127.0.0.1")) as url, owner(url, ca_file=authority.file) as it:
        (tmp_path / "keys").unlink(missing_ok=True)  # the server's context, which is the test's own, has made it
        it.run_until(it.trades, "a trade")
        assert not (tmp_path / "keys").exists()
        assert "SSLKEYLOGFILE" not in os.environ
    assert "SSLKEYLOGFILE in the environment is ignored" in caplog.text


def test_unreadable_ca_file_is_refused_before_any_try(tmp_path):
    with pytest.raises(UserError, match="No such file"), owner("wss://x.test/", ca_file=tmp_path / "none.pem"):
        pass
    (tmp_path / "empty.pem").write_text("nothing\n")
    with pytest.raises(UserError, match="no certificates"), owner("wss://x.test/", ca_file=tmp_path / "empty.pem"):
        pass


# --- letting go


def connector(url, timeout=30.0):
    return Connector(target(url, {}, Feed(connect_timeout=timeout)))


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_cancel_lets_go_of_everything():
    reached = threading.Event()

    def silent(client):
        read_request(client)
        reached.set()
        wait_until_closed(client)

    with raw_server(silent) as url:
        it = connector(url)
        it.start()
        assert reached.wait(20)
        it.cancel()
        it.cancel()
        assert it.fileno() == -1
        until(lambda: not [t for t in threading.enumerate() if t.name == "connect"], "the end of the thread")
        assert it.result() is None


def test_connection_that_nobody_took_is_closed_by_cancel():
    ended = threading.Event()

    def serve(client):
        upgrade(client)
        wait_until_closed(client)
        ended.set()

    with raw_server(serve) as url:
        it = connector(url)
        it.start()
        until(lambda: os.read(it.fileno(), 8) if readable(it.fileno()) else b"", "the result")
        it.cancel()
        assert ended.wait(20)


def readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


def test_result_is_handed_out_once():
    with raw_server() as url:
        pass
    it = connector(url)
    it.start()
    until(lambda: readable(it.fileno()), "the result")
    assert isinstance(it.result(), Failure)
    assert it.result() is None
    it.cancel()


def test_hanging_name_lookup_holds_up_neither_timeout_nor_the_end_of_the_process():
    program = """
import socket, threading, time
socket.getaddrinfo = lambda *rest: threading.Event().wait()
from tradebal.upstream.connector import Connector
from tradebal.config import Feed
from tradebal.upstream.target import target
it = Connector(target("wss://provider.test/", {}, Feed(connect_timeout=0.1)))
it.start()
print(it.timed_out().text)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("provider.test:443: no TCP or TLS connection within 0.1 s")
    assert done.stderr == ""


def test_failed_tries_leave_no_descriptors_behind():
    with owner("ws://127.0.0.1:1/stocks", connect_timeout=600.0) as it:
        it.run_until(lambda: it.link.disconnects["refused"] >= 1, "a failure")
        before = open_descriptors()
        for count in range(2, 12):
            it.advance(60)
            it.run_until(lambda count=count: it.link.disconnects["refused"] >= count, "another failure")
        assert open_descriptors() <= before


def test_url_and_target_show_no_query():
    made = target("wss://x.test/feed?token=abc", {"X": "abc"}, Feed())
    assert made.shown == "wss://x.test/feed"
    assert "abc" not in repr(made)


def test_key_over_an_unencrypted_way_is_warned_of(caplog):
    with owner("ws://provider.invalid/stocks"):
        assert "the key travels unencrypted" in caplog.text
    caplog.clear()
    with owner("ws://127.0.0.1:1/stocks"), owner("ws://provider.invalid/", "coinbase", key=None):
        assert "unencrypted" not in caplog.text


def test_context_checks_certificates_and_names():
    tls = target("wss://x.test/", {}, Feed()).tls.context()
    assert tls.check_hostname
    assert tls.verify_mode is ssl.CERT_REQUIRED
