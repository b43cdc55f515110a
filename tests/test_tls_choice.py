"""Who decrypts is chosen by what is configured and what the kernel has, and it is said why."""

import contextlib
import subprocess
import sys
import time

import pytest

from tests.system import System
from tests.tls_peers import client, message, stay
from tests.upstream import Authority, accept_upgrade, feed, owner, raw_server, read_request
from tradebal.errors import UserError
from tradebal.run import checks
from tradebal.run.checks import Level
from tradebal.tls import kernel
from tradebal.upstream.encryption import Encryption
from tradebal.upstream.link import Link, Phase


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def _no_module(monkeypatch):
    """Asks the kernel for a protocol that it surely hasn't: the answer is that to a module which isn't loaded."""
    monkeypatch.setattr(kernel, "_ULP", b"tls-that-is-not")


def talk(peer):
    peer.sendall(accept_upgrade(read_request(peer)) + message(1))
    stay(peer)


def leave(peer):
    peer.sendall(accept_upgrade(read_request(peer)) + message(1))


@pytest.mark.usefixtures("_no_module")
def test_without_the_module_openssl_decrypts_and_the_reason_is_logged_once(authority, caplog):
    caplog.set_level("INFO")
    context = authority.server("127.0.0.1")
    with raw_server(leave, talk, tls=context) as url, client(url, authority, "auto") as it:
        it.run_until(lambda: len(it.trades()) == 2, "a trade of the second connection")
        assert it.link.tls == "user"
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("tls: by=user cause=the kernel's module tls isn't loaded") == 1


def test_openssl_decrypts_where_that_is_configured_whatever_the_kernel_has(authority, caplog):
    caplog.set_level("INFO")
    with raw_server(talk, tls=authority.server("127.0.0.1")) as url, client(url, authority, "user") as it:
        it.run_until(it.trades, "a trade")
        assert it.link.tls == "user"
    assert 'tls: by=user cause=feed.tls = "user"' in caplog.text


@pytest.mark.usefixtures("_no_module")
def test_start_is_refused_where_only_the_kernel_will_do_and_it_can_not():
    with pytest.raises(UserError) as refused:
        Link(feed("wss://provider.test/", "coinbase", tls="kernel"), None, None)
    assert refused.value.code == 2
    assert refused.value.message == "feed.tls = \"kernel\": the kernel's module tls isn't loaded"
    assert "modprobe tls" in refused.value.hint
    assert "modules-load.d" in refused.value.hint


@pytest.mark.usefixtures("_no_module")
def test_ws_needs_no_kernel():
    with raw_server(talk) as url, owner(url, "coinbase", key=None, tls="kernel") as it:
        it.run_until_phase(Phase.LOGIN)
        assert it.link.tls == "none"


def test_module_that_goes_away_while_running_is_a_failed_try_with_a_slow_retry(authority, caplog, monkeypatch):
    monkeypatch.setattr(Encryption, "require", lambda self: None)  # as if it was there at the start
    monkeypatch.setattr(kernel, "_ULP", b"tls-that-is-not")
    with raw_server(talk, tls=authority.server("127.0.0.1")) as url, client(url, authority, "kernel") as it:
        it.run_until_lost("tls")
    assert "feed.tls = \"kernel\", but the kernel's module tls isn't loaded" in caplog.text
    assert it.link.next_deadline() - it.now() > 25


@pytest.mark.usefixtures("_no_module")
@pytest.mark.parametrize(
    ("mode", "level", "text", "fix"),
    [
        ("auto", Level.OK, "OpenSSL in the balancer decrypts: the kernel's module tls isn't loaded", "modprobe tls"),
        ("user", Level.OK, 'OpenSSL in the balancer decrypts: feed.tls = "user"', ""),
        ("kernel", Level.FAIL, "the kernel's module tls isn't loaded", "modprobe tls"),
    ],
)
def test_check_tells_who_would_decrypt_and_why(mode, level, text, fix):
    finding = checks.check_tls(Encryption(mode, None))
    assert finding.level is level
    assert text in finding.text
    assert fix in finding.fix


def test_check_tells_where_the_kernel_would_decrypt_and_where_nobody_has_to(monkeypatch):
    monkeypatch.setattr(kernel, "why_not", lambda: "")
    assert checks.check_tls(Encryption("auto", None)).text.startswith("the kernel decrypts")
    assert checks.check_tls(None).text == "none: feed.url is ws://"


@pytest.mark.skipif(not kernel.why_not(), reason="this kernel has TLS")
def test_balancer_that_may_only_have_the_kernel_ends_with_one_clear_line(tmp_path):
    system = System(tmp_path, "wss://provider.test/", feed='profile = "coinbase"\ntls = "kernel"')
    command = [sys.executable, "-m", "tradebal", "balancer", "--config", system.config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert 'tradebal: error: feed.tls = "kernel": ' in done.stderr
    assert "tradebal: hint: modprobe tls" in done.stderr


def test_handshake_that_drips_is_cut_off_by_the_connect_timeout(authority):
    gone = []

    def drip(peer):
        with contextlib.suppress(OSError):
            peer.sendall(b"\x16\x03\x03\x40\x00")
            while True:
                peer.sendall(b"\x02")
                time.sleep(0.01)
        gone.append(True)

    with raw_server(drip) as url, client(url.replace("ws", "wss"), authority, "user", connect_timeout=0.5) as it:
        it.run_until_lost("timeout")
        it.run_until(lambda: gone, "the connection to be let go of")
