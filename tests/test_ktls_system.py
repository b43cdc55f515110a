"""The balancer on a kernel that decrypts: every trade arrives, whatever records come between."""

from pathlib import Path

from tests.system import System
from tests.test_system import assert_all_there, provider
from tests.tls_peers import HANDSHAKE, KEY_UPDATE, forging_server, message, needs_kernel_tls, stay, ticket
from tests.upstream import Authority
from tradebal.market.certificate import ThrowAwayAuthority
from tradebal.market.sessions import full_speed
from tradebal.market.stocks import StockPlayback

pytestmark = needs_kernel_tls

TRADES = 20_000


def tls_stat(name):
    return int(dict(line.split() for line in Path("/proc/net/tls_stat").read_text().splitlines())[name])


def custom(ca_file):
    return (
        f'ca_file = "{ca_file}"\ntls = "kernel"\nprofile = "custom"\n'
        '[feed.custom]\ntrade_key = "ev"\ntrade_values = ["T"]\nsymbol_key = "sym"'
    )


def test_the_kernel_decrypts_every_trade(tmp_path):
    authority = ThrowAwayAuthority()
    authority.write(tmp_path / "ca.pem")
    opened, failed = tls_stat("TlsRxSw"), tls_stat("TlsDecryptError")
    with (
        provider(StockPlayback(full_speed(), trades=TRADES), tls=authority.server_context()) as serving,
        System(tmp_path, serving.url, workers=3, feed=f'ca_file = "{tmp_path}/ca.pem"') as system,
    ):
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", TRADES, timeout=100)
        assert system.value("tradebal_build_info", tls="kernel") == 1
        system.stop_all()
        assert_all_there(system, TRADES)
    assert tls_stat("TlsRxSw") == opened + 1
    assert tls_stat("TlsDecryptError") == failed


def test_records_that_hold_no_data_cost_no_trade(tmp_path):
    authority = Authority(tmp_path)

    def interrupt(forger):
        forger.upgrade()
        for number in range(0, 1000, 10):
            forger.sendall(message(*range(number, number + 10)))
            forger.send(HANDSHAKE, ticket())
        stay(forger.peer)

    with (
        forging_server(authority, tmp_path, interrupt) as url,
        System(tmp_path, url, workers=1, feed=custom(authority.file)) as system,
    ):
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 1000)
        assert system.value("tradebal_disconnects_total") == 0
        system.stop_all()


def test_new_keys_cost_no_trade_that_came_before_them(tmp_path):
    authority = Authority(tmp_path)

    def rekey(forger):
        forger.upgrade()
        forger.sendall(message(*range(400)))
        forger.update_key(KEY_UPDATE)
        forger.sendall(message(*range(400)))
        stay(forger.peer)

    def calm(forger):
        forger.upgrade()
        forger.sendall(message(*range(400)))
        stay(forger.peer)

    with (
        forging_server(authority, tmp_path, rekey, calm) as url,
        System(tmp_path, url, workers=1, feed=custom(authority.file)) as system,
    ):
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 800)
        followed = system.value("tradebal_disconnects_total") == 0
        assert followed or system.value("tradebal_disconnects_total", reason="tls_rekey") == 1
        system.stop_all()
