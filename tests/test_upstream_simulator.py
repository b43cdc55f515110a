"""The link against our own simulated providers, which play each dialogue word for word."""

import functools

import pytest

from tests.upstream import Authority, owner
from tradebal.market import sessions
from tradebal.market.connection import Manners
from tradebal.market.dialogue import DIALOGUES, MassiveDialogue
from tradebal.market.server import Provider
from tradebal.market.stocks import StockPlayback
from tradebal.upstream.link import Phase

TRADES = 3000


def playback(rate=30_000.0, trades=TRADES):
    return StockPlayback(sessions.steady(rate=rate), trades=trades, bank=1000)


def test_every_trade_of_the_simulated_market_arrives_over_tls_and_its_end_is_named(tmp_path):
    authority = Authority(tmp_path)
    manners = Manners(close_at_end=True)
    with (
        Provider(playback(), MassiveDialogue, tls=authority.server("127.0.0.1"), manners=manners) as provider,
        owner(provider.url, ca_file=authority.file) as it,
    ):
        it.run_until_lost("closed")
        assert len(it.trades()) == provider.report().trades == TRADES
        assert it.link.connects == 1


@pytest.mark.parametrize("profile", ["massive", "alpaca", "coinbase", "kraken"])
def test_each_simulated_provider_lets_us_in(profile):
    with Provider(playback(), DIALOGUES[profile]) as provider, owner(provider.url, profile, key="key:secret") as it:
        it.run_until_phase(Phase.LIVE)


def test_wrong_key_is_refused():
    dialogue = functools.partial(MassiveDialogue, keys=["another"])
    with Provider(playback(), dialogue) as provider, owner(provider.url) as it:
        it.run_until_lost("refused_key")


def test_topic_beyond_the_market_is_not_authorized():
    with Provider(playback(), MassiveDialogue) as provider, owner(provider.url, subscribe=("T.*", "XT.*")) as it:
        it.run_until_lost("not_authorized")


@pytest.mark.parametrize("evict", ["newest", "oldest"])
def test_second_connection_of_an_account_costs_one_of_the_two_and_says_so(evict):
    with (
        Provider(playback(rate=100), MassiveDialogue, manners=Manners(evict=evict)) as provider,
        owner(provider.url) as first,
        owner(provider.url) as second,
    ):
        first.run_until_phase(Phase.LIVE)
        second.run_until(lambda: second.link.connects or any(second.losses().values()), "the second's login")
        loser = second if evict == "newest" else first
        loser.run_until(lambda: loser.link.disconnects["connection_taken"], "the eviction")


def test_client_that_stops_reading_learns_that_it_was_too_slow():
    with (
        Provider(playback(rate=1e6, trades=10**7), MassiveDialogue, manners=Manners(buffer_limit=1 << 16)) as provider,
        owner(provider.url) as it,
    ):
        it.run_until(lambda: it.link.connects, "the login")
        it.reading = False
        it.run_until(lambda: any(client.ended for client in provider.report().clients), "the refusal")
        it.reading = True
        it.run_until(it.losses, "the loss")
        assert set(it.losses()) == {"slow_consumer"}
