"""Objects that nobody wants: skipped in the router, counted, and no event, while notices still reach the owner."""

from dataclasses import replace

import pytest

from tests.frames import text
from tests.routing import KRAKEN, STOCKS, drive, feed
from tradebal.config import Feed
from tradebal.router.interface import SKIPPED_SAMPLE_SIZE, Status
from tradebal.upstream.profiles import PROFILES, resolve

SKIPPING = replace(STOCKS, notice_values=(b"status",))
TRADE = b'{"ev":"T","sym":"A"}'
QUOTE = b'{"ev":"Q","sym":"A","bp":1}'
NOTICE = b'{"ev":"status","message":"Connected"}'


def test_unwanted_objects_are_counted_and_make_no_event(make):
    outcome = drive(make(1, SKIPPING), [text(b"[" + b",".join([QUOTE, TRADE, QUOTE, NOTICE, TRADE, QUOTE]) + b"]")])
    assert outcome.messages == [NOTICE]
    assert outcome.trades() == [[TRADE, TRADE]]
    assert (outcome.counters.skipped, outcome.counters.trades, outcome.counters.rejects) == (3, 2, 0)


def test_without_notice_values_every_object_that_is_no_trade_is_an_event(make):
    outcome = drive(make(1, STOCKS), [text(b"[" + QUOTE + b"," + NOTICE + b"]")])
    assert outcome.messages == [QUOTE, NOTICE]
    assert outcome.counters.skipped == 0


@pytest.mark.parametrize("odd", [b'{"ev":1}', b'{"sym":"A"}', b"{}", b'{"ev":["Q"]}', b"1"])
def test_what_has_no_type_is_never_skipped(make, odd):
    assert drive(make(1, SKIPPING), [text(b"[" + odd + b"]")]).messages == [odd]


def test_a_notice_is_recognised_however_it_is_spelled(make):
    spelled = b'{"x":{"ev":"Q"},"\\u0065v" : "st\\u0061tus"}'
    assert drive(make(1, SKIPPING), [text(b"[" + spelled + b"]")]).messages == [spelled]


def test_a_whole_unwanted_envelope_is_one_skipped_object(make):
    envelope = b'{"channel":"ticker","data":[{"symbol":"A"},{"symbol":"B"}]}'
    outcome = drive(make(1, replace(KRAKEN, notice_values=())), [text(envelope)])
    assert outcome.events == []
    assert outcome.counters.skipped == 1


def test_the_skipped_sample_is_the_first_since_it_was_taken_and_bounded(make):
    router = make(1, SKIPPING)
    long = b'{"ev":"AM","x":"%s"}' % (b"y" * 1000)
    assert router.skipped_sample() == b""
    feed(router, text(b"[" + long + b"," + QUOTE + b"]"))
    assert router.process() is Status.INPUT
    assert router.skipped_sample() == long[:SKIPPED_SAMPLE_SIZE]
    assert router.skipped_sample() == b""
    feed(router, text(b"[" + QUOTE + b"]"))
    assert router.process() is Status.INPUT
    assert router.skipped_sample() == QUOTE


@pytest.mark.parametrize("name", PROFILES)
def test_all_that_a_profile_recognises_still_reaches_it(make, name):
    profile = resolve(Feed(profile=name))
    fields = [step.expect for step in profile.steps] + [trouble.fields for trouble in profile.troubles]
    objects = [b"{%s}" % b",".join(b'"%s":"%s"' % (k.encode(), v.encode()) for k, v in each.items()) for each in fields]
    assert drive(make(1, profile.rule), [text(b"[" + b",".join(objects) + b"]")]).messages == objects
    key = profile.rule.marker_key
    unknown = drive(make(1, profile.rule), [text(b'[{"%s":"unknown"}]' % key)])
    assert (unknown.events, unknown.counters.skipped) == ([], 1)


def test_alpacas_corrections_and_cancels_go_where_their_symbols_trades_go(make):
    kinds = [b'{"T":"%s","S":"AAPL"}' % kind for kind in (b"t", b"c", b"x")]
    outcome = drive(make(3, resolve(Feed(profile="alpaca")).rule), [text(b"[" + b",".join(kinds) + b"]")])
    assert sorted(outcome.trades(), key=len) == [[], [], kinds]
