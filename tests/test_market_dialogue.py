import json

import pytest

from tradebal.market.dialogue import DIALOGUES, AlpacaDialogue, CoinbaseDialogue, KrakenDialogue, MassiveDialogue


def say(dialogue, **message) -> list:
    return [json.loads(answer) for answer in dialogue.received(json.dumps(message))]


def opened(keys=()) -> MassiveDialogue:
    dialogue = MassiveDialogue(keys=keys)
    dialogue.opened()
    return dialogue


def subscribed(topics: str) -> MassiveDialogue:
    dialogue = opened()
    say(dialogue, action="auth", params="key")
    say(dialogue, action="subscribe", params=topics)
    return dialogue


def test_massive_login_and_subscription_word_for_word():
    dialogue = MassiveDialogue()
    assert dialogue.paths == ("/stocks",)
    assert dialogue.opened() == ['[{"ev":"status","status":"connected","message":"Connected Successfully"}]']
    assert not dialogue.logged_in
    assert dialogue.received('{"action":"auth","params":"key"}') == [
        '[{"ev":"status","status":"auth_success","message":"authenticated"}]'
    ]
    assert dialogue.logged_in
    assert not dialogue.playing
    assert dialogue.received('{"action":"subscribe","params":"T.*"}') == [
        '[{"ev":"status","status":"success","message":"subscribed to: T.*"}]'
    ]
    assert dialogue.playing
    assert dialogue.wanted is None
    assert dialogue.account == "key"


def test_massive_refuses_a_wrong_and_an_empty_key():
    for dialogue, key in ((opened(["right"]), "wrong"), (opened(), "")):
        assert say(dialogue, action="auth", params=key) == [
            [{"ev": "status", "status": "auth_failed", "message": "authentication failed"}]
        ]
        assert dialogue.refused
        assert not dialogue.logged_in


def test_massive_answers_one_success_for_each_topic():
    dialogue = opened()
    say(dialogue, action="auth", params="key")
    (answer,) = say(dialogue, action="subscribe", params="T.AAPL, T.MSFT,Q.SPY")
    assert [entry["message"] for entry in answer] == [f"subscribed to: {t}" for t in ("T.AAPL", "T.MSFT", "Q.SPY")]
    assert dialogue.wanted == {"AAPL", "MSFT"}


def test_massive_other_channels_are_acknowledged_without_trades():
    dialogue = subscribed("Q.*,AM.AAPL")
    assert dialogue.wanted == set()
    assert dialogue.account == "key"


def test_massive_unknown_channels_are_refused():
    dialogue = opened()
    say(dialogue, action="auth", params="key")
    (answer,) = say(dialogue, action="subscribe", params="XT.*,T")
    assert [entry["status"] for entry in answer] == ["error", "error"]
    assert not dialogue.playing


def test_massive_unsubscribes_by_topic():
    dialogue = subscribed("T.*,T.AAPL")
    assert dialogue.wanted is None
    assert say(dialogue, action="unsubscribe", params="T.*") == [
        [{"ev": "status", "status": "success", "message": "unsubscribed to: T.*"}]
    ]
    assert dialogue.wanted == {"AAPL"}
    say(dialogue, action="unsubscribe", params="T.AAPL")
    assert dialogue.wanted == set()


@pytest.mark.parametrize(
    "message", ["", "nonsense", "[]", "{}", '{"action":"subscribe","params":"T.*"}', '{"action":5}']
)
def test_massive_answers_what_it_does_not_understand_or_allow_with_an_error(message):
    dialogue = opened()
    (answer,) = dialogue.received(message)
    assert json.loads(answer)[0]["status"] == "error"
    assert not dialogue.playing


def test_massive_last_words_name_the_reason():
    dialogue = opened()
    assert json.loads(dialogue.timed_out()[0])[0] == {
        "ev": "status",
        "status": "auth_timeout",
        "message": "No authentication request received.",
    }
    assert json.loads(dialogue.displaced()[0])[0]["status"] == "max_connections"
    assert [json.loads(words)[0]["status"] for words in dialogue.too_slow()] == ["slow_consumer", "force_disconnect"]


def test_alpaca_login_subscription_and_errors():
    dialogue = AlpacaDialogue(keys=[("key", "secret")])
    assert dialogue.opened() == ['[{"T":"success","msg":"connected"}]']
    assert say(dialogue, action="subscribe", trades=["*"])[0][0]["code"] == 401
    assert say(dialogue, action="auth", key="key", secret="secret") == [[{"T": "success", "msg": "authenticated"}]]
    assert say(dialogue, action="subscribe", trades=["AAPL"]) == [[{"T": "subscription", "trades": ["AAPL"]}]]
    assert dialogue.wanted == {"AAPL"}
    say(dialogue, action="subscribe", trades=["*"])
    assert dialogue.wanted is None
    assert json.loads(dialogue.displaced()[0])[0]["code"] == 406
    refused = AlpacaDialogue(keys=[("key", "secret")])
    assert say(refused, action="auth", key="key", secret="wrong")[0][0]["code"] == 402
    assert refused.refused


def test_coinbase_plays_the_subscribed_products():
    dialogue = CoinbaseDialogue()
    assert dialogue.opened() == []
    (answer,) = say(dialogue, type="subscribe", channels=["matches"], product_ids=["BTC-USD"])
    assert answer == {"type": "subscriptions", "channels": [{"name": "matches", "product_ids": ["BTC-USD"]}]}
    assert dialogue.playing
    assert dialogue.wanted == {"BTC-USD"}


def test_kraken_acknowledges_each_symbol():
    dialogue = KrakenDialogue()
    assert json.loads(dialogue.opened()[0])["channel"] == "status"
    answers = say(dialogue, method="subscribe", params={"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"]})
    assert [answer["result"]["symbol"] for answer in answers] == ["BTC/USD", "ETH/USD"]
    assert dialogue.wanted == {"BTC/USD", "ETH/USD"}


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("message", ["", "{", "[1]", "null", '{"action":"auth"}', '{"type":1}', '{"params":"x"}'])
def test_no_message_of_a_client_upsets_a_dialogue(name, message):
    dialogue = DIALOGUES[name]()
    dialogue.opened()
    for answer in dialogue.received(message):
        json.loads(answer)


def test_a_market_without_a_channel_refuses_its_topics_as_massive_does():
    dialogue = MassiveDialogue(channels=())
    dialogue.opened()
    say(dialogue, action="auth", params="key")
    (answer,) = say(dialogue, action="subscribe", params="Q.*,A.*,AM.*,LULD.*,T.*")
    assert [entry["status"] for entry in answer] == ["error"] * 4 + ["success"]
    assert answer[0]["message"] == "not authorized to subscribe to: Q.*"
