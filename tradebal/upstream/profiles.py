"""Everything that tells one provider from another, as data: a new feed is a new `Profile` value and no new code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from tradebal.config import CustomFeed, Feed
from tradebal.errors import UserError
from tradebal.router.interface import Rule

if TYPE_CHECKING:  # workers read profiles too, and need no TLS
    from tradebal.upstream.failures import Retry


@dataclass(frozen=True)
class Step:
    """One step of a login exchange: wait for a received object with all `expect` fields, then send `send`.

    Fields compare as text ("true" for true, "406" for 406). Without `expect` the step doesn't wait; without `send`
    nothing is sent. `each_topic`: the provider answers each topic by itself, so as many objects are awaited.
    """

    expect: Mapping[str, str]
    send: str = ""
    each_topic: bool = False


@dataclass(frozen=True)
class Trouble:
    """What a received object means that is no good news.

    `fields` must all match, and `contains` (lower case) must occur somewhere in it. `reason` is the metrics label,
    `text` says what it is and what to do. `during`: "any" ends the connection at once; "login" does so only while
    logging in, and is a warning later; "never" only warns, and names the cause if the provider closes next. Of several
    that match one object, or are named one after the other, the profile's first one counts.
    """

    fields: Mapping[str, str]
    reason: str
    text: str
    retry: Retry = "slow"
    contains: str = ""
    during: Literal["any", "login", "never"] = "any"


@dataclass(frozen=True)
class Variant:
    """What differs where the URL's path has the segment `path`: one provider's further markets."""

    path: str
    subscribe: tuple[str, ...]
    rule: Rule


@dataclass(frozen=True)
class Profile:
    """How to reach a provider, log in, subscribe, and find the trades in what it sends."""

    name: str
    url: str
    subscribe: tuple[str, ...]
    steps: tuple[Step, ...]
    rule: Rule
    time_key: str = ""
    """Key of a trade that holds its time, in any form that tradebal.stream.trade_time knows; empty: it has none."""
    troubles: tuple[Trouble, ...] = ()
    variants: tuple[Variant, ...] = ()
    add: str = ""
    """Sent on a live connection to subscribe to more; "" where topics can't be changed on it."""
    remove: str = ""
    """Sent likewise to subscribe to less."""


_TAKEN = (
    "another process holds this account's one connection; stop that process, or give this one a key of its own: "
    "until then each try may cut the other off"
)
_REFUSED = "the provider refused the key; check the feed key, and whether it was replaced or has expired"
_NOT_ALLOWED = "the account has no right to this data; check feed.url and feed.subscribe against the provider's plan"
_TOO_SLOW = "the provider says that its data isn't taken fast enough; look at the network path and this machine's load"
_NOT_UNDERSTOOD = "the provider didn't accept what we sent; check feed.url and feed.subscribe"

_MASSIVE_STOCKS = Rule(marker_key=b"ev", marker_values=(b"T",), symbol_key=b"sym")

MASSIVE = Profile(
    # https://massive.com/docs/websocket/quickstart and /stocks/trades, /crypto/trades, /forex/quotes, /indices/value.
    # Statuses that those pages leave out are known from the provider's public clients and from connections seen.
    name="massive",
    url="wss://socket.massive.com/stocks",
    subscribe=("T.*",),
    steps=(
        Step({"ev": "status", "status": "connected"}, '{"action":"auth","params":"{key}"}'),
        Step({"ev": "status", "status": "auth_success"}, '{"action":"subscribe","params":"{subscribe}"}'),
        Step({"ev": "status", "status": "success"}, each_topic=True),
    ),
    rule=_MASSIVE_STOCKS,
    time_key="t",
    add='{"action":"subscribe","params":"{subscribe}"}',
    remove='{"action":"unsubscribe","params":"{subscribe}"}',
    troubles=(
        Trouble({"ev": "status", "status": "auth_failed"}, "refused_key", _REFUSED),
        Trouble(
            {"ev": "status", "status": "auth_timeout"},
            "login_timeout",
            "the provider says that the key came too late; look at the network path",
        ),
        # It may come after login and subscription have succeeded: of two connections either can be the one to go.
        Trouble({"ev": "status", "status": "max_connections"}, "connection_taken", _TAKEN, retry="normal"),
        Trouble({"ev": "status", "status": "slow_consumer"}, "slow_consumer", _TOO_SLOW, "normal", during="never"),
        Trouble(
            {"ev": "status", "status": "force_disconnect"},
            "force_disconnect",
            "the provider ends the connection by force",
            "normal",
            during="never",
        ),
        Trouble({"ev": "status", "status": "error"}, "refused_key", _REFUSED, contains="authentication failed"),
        Trouble({"ev": "status", "status": "error"}, "not_authorized", _NOT_ALLOWED, contains="not authorized"),
        Trouble({"ev": "status", "status": "error"}, "not_authorized", _NOT_ALLOWED, contains="don't have access"),
        Trouble({"ev": "status", "status": "error"}, "error", _NOT_UNDERSTOOD, during="login"),
    ),
    variants=(
        Variant("crypto", ("XT.*",), Rule(b"ev", (b"XT",), b"pair")),
        # Forex and indices have no trades: a quote, or a new value, is the nearest thing.
        Variant("forex", ("C.*",), Rule(b"ev", (b"C",), b"p")),
        Variant("indices", ("V.*",), Rule(b"ev", (b"V",), b"T")),
    ),
)


def _alpaca(code: int, reason: str, text: str, retry: Retry = "slow") -> Trouble:
    return Trouble({"T": "error", "code": str(code)}, reason, text, retry)


ALPACA = Profile(
    # https://docs.alpaca.markets/docs/streaming-market-data, with its table of error codes.
    name="alpaca",
    url="wss://stream.data.alpaca.markets/v2/sip",
    subscribe=("*",),
    steps=(
        Step({"T": "success", "msg": "connected"}, '{"action":"auth","key":"{key}","secret":"{secret}"}'),
        Step({"T": "success", "msg": "authenticated"}, '{"action":"subscribe","trades":{subscribe_list}}'),
        Step({"T": "subscription"}),
    ),
    # Corrections (c) and cancels (x) come with every subscription to trades, and belong to their symbol's worker.
    rule=Rule(b"T", (b"t", b"c", b"x"), b"S"),
    time_key="t",
    add='{"action":"subscribe","trades":{subscribe_list}}',
    remove='{"action":"unsubscribe","trades":{subscribe_list}}',
    troubles=(
        _alpaca(400, "error", _NOT_UNDERSTOOD),
        _alpaca(401, "error", "the provider says that no login came before the subscription"),
        _alpaca(402, "refused_key", _REFUSED),
        Trouble(
            {"T": "error", "code": "403"}, "error", "the provider says that login was already done", during="never"
        ),
        _alpaca(404, "login_timeout", "the provider says that the key came too late; look at the network path"),
        _alpaca(405, "symbol_limit", "more symbols than the account's plan allows; shorten feed.subscribe"),
        _alpaca(406, "connection_taken", _TAKEN, "normal"),
        Trouble({"T": "error", "code": "407"}, "slow_consumer", _TOO_SLOW, "normal", during="never"),
        _alpaca(
            408, "not_authorized", "the account has no access to version 2 of the data API; ask the provider for it"
        ),
        _alpaca(409, "not_authorized", _NOT_ALLOWED),
        _alpaca(410, "not_authorized", "the feed behind feed.url has no such channel; check feed.url"),
        _alpaca(411, "not_authorized", _NOT_ALLOWED),
        _alpaca(
            412, "error", "the feed behind feed.url speaks MessagePack only, which tradebal doesn't; check feed.url"
        ),
        _alpaca(500, "error", "the provider has an internal error", "normal"),
        Trouble({"T": "error"}, "error", _NOT_UNDERSTOOD, during="login"),
    ),
)

COINBASE = Profile(
    # https://docs.cdp.coinbase.com/exchange/websocket-feed/overview, /channels (matches) and /errors.
    name="coinbase",
    url="wss://ws-feed.exchange.coinbase.com",
    subscribe=("BTC-USD", "ETH-USD"),
    steps=(
        Step({}, '{"type":"subscribe","channels":["matches"],"product_ids":{subscribe_list}}'),
        Step({"type": "subscriptions"}),
    ),
    # last_match repeats the newest trade from before the subscription; after a reconnect it may close the gap.
    rule=Rule(b"type", (b"match", b"last_match"), b"product_id"),
    time_key="time",
    add='{"type":"subscribe","channels":["matches"],"product_ids":{subscribe_list}}',
    remove='{"type":"unsubscribe","channels":["matches"],"product_ids":{subscribe_list}}',
    troubles=(
        Trouble({"type": "error"}, "slow_consumer", _TOO_SLOW, "normal", "errslowconsume", "never"),
        Trouble({"type": "error"}, "error", _NOT_UNDERSTOOD, during="login"),
    ),
)

KRAKEN = Profile(
    # https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/trade: each symbol is answered by itself.
    name="kraken",
    url="wss://ws.kraken.com/v2",
    subscribe=("BTC/USD", "ETH/USD"),
    steps=(
        Step(
            {},
            '{"method":"subscribe","params":{"channel":"trade","symbol":{subscribe_list},"snapshot":false}}',
        ),
        Step({"method": "subscribe", "success": "true"}, each_topic=True),
    ),
    rule=Rule(b"channel", (b"trade",), b"symbol", container=b"data"),
    time_key="timestamp",
    add='{"method":"subscribe","params":{"channel":"trade","symbol":{subscribe_list},"snapshot":false}}',
    remove='{"method":"unsubscribe","params":{"channel":"trade","symbol":{subscribe_list}}}',
    troubles=(
        Trouble({"method": "subscribe", "success": "false"}, "error", _NOT_UNDERSTOOD),
        Trouble({"method": "error"}, "error", _NOT_UNDERSTOOD, during="login"),
        Trouble({"success": "false"}, "error", _NOT_UNDERSTOOD, during="login"),
    ),
)

PROFILES = {profile.name: profile for profile in (MASSIVE, ALPACA, COINBASE, KRAKEN)}
ALIASES = {"polygon": "massive"}
"""Other names of profiles: Polygon.io is called Massive since October 2025."""


def resolve(feed: Feed) -> Profile:
    """Return the profile that the configuration asks for, with its URL, topics and rule as they will be used.

    UserError (code 2) where `feed.profile` is "custom" and `feed.custom` or `feed.url` is missing.
    """
    if feed.profile == "custom":
        if feed.custom is None:
            raise UserError('feed.profile "custom" needs a table [feed.custom] that says what it is', code=2)
        if not feed.url:
            raise UserError('feed.profile "custom" has no URL of its own: set feed.url', code=2)
        return replace(_custom(feed.custom), url=feed.url, subscribe=feed.subscribe)
    profile = PROFILES[ALIASES.get(feed.profile, feed.profile)]
    url = feed.url or profile.url
    segments = urlsplit(url).path.split("/")
    for variant in profile.variants:
        if variant.path in segments:
            profile = replace(profile, subscribe=variant.subscribe, rule=variant.rule)
            break
    rule = replace(profile.rule, notice_values=_notice_values(profile))
    return replace(profile, url=url, subscribe=feed.subscribe or profile.subscribe, rule=rule)


def _notice_values(profile: Profile) -> tuple[bytes, ...]:
    """Return the markers of the objects that the profile's login and troubles recognise; the router skips all others.

    A custom profile says too little for that: its provider's complaints are known only by being logged.
    """
    key = profile.rule.marker_key.decode()
    fields = [step.expect for step in profile.steps] + [trouble.fields for trouble in profile.troubles]
    return tuple(sorted({each[key].encode() for each in fields if key in each}))


def _custom(custom: CustomFeed) -> Profile:
    return Profile(
        name="custom",
        url="",
        subscribe=(),
        steps=tuple(
            Step({key: as_text(value) or "" for key, value in step.expect.items()}, step.send) for step in custom.login
        ),
        rule=Rule(
            custom.trade_key.encode(),
            tuple(value.encode() for value in custom.trade_values),
            custom.symbol_key.encode(),
            container=custom.trades_in.encode() if custom.trades_in is not None else None,
        ),
        time_key=custom.time_key or "",
    )


def as_text(value: object) -> str | None:
    """Return a decoded JSON scalar as the text that steps and troubles compare with; None for an object or array."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case None:
            return "null"
    return None
