"""Topics change over the live connection: new ones are asked for before old ones are let go."""

import dataclasses
import json
import threading

import pytest

from tests.upstream import feed, massive_login, owner, provider, status
from tradebal.upstream.credentials import Credentials
from tradebal.upstream.link import Phase
from tradebal.upstream.profiles import PROFILES

SENT = {
    "massive": {"action": "subscribe", "params": "A,B"},
    "alpaca": {"action": "subscribe", "trades": ["A", "B"]},
    "coinbase": {"type": "subscribe", "channels": ["matches"], "product_ids": ["A", "B"]},
    "kraken": {"method": "subscribe", "params": {"channel": "trade", "symbol": ["A", "B"], "snapshot": False}},
}


@pytest.mark.parametrize("name", PROFILES)
def test_each_profile_says_how_to_ask_for_more_and_for_less(name):
    profile = PROFILES[name]
    credentials = Credentials(None, [], (), name).for_topics(("A", "B"))
    assert json.loads(credentials.message(profile.add)) == SENT[name]
    less = json.loads(credentials.message(profile.remove))
    assert "unsubscribe" in less.values()


def test_a_live_connection_is_told_the_difference():
    heard = []

    def dialogue(connection):
        for topic in massive_login(connection):
            connection.send(status("success", f"subscribed to: {topic}"))
        heard.extend(json.loads(message) for message in connection)

    with provider(dialogue) as url, owner(url, subscribe=("T.A", "T.B")) as client:
        client.run_until_phase(Phase.LIVE)
        client.link.reconfigure(feed(url, subscribe=("T.B", "T.C")))
        client.run_until(lambda: len(heard) == 2, "both messages")
        client.stop()
    assert heard == [{"action": "subscribe", "params": "T.C"}, {"action": "unsubscribe", "params": "T.A"}]


def test_a_change_during_login_is_told_once_it_is_through():
    heard = []

    def dialogue(connection):
        topics = massive_login(connection)
        assert changed.wait(20)
        for topic in topics:
            connection.send(status("success", f"subscribed to: {topic}"))
        heard.extend(json.loads(message) for message in connection)

    changed = threading.Event()
    with provider(dialogue) as url, owner(url, subscribe=("T.A",)) as client:
        client.run_until_phase(Phase.LOGIN)
        client.link.reconfigure(dataclasses.replace(feed(url), subscribe=("T.B",)))
        changed.set()
        client.run_until(lambda: len(heard) == 2, "both messages")
        client.stop()
    assert [message["action"] for message in heard] == ["subscribe", "unsubscribe"]
