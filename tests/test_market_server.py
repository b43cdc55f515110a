"""The simulated provider against real clients: Massive's own, unmodified, and websocket-client."""

import itertools
import json
import socket
import ssl
import threading
import urllib.error
import urllib.request

import pytest
import websocket
from massive import WebSocketClient
from massive.exceptions import AuthError
from massive.websocket.models import EquityTrade

from tests import market_client
from tests.waiting import until
from tradebal.errors import UserError
from tradebal.market import sessions
from tradebal.market.certificate import ThrowAwayAuthority
from tradebal.market.connection import Manners
from tradebal.market.dialogue import CoinbaseDialogue, Dialogue, MassiveDialogue
from tradebal.market.playback import Block, Prepared
from tradebal.market.sent_log import SentLog
from tradebal.market.server import Provider
from tradebal.market.stocks import StockPlayback
from tradebal.router.frames import server_frame


@pytest.fixture(scope="module")
def authority() -> ThrowAwayAuthority:
    return ThrowAwayAuthority()


@pytest.fixture
def ca(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.write(path)
    return path


def market(trades: int = 1500, rate: float = 3000, bank: int = 1000) -> StockPlayback:
    return StockPlayback(sessions.steady(rate=rate), trades=trades, bank=bank)


def endless(rate: float = 1000) -> StockPlayback:
    return StockPlayback(sessions.steady(rate=rate), bank=1000)


ONCE = Manners(close_at_end=True, ping_every=0)


def received_by_massives_client(client: WebSocketClient) -> list[EquityTrade]:
    trades: list[EquityTrade] = []
    client.run(trades.extend)
    return trades


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_massives_own_client_gets_every_trade_as_its_model(secure, authority, ca, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    tls = authority.server_context() if secure else None
    with Provider(market(), MassiveDialogue, tls=tls, manners=ONCE) as provider:
        feed = f"localhost:{provider.port}"
        client = WebSocketClient("key", feed=feed, market="stocks", subscriptions=["T.*"], secure=secure)
        trades = received_by_massives_client(client)
        assert provider.finished.wait(10)
        assert provider.report().trades == 1500
    assert [trade.sequence_number for trade in trades] == list(range(1, 1501))
    assert all(isinstance(trade, EquityTrade) for trade in trades)
    for trade in trades:
        assert trade.symbol
        assert trade.id
        assert trade.price > 0
        assert trade.size > 0
        assert trade.tape in (1, 2, 3)
        assert (trade.exchange == 4) == (trade.trf_id is not None) == (trade.trf_timestamp is not None)
    assert any(trade.conditions for trade in trades)
    assert any(trade.fractional_shares for trade in trades)


def test_massives_own_client_is_refused_with_a_wrong_key():
    with Provider(market(), lambda: MassiveDialogue(keys=["right"])) as provider:
        client = WebSocketClient(
            "wrong", feed=f"127.0.0.1:{provider.port}", market="stocks", subscriptions=["T.*"], secure=False
        )
        with pytest.raises(AuthError, match="authentication failed"):
            received_by_massives_client(client)
        until(lambda: provider.report().clients[0].ended, "the connection's end")
        assert provider.report().clients[0].ended == "login refused"


def test_massives_own_client_subscribes_to_single_stocks():
    with Provider(market(bank=4000), MassiveDialogue, manners=ONCE) as provider:
        client = WebSocketClient(
            "key",
            feed=f"127.0.0.1:{provider.port}",
            market="stocks",
            subscriptions=["T.SPY", "T.NVDA", "Q.SPY"],
            secure=False,
        )
        trades = received_by_massives_client(client)
        assert {trade.symbol for trade in trades} == {"SPY", "NVDA"}
        assert provider.report().trades == len(trades)


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_what_the_report_counts_is_what_a_client_received(secure, authority, ca):
    playback = StockPlayback(sessions.steady(rate=60_000), trades=30_000, bank=5000)
    tls = authority.server_context() if secure else None
    with Provider(playback, MassiveDialogue, tls=tls, manners=ONCE) as provider:
        with market_client.logged_in(provider.url, ca=ca if secure else None) as client:
            payloads = [data for opcode, data in market_client.messages(client) if opcode == 1]
        assert provider.finished.wait(10)
        report = provider.report()
    numbers = [trade["q"] for payload in payloads for trade in json.loads(payload)]
    assert numbers == list(range(1, 30_001))
    assert (report.trades, report.frames) == (len(numbers), len(payloads))
    assert report.bytes == sum(len(server_frame(payload)) for payload in payloads)
    assert report.clients[0].finished
    assert report.clients[0].ended == "end of playback"
    assert 0 < report.peak <= 30_000


def test_full_speed_reaches_a_client_whole():
    playback = StockPlayback(sessions.full_speed(), trades=60_000, bank=2000)
    with Provider(playback, MassiveDialogue, manners=ONCE) as provider, market_client.logged_in(provider.url) as client:
        assert [trade["q"] for trade in market_client.objects(client)] == list(range(1, 60_001))


def test_certificate_verifies_against_its_authority_and_only_there(authority, ca):
    with Provider(market(), MassiveDialogue, tls=authority.server_context()) as provider:
        with market_client.connected(provider.url, ca) as client:
            assert client.sock.version() in ("TLSv1.2", "TLSv1.3")
        with pytest.raises(ssl.SSLCertVerificationError):
            market_client.connected(provider.url).__enter__()


def test_a_client_that_says_nothing_is_cut_off_with_auth_timeout():
    manners = Manners(login_timeout=0.1)
    with (
        Provider(market(), MassiveDialogue, manners=manners) as provider,
        market_client.connected(provider.url) as client,
    ):
        assert market_client.statuses(client.recv()) == ["connected"]
        assert market_client.statuses(client.recv()) == ["auth_timeout"]
        (_, close) = list(market_client.messages(client))[-1]
        assert market_client.close_code(close) == 1008


def test_a_wrong_key_gets_auth_failed_and_a_close():
    with (
        Provider(market(), lambda: MassiveDialogue(keys=["right"])) as provider,
        market_client.connected(provider.url) as client,
    ):
        client.recv()
        client.send('{"action":"auth","params":"wrong"}')
        assert market_client.statuses(client.recv()) == ["auth_failed"]
        (_, close) = list(market_client.messages(client))[-1]
        assert market_client.close_code(close) == 1008


def second_connection(provider: Provider) -> tuple[str, str]:
    """How the first and the second connection of one key end, while the other one goes on getting trades."""
    with market_client.logged_in(provider.url) as first, market_client.logged_in(provider.url) as second:
        ended = until(lambda: next((c for c in provider.report().clients if c.ended), None), "an eviction")
        victim, survivor = (first, second) if ended.client == 1 else (second, first)
        *_, (_, last_words), (_, close) = market_client.messages(victim)
        assert market_client.statuses(last_words) == ["max_connections"]
        assert market_client.close_code(close) == 1008
        assert json.loads(survivor.recv())[0]["ev"] == "T"
        return tuple(client.ended for client in provider.report().clients)


@pytest.mark.parametrize(("evict", "place"), [("oldest", 0), ("newest", 1)])
def test_second_connection_of_an_account_kills_one_of_the_two_after_login_and_subscription(evict, place):
    with Provider(endless(), MassiveDialogue, manners=Manners(evict=evict)) as provider:
        ends = second_connection(provider)
    assert ends[place] == "account has another connection"
    assert ends[1 - place] == ""


def test_which_connection_of_an_account_dies_is_random_by_seed():
    def victims(seed: int) -> list[bool]:
        died = []
        for number in range(3):
            with Provider(endless(), MassiveDialogue, seed=seed + number) as provider:
                died.append(bool(second_connection(provider)[0]))
        return died

    assert victims(0) == victims(0)
    assert len(set(victims(0))) == 2


def test_an_account_is_free_again_after_its_connection_ended():
    with Provider(endless(), MassiveDialogue) as provider:
        for number in (1, 2):
            with market_client.logged_in(provider.url) as client:
                assert json.loads(client.recv())[0]["ev"] == "T"
            until(lambda number=number: provider.report().clients[number - 1].ended, "the end")
        assert all("another connection" not in client.ended for client in provider.report().clients)


def test_several_accounts_each_get_the_session_from_its_start():
    with (
        Provider(market(), MassiveDialogue, manners=ONCE) as provider,
        market_client.logged_in(provider.url, "one") as one,
        market_client.logged_in(provider.url, "two") as two,
    ):
        of_two = list(market_client.objects(two))
        of_one = list(market_client.objects(one))
    assert [(t["q"], t["sym"], t["p"]) for t in of_one] == [(t["q"], t["sym"], t["p"]) for t in of_two]
    assert len(of_one) == 1500


def test_unsubscribe_stops_the_trades_and_the_session_goes_on_meanwhile():
    with Provider(endless(), MassiveDialogue) as provider, market_client.logged_in(provider.url) as client:
        before = json.loads(client.recv())[0]["q"]
        client.send('{"action":"unsubscribe","params":"T.*"}')
        while (message := json.loads(client.recv()))[0]["ev"] == "T":
            before = message[-1]["q"]
        assert message == [{"ev": "status", "status": "success", "message": "unsubscribed to: T.*"}]
        client.settimeout(0.3)
        with pytest.raises(websocket.WebSocketTimeoutException):
            client.recv()
        client.settimeout(20)
        client.send('{"action":"subscribe","params":"T.*"}')
        assert market_client.statuses(client.recv()) == ["success"]
        assert json.loads(client.recv())[0]["q"] > before + 100


@pytest.mark.parametrize("path", ["/", "/options", "/stocks/x"])
def test_other_paths_do_not_exist(path):
    with Provider(market(), MassiveDialogue) as provider:
        with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
            market_client.connected(f"ws://127.0.0.1:{provider.port}{path}").__enter__()
        assert refusal.value.status_code == 404


def test_a_browser_is_told_that_this_is_a_websocket():
    with Provider(market(), MassiveDialogue) as provider:
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"http://127.0.0.1:{provider.port}/stocks", timeout=20)
        refusal.value.close()
        assert refusal.value.code == 426


def test_clients_are_pinged_and_their_pongs_counted():
    manners = Manners(ping_every=0.05)
    with (
        Provider(endless(), MassiveDialogue, manners=manners) as provider,
        market_client.logged_in(provider.url) as client,
    ):
        received = market_client.messages(client)
        until(lambda: next(received) and provider.report().clients[0].pongs >= 2, "two pongs")


def test_pings_are_answered_with_their_payload_amid_trades():
    playback = StockPlayback(sessions.steady(rate=200_000), bank=2000)
    with Provider(playback, MassiveDialogue) as provider, market_client.logged_in(provider.url) as client:
        client.ping(b"are you there")
        assert (10, b"are you there") in market_client.messages(client)


def test_a_close_is_answered_at_once_amid_trades():
    playback = StockPlayback(sessions.steady(rate=200_000), bank=2000)
    with Provider(playback, MassiveDialogue) as provider, market_client.logged_in(provider.url) as client:
        client.send_close(1000)
        *_, (_, close) = market_client.messages(client)
        assert market_client.close_code(close) == 1000
        until(lambda: provider.report().clients[0].ended, "the end")
        assert provider.report().clients[0].ended == "client closed: code=1000"


def test_a_client_that_breaks_the_protocol_is_closed_with_1002():
    with Provider(endless(), MassiveDialogue) as provider, market_client.logged_in(provider.url) as client:
        client.sock.sendall(b"\x81\x02hi")
        *_, (_, close) = market_client.messages(client)
        assert market_client.close_code(close) == 1002


def test_messages_of_a_client_may_come_in_fragments():
    with (
        Provider(market(), MassiveDialogue) as provider,
        market_client.connected(provider.url) as client,
    ):
        client.recv()
        for data, opcode, fin in ((b'{"action":"auth",', 1, 0), (b'"params":', 0, 0), (b'"k"}', 0, 1)):
            client.send_frame(websocket.ABNF(fin=fin, opcode=opcode, mask_value=1, data=data))
        assert market_client.statuses(client.recv()) == ["auth_success"]


def test_a_slow_consumer_is_told_so_and_cut_off():
    playback = StockPlayback(sessions.steady(rate=400_000), bank=2000)
    manners = Manners(buffer_limit=1 << 20)
    with Provider(playback, MassiveDialogue, manners=manners) as provider:
        with market_client.logged_in(provider.url, buffer=1 << 16) as client:
            report = provider.report().clients[0]
            until(lambda: report.ended, "the cut")
            assert report.ended == "slow consumer"
            *trades, (_, slow), (_, forced), (_, close) = market_client.messages(client)
        assert market_client.statuses(slow) == ["slow_consumer"]
        assert market_client.statuses(forced) == ["force_disconnect"]
        assert market_client.close_code(close) == 1008
        until(lambda: not provider.backlog(), "the rest to be sent")
        assert sum(len(json.loads(data)) for _, data in trades) == report.trades
        assert report.dropped > 0
        assert not report.finished


def test_a_patient_provider_waits_for_a_slow_consumer_and_loses_nothing():
    playback = StockPlayback(sessions.steady(rate=400_000), trades=60_000, bank=2000)
    with Provider(playback, MassiveDialogue, manners=Manners(buffer_limit=0, close_at_end=True)) as provider:
        with market_client.logged_in(provider.url, buffer=1 << 16) as client:
            until(lambda: provider.backlog() > 100_000, "a backlog")
            assert sum(1 for _ in market_client.objects(client)) == 60_000
        assert provider.report().clients[0].dropped == 0


def test_stop_says_goodbye_with_1001():
    with Provider(endless(), MassiveDialogue) as provider, market_client.logged_in(provider.url) as client:
        stopping = threading.Thread(target=provider.stop)
        stopping.start()
        *_, (_, close) = market_client.messages(client)
        assert market_client.close_code(close) == 1001
    stopping.join()
    assert provider.report().clients[0].ended == "stopped"


def test_stop_does_not_wait_for_a_client_that_does_not_read():
    playback = StockPlayback(sessions.full_speed(), bank=2000)
    with Provider(playback, MassiveDialogue) as provider, market_client.logged_in(provider.url):
        until(provider.backlog, "a backlog")
        provider.stop(timeout=0.2)
        assert provider.report().clients[0].ended == "stopped"


def test_a_client_that_resets_the_connection_ends_only_its_own():
    with Provider(endless(), MassiveDialogue) as provider, market_client.logged_in(provider.url, "steady") as steady:
        with market_client.logged_in(provider.url, "gone") as gone:
            gone.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.sock.close()
            gone.sock = None
        until(lambda: provider.report().clients[1].ended, "the lost one's end")
        assert json.loads(steady.recv())[0]["ev"] == "T"


def test_each_client_that_had_the_whole_playback_is_announced_once():
    with Provider(market(200), MassiveDialogue, manners=Manners(ping_every=0.01)) as provider:
        for key in ("one", "two"):
            with market_client.logged_in(provider.url, key) as client:
                assert json.loads(client.recv())[0]["ev"] == "T"
                assert provider.finished.wait(20)
                provider.finished.clear()
                answered = provider.report().clients[-1].pongs
                received = market_client.messages(client)
                until(lambda: next(received) and provider.report().clients[-1].pongs > answered, "more pings")  # noqa: B023
                assert not provider.finished.is_set()


def test_a_taken_port_is_a_clear_error():
    with Provider(market(), MassiveDialogue) as provider:
        with pytest.raises(UserError, match=f"127.0.0.1 port {provider.port}: Address already in use") as refusal:
            Provider(market(), MassiveDialogue, port=provider.port).start()
        assert refusal.value.code == 3


def test_sent_log_names_every_block_with_a_time_before_it_was_received(tmp_path):
    log = SentLog(tmp_path / "sent.csv")
    with (
        Provider(market(), MassiveDialogue, manners=ONCE, sent_log=log) as provider,
        market_client.logged_in(provider.url) as client,
    ):
        trades = sum(1 for _ in market_client.objects(client))
    log.close()
    header, *lines = (tmp_path / "sent.csv").read_text().splitlines()
    assert header == "client,first,trades,monotonic_ns"
    rows = [tuple(map(int, line.split(","))) for line in lines]
    assert sum(count for _, _, count, _ in rows) == trades
    assert all(first + count == following for (_, first, count, _), (_, following, _, _) in itertools.pairwise(rows))
    assert [time for *_, time in rows] == sorted(time for *_, time in rows)


class Recording:
    paced = True

    def chunks(self):
        for number in range(3):
            data = server_frame(b'{"type":"match","product_id":"BTC-USD","n":%d}' % number) + server_frame(
                b"\x00\xff", opcode=2
            )
            yield Prepared(number / 100, Block(data, 2, 1))


@pytest.mark.parametrize("dialogue", [Dialogue, CoinbaseDialogue])
def test_a_prepared_playback_is_played_as_it_is(dialogue):
    with Provider(Recording(), dialogue, manners=ONCE) as provider:
        with market_client.connected(provider.url) as client:
            if dialogue is CoinbaseDialogue:
                client.send('{"type":"subscribe","channels":["matches"],"product_ids":["BTC-USD"]}')
                assert json.loads(client.recv())["type"] == "subscriptions"
            *played, (_, close) = market_client.messages(client)
        matches = [(1, b'{"type":"match","product_id":"BTC-USD","n":%d}' % number) for number in range(3)]
        assert played == [message for match in matches for message in (match, (2, b"\x00\xff"))]
        assert market_client.close_code(close) == 1000
        until(provider.finished.is_set, "the end of the playback")
        assert provider.report().trades == 3


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_frames_have_the_shortest_length_form(length):
    data = server_frame(b"x" * length)
    assert len(data) - length == (2 if length < 126 else 4 if length < 65536 else 10)
    assert data.endswith(b"x" * length)
