"""A running balancer takes over what it can of a changed configuration, and names what has to wait."""

import dataclasses
import signal

from tests.system import System
from tests.test_system import SYMBOLS, Numbered, Steady, provider
from tests.waiting import until
from tradebal.balancer.reload import compare
from tradebal.config import Config, parse


def changed(text):
    return parse(text.encode(), "changed")


def test_what_can_be_taken_over_is_and_the_rest_is_named():
    after = changed(
        '[feed]\nsubscribe = ["T.F"]\nping_timeout = 3\n[shards]\ncount = 3\npin = { F = 0 }\n[log]\nlevel = "error"'
    )
    reload = compare(Config(), after)
    assert reload.taken == ["feed.subscribe", "feed.ping_timeout", "shards.pin", "log.level"]
    assert reload.waiting == ["shards.count"]
    assert reload.config.feed == after.feed
    assert reload.config.shards == dataclasses.replace(Config().shards, pin={"F": 0})


def test_pins_to_shards_that_are_not_there_yet_wait_for_them():
    before, after = changed("[shards]\ncount = 3"), changed("[shards]\ncount = 5\npin = { F = 0, SPY = 4 }")
    assert compare(before, after).waiting == ["shards.count", "shards.pin"]


def test_what_waits_is_named_again_at_the_next_reload():
    after = changed("[shards]\ncount = 3\n")
    assert compare(compare(Config(), after).config, after).waiting == ["shards.count"]


def test_the_same_configuration_changes_nothing():
    assert compare(Config(), dataclasses.replace(Config())) == (Config(), [], [])


def test_sighup_changes_subscriptions_over_the_same_connection(tmp_path):
    with provider(Numbered(100)) as serving, System(tmp_path, serving.url, feed='subscribe = ["T.*"]') as system:
        system.start_all()
        balancer = system.processes["balancer"]
        system.wait_for("tradebal_worker_trades_total", 100)
        system.config.write_text(
            system.config.read_text().replace('"T.*"', '"T.F", "T.SPY"').replace("64KiB", "128KiB")
        )
        balancer.send_signal(signal.SIGHUP)
        until(lambda: "taken_over=feed.subscribe" in system.log("balancer"), "the reload")
        assert "not taken over=shards.pipe_size: restart" in system.log("balancer")
        system.config.write_text("[feed]\nbroken\n")
        balancer.send_signal(signal.SIGHUP)
        until(lambda: "reload refused, nothing was changed" in system.log("balancer"), "the refusal")
        assert system.stop("balancer") == 0
        assert system.value("tradebal_connects_total") == 1
        assert system.value("tradebal_disconnects_total") == 0


def test_sighup_moves_symbols_to_the_shards_that_they_are_pinned_to_over_the_same_connection(tmp_path):
    # All of the tape's symbols go to one shard before, and to the other one behind.
    pins = ["pin = { " + ", ".join(f"'{symbol.decode()}' = {shard}" for symbol in SYMBOLS) + " }" for shard in (0, 1)]
    with provider(Steady(1000, 30)) as serving, System(tmp_path, serving.url, shards=pins[0]) as system:
        system.start_all()
        system.wait_for("tradebal_worker_trades_total", 1000, shard="0")
        system.config.write_text(system.config.read_text().replace(pins[0], pins[1]))
        system.processes["balancer"].send_signal(signal.SIGHUP)
        system.wait_for("tradebal_worker_trades_total", 1000, shard="1")
        assert "taken_over=shards.pin" in system.log("balancer")
        assert system.value("tradebal_connects_total") == 1
        system.stop_all()
        before, behind = system.audits()
        assert (before["first"], before["last"] + 1) == (1, behind["first"])
        assert before["disordered"] == behind["disordered"] == 0
