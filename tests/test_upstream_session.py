"""The login exchange without any I/O: it takes whatever a provider can send, and finishes only by the right answers."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.upstream import KEY
from tradebal.config import PROFILES as CONFIGURED
from tradebal.config import CustomFeed, Feed, LoginStep, Secret
from tradebal.errors import UserError
from tradebal.router.interface import Rule
from tradebal.upstream import proxies
from tradebal.upstream.credentials import Credentials
from tradebal.upstream.failures import REASONS
from tradebal.upstream.profiles import ALIASES, PROFILES, as_text, resolve
from tradebal.upstream.session import Outcome, Session


def session_of(feed, key=KEY):
    profile = resolve(feed)
    texts = [step.send for step in profile.steps]
    return Session(profile, Credentials(Secret(key), texts, profile.subscribe, profile.name), 10.0)


def status(name, message=""):
    return json.dumps({"ev": "status", "status": name, "message": message}).encode()


def test_deadline_moves_on_with_each_answer_and_goes_when_live():
    it = session_of(Feed(subscribe=("T.A", "T.B")))
    assert it.deadline() is None
    assert it.opened(100.0) == Outcome()
    assert it.deadline() == 110.0
    it.message(status("news"), 105.0)
    assert it.deadline() == 110.0, "what isn't awaited is no progress"
    assert it.message(status("connected"), 106.0).send == (
        json.dumps({"action": "auth", "params": KEY}, separators=(",", ":")),
    )
    assert it.deadline() == 116.0
    it.message(status("auth_success"), 107.0)
    it.message(status("success"), 108.0)
    assert it.deadline() == 118.0
    assert it.topics == (2, 1)
    assert it.message(status("success"), 109.0) == Outcome(live=True)
    assert it.deadline() is None


def subscribed(topic):
    return status("success", f"subscribed to: {topic}")


def test_topic_that_is_never_answered_costs_a_warning_that_names_it_and_not_the_others(caplog):
    it = session_of(Feed(subscribe=("T.A", "T.TYPO", "T.B")))
    it.opened(0.0)
    for message in (status("connected"), status("auth_success"), subscribed("T.A"), subscribed("T.B")):
        it.message(message, 1.0)
    assert not it.live
    assert it.expired(11.0) == Outcome(live=True)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "asked=3 answered=2 unanswered=T.TYPO:" in line
    assert it.deadline() is None
    assert it.topics == (3, 2)
    it.message(subscribed("T.TYPO"), 20.0)
    assert it.topics == (3, 3), "a late answer counts"


def test_login_without_any_answered_topic_fails():
    it = session_of(Feed(subscribe=("T.A", "T.B")))
    it.opened(0.0)
    it.message(status("connected"), 1.0)
    it.message(status("auth_success"), 1.0)
    assert it.expired(11.0).failure.reason == "login_timeout"


def test_topics_that_change_on_a_live_connection_are_counted_as_they_are_answered():
    it = session_of(Feed(subscribe=("T.A", "T.B")))
    it.opened(0.0)
    for message in (status("connected"), status("auth_success"), subscribed("T.A,T.B")):
        it.message(message, 1.0)
    assert it.live, "one answer may name them all"
    it.ask_for(("T.B", "T.C", "T.D"))
    assert it.topics == (3, 1)
    it.message(subscribed("T.D"), 2.0)
    assert it.topics == (3, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
STATUS_LIKE = st.fixed_dictionaries(
    {},
    optional={
        "ev": st.sampled_from(["status", "T", 1, None]),
        "T": st.sampled_from(["success", "error", "subscription", "t"]),
        "status": st.sampled_from(["connected", "auth_success", "success", "auth_failed", "error", "slow_consumer"])
        | JSON,
        "msg": st.sampled_from(["connected", "authenticated"]) | JSON,
        "message": JSON,
        "code": st.integers(395, 505) | JSON,
        "type": st.sampled_from(["subscriptions", "error"]) | JSON,
        "method": st.just("subscribe"),
        "success": st.booleans(),
    },
)


@given(
    st.sampled_from(sorted(PROFILES)),
    st.lists(st.binary(max_size=20) | (JSON | STATUS_LIKE).map(lambda v: json.dumps(v).encode()), max_size=12),
)
@settings(deadline=None, max_examples=120)
def test_no_message_is_too_strange(name, messages):
    it = session_of(Feed(profile=name), "key-k:secret-s")
    it.opened(0.0)
    for now, message in enumerate(messages):
        outcome = it.message(message, float(now))
        assert outcome.failure is None or outcome.failure.reason in REASONS
        assert not (outcome.live and outcome.failure)
        if outcome.failure:
            break
        assert (it.deadline() is None) == it.live


ANSWERS = [status("connected"), status("auth_success"), status("success")]


@given(st.lists(st.sampled_from(ANSWERS), max_size=8))
@settings(deadline=None, max_examples=60)
def test_login_finishes_only_by_the_answers_in_their_order(heard):
    it = session_of(Feed())
    it.opened(0.0)
    for message in heard:
        it.message(message, 1.0)
    rest = iter(heard)
    assert it.live == all(any(message == answer for message in rest) for answer in ANSWERS)


def test_warning_is_the_cause_of_a_loss_for_a_while_only():
    it = session_of(Feed())
    it.opened(0.0)
    assert it.named(0.0) is None
    assert it.message(status("slow_consumer", "too slow"), 50.0) == Outcome()
    assert it.named(60.0).reason == "slow_consumer"
    assert it.named(90.0) is None


def test_of_several_warnings_the_more_telling_one_counts():
    it = session_of(Feed())
    it.opened(0.0)
    for name in ("force_disconnect", "slow_consumer", "force_disconnect"):
        it.message(status(name), 1.0)
    assert it.named(2.0).reason == "slow_consumer"
    it.message(status("force_disconnect"), 100.0)
    assert it.named(101.0).reason == "force_disconnect"


def test_trouble_after_login_is_judged_by_its_kind():
    it = session_of(Feed())
    it.opened(0.0)
    for name in ("connected", "auth_success", "success"):
        it.message(status(name), 1.0)
    assert it.live
    assert it.message(status("error", "invalid action"), 2.0) == Outcome(), "no reason to lose the market"
    assert it.message(status("max_connections", "gone"), 3.0).failure.reason == "connection_taken"


# --- profiles


def test_configuration_and_profiles_know_the_same_names():
    assert {*PROFILES, *ALIASES, "custom"} == set(CONFIGURED)
    assert set(ALIASES.values()) <= set(PROFILES)


def test_polygon_is_massive_under_its_former_name():
    assert resolve(Feed(profile="polygon")) == resolve(Feed(profile="massive"))
    assert resolve(Feed(profile="polygon", url="wss://socket.polygon.io/crypto")).subscribe == ("XT.*",)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_profile_says_everything(profile):
    assert profile.url.startswith("wss://")
    assert profile.subscribe
    assert profile.steps[-1].expect, "the subscription must be answered"
    assert {trouble.reason for trouble in profile.troubles} <= set(REASONS)
    assert all(trouble.contains == trouble.contains.lower() for trouble in profile.troubles)


@pytest.mark.parametrize(
    ("path", "topic", "marker", "symbol"),
    [
        ("stocks", "T.*", b"T", b"sym"),
        ("options", "T.*", b"T", b"sym"),
        ("futures/cme", "T.*", b"T", b"sym"),
        ("crypto", "XT.*", b"XT", b"pair"),
        ("forex", "C.*", b"C", b"p"),
        ("indices", "V.*", b"V", b"T"),
    ],
)
def test_massive_market_follows_from_the_url(path, topic, marker, symbol):
    profile = resolve(Feed(url=f"wss://delayed.massive.com/{path}"))
    assert profile.subscribe == (topic,)
    assert profile.rule == Rule(b"ev", (marker,), symbol, notice_values=(b"status",))
    assert resolve(Feed(url=f"wss://delayed.massive.com/{path}", subscribe=("T.A",))).subscribe == ("T.A",)


def test_custom_feed_becomes_a_profile_like_any_other():
    custom = CustomFeed("k", ("a", "b"), "s", "in", login=(LoginStep(expect={"n": 1, "t": True, "s": "x"}, send="hi"),))
    profile = resolve(Feed(profile="custom", url="ws://x.test/", custom=custom))
    assert profile.rule == Rule(b"k", (b"a", b"b"), b"s", container=b"in")
    assert profile.steps[0].expect == {"n": "1", "t": "true", "s": "x"}


@pytest.mark.parametrize("missing", ["custom", "url"])
def test_custom_feed_needs_table_and_url(missing):
    given_ = {"custom": CustomFeed("k", ("a",), "s"), "url": "ws://x.test/"}
    del given_[missing]
    with pytest.raises(UserError, match=f"feed.{missing}"):
        resolve(Feed(profile="custom", **given_))


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (True, "true"), (False, "false"), (406, "406"), (1.5, "1.5"), (None, "null"), ([], None)],
)
def test_scalars_compare_as_their_json_text(value, text):
    assert as_text(value) == text


# --- credentials


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=4, max_size=30), st.text(max_size=20)
)
@settings(deadline=None, max_examples=200)
def test_key_arrives_intact_and_is_redacted_in_each_of_its_forms(key, around):
    credentials = Credentials(Secret(key), ["{key}"], (), "massive")
    sent = credentials.message('{"k":"{key}"}')
    assert json.loads(sent) == {"k": key}
    around = around.replace("*", "")
    for form in (key, json.dumps(key)[1:-1], json.dumps(key, ensure_ascii=False)[1:-1], credentials.url("{key}")):
        assert key not in credentials.show(f"{around}{form}{around}", 10_000).replace("***", "") or key in around


@given(st.binary(max_size=300), st.integers(1, 50))
@settings(deadline=None)
def test_what_a_provider_sent_is_shown_as_one_line_of_bounded_length(data, limit):
    shown = Credentials(None, [], (), "coinbase").show(data, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


def test_half_a_key_does_not_survive_the_cut():
    credentials = Credentials(Secret("0123456789"), ["{key}"], (), "massive")
    assert credentials.show("x" * 195 + "0123456789", 200) == "x" * 195 + "***"


def test_placeholders_in_the_key_are_not_filled_in():
    credentials = Credentials(Secret("{secret}:{key}"), ["{key}{secret}"], ("{key}",), "custom")
    assert credentials.message('["{key}","{secret}",{subscribe_list}]') == '["{secret}","{key}",["{key}"]]'


def test_whole_key_is_used_where_no_secret_is_wanted():
    assert Credentials(Secret("a:b"), ["{key}"], (), "massive").header("{key}") == "a:b"


# --- proxies


@pytest.fixture
def environment(monkeypatch):
    def put(**variables):
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def find(host="x.test", port=443, secure=True):
    return proxies.find(host, port, secure=secure)


def test_proxy_is_chosen_by_scheme(environment):
    environment(https_proxy="http://p1.test:8080", http_proxy="p2.test", all_proxy="socks5h://u:p%40@[::1]:9")
    assert (find().place, find().kind, find().variable) == ("p1.test:8080", "http", "https_proxy")
    assert (find(secure=False).place, find(secure=False).variable) == ("p2.test:80", "http_proxy")
    environment(ALL_PROXY="socks5h://u:p%40@[::1]:9")
    assert (find().place, find().kind, find().auth) == ("[::1]:9", "socks5h", ("u", "p@"))
    assert "p@" not in repr(find())
    environment()
    assert find() is None


@pytest.mark.parametrize("no_proxy", ["x.test", ".test", "x.test:443", "*"])
def test_no_proxy_excepts(environment, no_proxy):
    environment(https_proxy="http://p.test:8080", no_proxy=no_proxy)
    assert find() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_never_behind_a_proxy(environment, host):
    environment(https_proxy="http://p.test:8080")
    assert find(host) is None
