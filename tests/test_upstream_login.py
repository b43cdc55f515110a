"""Each provider's login, played by a real server: answers are waited for, refusals are clear, retries in proportion."""

import json
import logging

import pytest

from tests.upstream import KEY, massive, massive_login, owner, provider, status
from tradebal.config import CustomFeed, LoginStep
from tradebal.errors import UserError
from tradebal.upstream.link import Phase

TRADE = b'{"ev":"T","sym":"MSFT","p":1}'


@pytest.fixture(autouse=True)
def _all_logs(caplog):
    caplog.set_level(logging.DEBUG, logger="tradebal.upstream")


def lines(caplog, level=logging.INFO):
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def wait_for_close(connection):
    for _ in connection:
        pass


def test_massive_login_goes_step_by_step_and_trades_flow():
    with provider(massive) as url, owner(url) as it:
        it.run_until(it.trades, "a trade")
        assert it.trades() == [TRADE]
        assert it.link.connected
        assert it.link.connects == 1
        assert it.happened == ["opened", "live"]


def test_profile_polygon_logs_in_as_massive_and_the_log_says_so(caplog):
    with provider(massive) as url, owner(url, "polygon") as it:
        it.run_until(it.trades, "a trade")
    assert "profile: polygon is understood as massive" in lines(caplog)
    assert any("live: profile=massive" in line for line in lines(caplog))


def test_the_key_is_not_sent_before_the_provider_greets():
    def silent(connection):
        with pytest.raises(TimeoutError):
            connection.recv(timeout=0.2)
        massive(connection)

    with provider(silent) as url, owner(url) as it:
        it.run_until_phase(Phase.LIVE)


def test_several_answers_in_one_message_are_each_taken():
    def hasty(connection):
        connection.send(
            '[{"ev":"status","status":"connected","message":"Connected Successfully"},'
            '{"ev":"status","status":"auth_success","message":"authenticated"}]'
        )
        assert json.loads(connection.recv())["action"] == "auth"
        assert json.loads(connection.recv())["action"] == "subscribe"
        connection.send(f'[{{"ev":"status","status":"success","message":"subscribed to: T.*"}},{TRADE.decode()}]')
        wait_for_close(connection)

    with provider(hasty) as url, owner(url) as it:
        it.run_until(it.trades, "a trade")
        assert it.link.connected


def test_each_topic_is_awaited_and_trades_before_the_last_answer_are_routed():
    def slow(connection):
        assert massive_login(connection) == ["T.MSFT", "T.SPY"]
        connection.send(status("success", "subscribed to: T.MSFT"))
        connection.send(f"[{TRADE.decode()}]")
        assert connection.recv() == "go on"
        connection.send(status("success", "subscribed to: T.SPY"))
        wait_for_close(connection)

    with provider(slow) as url, owner(url, subscribe=("T.MSFT", "T.SPY")) as it:
        it.run_until(it.trades, "a trade")
        assert it.link.phase is Phase.LOGIN
        it.link.connection.send_text("go on")
        it.run_until_phase(Phase.LIVE)


def test_one_unanswered_topic_of_several_does_not_cost_the_connection(caplog):
    def forgetful(connection):
        assert massive_login(connection) == ["T.MSFT", "T.NOSUCH"]
        connection.send(status("success", "subscribed to: T.MSFT"))
        connection.send(f"[{TRADE.decode()}]")
        wait_for_close(connection)

    topics = ("T.MSFT", "T.NOSUCH")
    with provider(forgetful) as url, owner(url, subscribe=topics, login_timeout=60.0, ping_interval=600.0) as it:
        it.run_until(it.trades, "a trade")
        assert it.link.phase is Phase.LOGIN
        it.advance(60)
        it.run_until_phase(Phase.LIVE)
        assert it.link.topics == (2, 1)
        assert not it.losses()
    (line,) = lines(caplog, logging.WARNING)
    assert "unanswered=T.NOSUCH" in line


def test_messages_that_nobody_waits_for_are_ignored():
    def chatty(connection):
        connection.send('["a string", 7, null]')
        connection.send("plain text")
        connection.send(b"\x00\xff")
        connection.send('[{"ev":"status","status":"news","message":"maintenance on Sunday"}]')
        massive(connection)

    with provider(chatty) as url, owner(url) as it:
        it.run_until_phase(Phase.LIVE)


@pytest.mark.parametrize(
    ("answer", "reason", "advice"),
    [
        (status("auth_failed", "authentication failed"), "refused_key", "check the feed key"),
        (status("error", "authentication failed"), "refused_key", "check the feed key"),
        (status("auth_timeout", "No authentication request received."), "login_timeout", "network path"),
        (status("error", "You are not authorized to access this."), "not_authorized", "feed.subscribe"),
        (status("error", "invalid action"), "error", "feed.subscribe"),
    ],
)
def test_refused_login_is_a_clear_error_and_a_slow_retry(caplog, answer, reason, advice):
    def refuse(connection):
        connection.send(status("connected", "Connected Successfully"))
        connection.recv()
        connection.send(answer)
        wait_for_close(connection)

    with provider(refuse) as url, owner(url) as it:
        it.run_until_lost(reason)
        (line,) = lines(caplog, logging.ERROR)
        assert f"reason={reason}" in line
        assert advice in line
        assert json.loads(answer)[0]["message"] in line
        assert 30 <= float(line.rpartition("trying again in ")[2].split()[0]) <= 60
        assert it.link.next_deadline() - it.now() > 20
        it.advance(60)
        it.run_until(lambda: it.happened.count("opened") == 2, "the next try")


def test_topic_without_right_is_a_clear_error_and_a_slow_retry(caplog):
    def refuse(connection):
        massive_login(connection)
        connection.send(status("error", "not authorized to subscribe to T.*"))
        wait_for_close(connection)

    with provider(refuse) as url, owner(url) as it:
        it.run_until_lost("not_authorized")
        (line,) = lines(caplog, logging.ERROR)
        assert "the account has no right to this data" in line


def test_taken_connection_is_named_even_after_login_and_subscription_succeeded(caplog):
    def evict(connection):
        massive_login(connection)
        connection.send(status("success", "subscribed to: T.*"))
        connection.send(status("max_connections", "Maximum number of connections exceeded."))
        connection.close(1008, "")

    with provider(evict) as url, owner(url) as it:
        it.run_until_lost("connection_taken")
        assert it.link.connects == 1
        (line,) = lines(caplog, logging.WARNING)
        assert "another process holds this account's one connection" in line
        it.run_until(lambda: it.link.disconnects["connection_taken"] >= 3, "further tries")
        tries = [line.rpartition("attempt ")[2] for line in lines(caplog, logging.WARNING)]
        assert tries[:3] == ["2)", "3)", "4)"], "a login that succeeds must not reset the backoff"


@pytest.mark.parametrize("name", ["slow_consumer", "force_disconnect"])
def test_what_the_provider_names_before_it_closes_is_the_reason_of_the_loss(caplog, name):
    def evict(connection):
        massive_login(connection)
        connection.send(status("success", "subscribed to: T.*"))
        connection.send(status(name, "bye"))
        connection.send(f"[{TRADE.decode()}]")
        connection.close(1008, "policy")

    with provider(evict) as url, owner(url) as it:
        it.run_until_lost(name)
        warned, lost = lines(caplog, logging.WARNING)[:2]
        assert f"reason={name}" in warned
        assert "code=1008 (policy violation)" in lost
        assert it.trades() == [TRADE], "what comes between warning and close is good"


def test_login_without_answer_times_out_and_shows_what_was_heard_last(caplog):
    def mute(connection):
        connection.send(status("connected", "Connected Successfully"))
        connection.recv()
        connection.send('[{"ev":"status","status":"hm","message":"one moment"}]')
        wait_for_close(connection)

    with provider(mute) as url, owner(url, login_timeout=60.0, ping_interval=600.0) as it:
        it.run_until(lambda: any(b"one moment" in data for data in it.messages()), "the last message")
        it.advance(30)
        it.turn()
        assert it.link.phase is Phase.LOGIN
        it.advance(30)
        it.run_until_lost("login_timeout")
        (line,) = lines(caplog, logging.WARNING)
        assert "waits for ev=status, status=auth_success" in line
        assert "one moment" in line


def test_alpaca_gets_key_and_secret_and_subscribes_to_all_trades():
    def alpaca(connection):
        connection.send('[{"T":"success","msg":"connected"}]')
        assert json.loads(connection.recv()) == {"action": "auth", "key": "PK1", "secret": 's3:"x'}
        connection.send('[{"T":"success","msg":"authenticated"}]')
        assert json.loads(connection.recv()) == {"action": "subscribe", "trades": ["*"]}
        connection.send('[{"T":"subscription","trades":["*"],"quotes":[]}]')
        connection.send('[{"T":"t","S":"AAPL","p":1.0},{"T":"c","S":"AAPL"}]')
        wait_for_close(connection)

    with provider(alpaca, path="/v2/sip") as url, owner(url, "alpaca", key='PK1:s3:"x') as it:
        it.run_until(it.trades, "a trade")
        assert it.trades() == [b'{"T":"t","S":"AAPL","p":1.0}', b'{"T":"c","S":"AAPL"}']
        assert it.link.connected


@pytest.mark.parametrize(
    ("code", "said", "reason", "level"),
    [
        (400, "invalid syntax", "error", logging.ERROR),
        (401, "not authenticated", "error", logging.ERROR),
        (402, "auth failed", "refused_key", logging.ERROR),
        (404, "auth timeout", "login_timeout", logging.ERROR),
        (405, "symbol limit exceeded", "symbol_limit", logging.ERROR),
        (406, "connection limit exceeded", "connection_taken", logging.WARNING),
        (408, "v2 not enabled", "not_authorized", logging.ERROR),
        (409, "insufficient subscription", "not_authorized", logging.ERROR),
        (410, "invalid subscribe action for this feed", "not_authorized", logging.ERROR),
        (411, "insufficient scope", "not_authorized", logging.ERROR),
        (412, "only msgpack", "error", logging.ERROR),
        (500, "internal error", "error", logging.WARNING),
        (599, "something new", "error", logging.ERROR),
    ],
)
def test_alpaca_error_codes_say_what_is_wrong(caplog, code, said, reason, level):
    def refuse(connection):
        connection.send('[{"T":"success","msg":"connected"}]')
        connection.recv()
        connection.send(json.dumps([{"T": "error", "code": code, "msg": said}]))
        wait_for_close(connection)

    with provider(refuse) as url, owner(url, "alpaca", key="a:b") as it:
        it.run_until_lost(reason)
        (line,) = lines(caplog, level)
        assert said in line


def test_coinbase_subscribes_at_once_and_needs_no_key():
    def coinbase(connection):
        assert json.loads(connection.recv()) == {
            "type": "subscribe",
            "channels": ["matches"],
            "product_ids": ["BTC-USD", "ETH-USD"],
        }
        connection.send('{"type":"last_match","product_id":"BTC-USD"}')
        connection.send('{"type":"subscriptions","channels":[]}')
        connection.send('{"type":"match","product_id":"ETH-USD"}')
        wait_for_close(connection)

    with provider(coinbase, path="/") as url, owner(url, "coinbase", key=None) as it:
        it.run_until(lambda: len(it.trades()) == 2, "both trades")
        assert it.link.connected


def test_coinbase_error_shows_its_reason(caplog):
    def coinbase(connection):
        connection.recv()
        connection.send('{"type":"error","message":"Failed to subscribe","reason":"XX-USD is not a valid product"}')
        wait_for_close(connection)

    with provider(coinbase) as url, owner(url, "coinbase", key=None) as it:
        it.run_until_lost("error")
        assert "XX-USD is not a valid product" in lines(caplog, logging.ERROR)[0]


def test_kraken_awaits_an_answer_for_each_symbol_and_routes_the_objects_inside():
    def kraken(connection):
        connection.send('{"channel":"status","type":"update","data":[{"system":"online"}]}')
        assert json.loads(connection.recv())["params"] == {
            "channel": "trade",
            "symbol": ["BTC/USD", "ETH/USD"],
            "snapshot": False,
        }
        for symbol in ("BTC/USD", "ETH/USD"):
            result = {"channel": "trade", "symbol": symbol, "snapshot": False}
            connection.send(json.dumps({"method": "subscribe", "result": result, "success": True}))
        connection.send('{"channel":"heartbeat"}')
        connection.send('{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","qty":1}]}')
        wait_for_close(connection)

    with provider(kraken) as url, owner(url, "kraken", key=None) as it:
        it.run_until(it.trades, "a trade")
        assert it.trades() == [b'{"symbol":"BTC/USD","qty":1}']
        assert it.link.connected


def test_kraken_refusal_shows_its_error(caplog):
    def kraken(connection):
        connection.recv()
        connection.send('{"method":"subscribe","success":false,"error":"Currency pair not supported XBT/USD"}')
        wait_for_close(connection)

    with provider(kraken) as url, owner(url, "kraken", key=None) as it:
        it.run_until_lost("error")
        assert "Currency pair not supported XBT/USD" in lines(caplog, logging.ERROR)[0]


def test_custom_provider_is_described_by_configuration_alone():
    custom = CustomFeed(
        trade_key="kind",
        trade_values=("print", "block"),
        symbol_key="ticker",
        trades_in="items",
        login=(
            LoginStep(send='{"hello":1}'),
            LoginStep(expect={"ready": True, "version": 2}, send='{"user":"{key}","pass":"{secret}"}'),
            LoginStep(expect={"ok": "yes"}, send='{"want":"{subscribe}","each":{subscribe_list}}'),
        ),
    )

    def custom_provider(connection):
        assert connection.request.headers["X-Key"] == "me"
        assert connection.request.path == "/feed?token=me&topics=A%2CB"
        assert connection.recv() == '{"hello":1}'
        connection.send('{"ready":false,"version":2}')
        connection.send('{"ready":true,"version":2}')
        assert json.loads(connection.recv()) == {"user": "me", "pass": "top:secret"}
        connection.send('{"ok":"yes"}')
        assert json.loads(connection.recv()) == {"want": "A,B", "each": ["A", "B"]}
        connection.send('{"kind":"block","items":[{"ticker":"A"},{"ticker":"B"}]}')
        wait_for_close(connection)

    options = {"custom": custom, "subscribe": ("A", "B"), "headers": {"X-Key": "{key}"}}
    with (
        provider(custom_provider, path="/feed?token={key}&topics={subscribe}") as url,
        owner(url, "custom", key="me:top:secret", **options) as it,
    ):
        it.run_until(it.trades, "trades")
        assert it.trades() == [b'{"ticker":"A"}', b'{"ticker":"B"}']
        assert it.link.connected


@pytest.mark.parametrize("profile", ["massive", "alpaca"])
def test_missing_key_is_refused_before_any_try_and_says_where_to_put_it(profile):
    with pytest.raises(UserError, match=profile) as caught, owner("ws://127.0.0.1:1", profile, key=None):
        pass
    assert caught.value.code == 2
    assert "feed-key" in caught.value.hint
    assert "TRADEBAL_FEED_KEY" in caught.value.hint


@pytest.mark.parametrize("key", ["nocolon", ":secret", "key:"])
def test_alpaca_key_without_its_secret_is_refused_before_any_try(key):
    with pytest.raises(UserError, match="KEY:SECRET") as caught, owner("ws://127.0.0.1:1", "alpaca", key=key):
        pass
    assert key not in str(caught.value)


def test_key_with_a_line_break_is_refused_without_showing_it():
    with pytest.raises(UserError, match="line break") as caught, owner("ws://127.0.0.1:1", key=f"{KEY}\nX"):
        pass
    assert KEY not in str(caught.value) + caught.value.hint
