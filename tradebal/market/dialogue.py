"""What each provider says before and beside its trades, word for word, without any I/O: messages in, messages out.

Sources: Massive's websocket quickstart and what its clients have logged; the public documentation of Alpaca's
market-data stream, of Coinbase Exchange's websocket feed and of Kraken's websocket API v2. Where none of them gives a
text, the status is the provider's and the wording ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tradebal.market.playback import Wanted

POLICY_VIOLATION = 1008
"""The close code that goes with every refusal (RFC 6455, section 7.4.1)."""


class Dialogue:
    """One client's exchange with a provider that asks for nothing and plays at once; the base of the others.

    `paths` are those that a handshake may ask for (empty: any); `logged_in` ends the wait for a login; `playing`
    starts the playback; `wanted` filters it; `account` names whose single connection this is; `refused` asks
    for a close with 1008.
    """

    paths: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.logged_in = True
        self.playing = False
        self.refused = False
        self.account: str | None = None
        self.wanted: Wanted = None

    def opened(self) -> list[str]:
        """Messages right after the opening handshake."""
        self.playing = True
        return []

    def received(self, message: str) -> list[str]:  # noqa: ARG002
        """Answers to one text message of the client."""
        return []

    def timed_out(self) -> list[str]:
        """Last words to a client that did not log in."""
        return []

    def displaced(self) -> list[str]:
        """Last words to a client whose account has another connection."""
        return []

    def too_slow(self) -> list[str]:
        """Last words to a client that does not read fast enough."""
        return []


class MassiveDialogue(Dialogue):
    """Massive (formerly Polygon.io): one of its markets, with `keys` (empty: any key is good)."""

    def __init__(
        self,
        market: str = "stocks",
        trades: str = "T",
        keys: Collection[str] = (),
        *,
        path: str = "",
        channels: Collection[str] | None = None,
    ) -> None:
        """Serve `market` at `path` (default: the market's name); `trades` is the channel that carries its trades.

        Topics of other channels than `channels` (default: all that the market has) are refused.
        """
        super().__init__()
        self.paths = (path or f"/{market}",)
        self.logged_in = False
        self._trades = trades
        self._channels = (_MASSIVE_CHANNELS.get(market, frozenset()) if channels is None else set(channels)) | {trades}
        self._keys = keys
        self._key = ""
        self._topics: dict[str, None] = {}

    def opened(self) -> list[str]:
        """See `Dialogue.opened`."""
        return [_status("connected", "Connected Successfully")]

    def received(self, message: str) -> list[str]:
        """Answer `auth`, `subscribe` and `unsubscribe`; what is wrong gets a status `error`, as Massive does."""
        request = _object(message)
        params = request.get("params")
        if not isinstance(params, str):
            params = ""
        match request.get("action"):
            case "auth":
                return self._auth(params)
            case "subscribe" | "unsubscribe" if not self.logged_in:
                return [_status("error", "not authorized")]
            case "subscribe":
                return self._subscribe(params)
            case "unsubscribe":
                return self._unsubscribe(params)
        return [_status("error", "unknown action")]

    def timed_out(self) -> list[str]:
        """See `Dialogue.timed_out`."""
        return [_status("auth_timeout", "No authentication request received.")]

    def displaced(self) -> list[str]:
        """See `Dialogue.displaced`."""
        return [
            _status(
                "max_connections",
                "Maximum number of websocket connections exceeded. "
                "You have reached the connection limit for your account. "
                "Please contact support at https://polygon.io/contact to increase your limit.",
            )
        ]

    def too_slow(self) -> list[str]:
        """See `Dialogue.too_slow`."""
        return [
            _status("slow_consumer", "Data isn't being consumed fast enough."),
            _status("force_disconnect", "Disconnected: the connection's buffer is full."),
        ]

    def _auth(self, key: str) -> list[str]:
        if self.logged_in:
            return [_status("error", "already authenticated")]
        if not key or (self._keys and key not in self._keys):
            self.refused = True
            return [_status("auth_failed", "authentication failed")]
        self.logged_in = True
        self._key = key
        return [_status("auth_success", "authenticated")]

    def _subscribe(self, params: str) -> list[str]:
        statuses = []
        for topic in _topics(params):
            if topic.partition(".")[0] in self._channels and "." in topic:
                self._topics[topic] = None
                statuses.append(("success", f"subscribed to: {topic}"))
            else:
                statuses.append(("error", f"not authorized to subscribe to: {topic}"))
        self._apply()
        if self._topics:
            self.account = self._key
            self.playing = True
        return [_statuses(statuses)]

    def _unsubscribe(self, params: str) -> list[str]:
        topics = _topics(params)
        for topic in topics:
            self._topics.pop(topic, None)
        self._apply()
        return [_statuses([("success", f"unsubscribed to: {topic}") for topic in topics])]

    def _apply(self) -> None:
        prefix = f"{self._trades}."
        symbols = {topic.removeprefix(prefix) for topic in self._topics if topic.startswith(prefix)}
        self.wanted = None if "*" in symbols else symbols


_MASSIVE_CHANNELS: Mapping[str, frozenset[str]] = {
    "stocks": frozenset(("T", "Q", "A", "AM", "LULD", "NOI", "FMV", "LV")),
    "options": frozenset(("T", "Q", "A", "AM", "FMV", "LV")),
    "crypto": frozenset(("XT", "XQ", "XA", "XAS", "XL2", "FMV", "LV")),
}


class AlpacaDialogue(Dialogue):
    """Alpaca's market-data stream with JSON messages."""

    def __init__(self, path: str = "/v2/sip", keys: Collection[tuple[str, str]] = ()) -> None:
        """Accept the (key, secret) pairs of `keys`; empty: any."""
        super().__init__()
        self.paths = (path,)
        self.logged_in = False
        self._keys = keys
        self._key = ""
        self._symbols: dict[str, None] = {}

    def opened(self) -> list[str]:
        """See `Dialogue.opened`."""
        return [json.dumps([{"T": "success", "msg": "connected"}], separators=(",", ":"))]

    def received(self, message: str) -> list[str]:
        """Answer `auth`, `subscribe` and `unsubscribe`."""
        request = _object(message)
        match request.get("action"):
            case "auth":
                return [self._auth(request.get("key"), request.get("secret"))]
            case "subscribe" | "unsubscribe" if not self.logged_in:
                return [_alpaca_error(401, "not authenticated")]
            case "subscribe":
                self._symbols.update(dict.fromkeys(_strings(request.get("trades"))))
                self.playing = True
                self.account = self._key
                return [self._subscription()]
            case "unsubscribe":
                for symbol in _strings(request.get("trades")):
                    self._symbols.pop(symbol, None)
                return [self._subscription()]
        return [_alpaca_error(400, "invalid syntax")]

    def timed_out(self) -> list[str]:
        """See `Dialogue.timed_out`."""
        return [_alpaca_error(404, "auth timeout")]

    def displaced(self) -> list[str]:
        """See `Dialogue.displaced`."""
        return [_alpaca_error(406, "connection limit exceeded")]

    def too_slow(self) -> list[str]:
        """See `Dialogue.too_slow`."""
        return [_alpaca_error(407, "slow client")]

    def _auth(self, key: object, secret: object) -> str:
        if self.logged_in:
            return _alpaca_error(403, "already authenticated")
        if not isinstance(key, str) or not key or (self._keys and (key, secret) not in self._keys):
            self.refused = True
            return _alpaca_error(402, "auth failed")
        self.logged_in = True
        self._key = key
        return json.dumps([{"T": "success", "msg": "authenticated"}], separators=(",", ":"))

    def _subscription(self) -> str:
        self.wanted = None if "*" in self._symbols else set(self._symbols)
        return json.dumps([{"T": "subscription", "trades": list(self._symbols)}], separators=(",", ":"))


class CoinbaseDialogue(Dialogue):
    """Coinbase Exchange's public feed: no login, products are named."""

    def received(self, message: str) -> list[str]:
        """Answer `subscribe` and `unsubscribe`."""
        request = _object(message)
        products = _strings(request.get("product_ids"))
        match request.get("type"):
            case "subscribe":
                self.wanted = set(self.wanted or ()).union(products)
                self.playing = True
            case "unsubscribe":
                self.wanted = set(self.wanted or ()).difference(products)
            case _:
                return ['{"type":"error","message":"Failed to subscribe","reason":"unknown type"}']
        channels = [{"name": name, "product_ids": sorted(self.wanted)} for name in _strings(request.get("channels"))]
        return [json.dumps({"type": "subscriptions", "channels": channels}, separators=(",", ":"))]

    def opened(self) -> list[str]:
        """See `Dialogue.opened`."""
        return []


class KrakenDialogue(Dialogue):
    """Kraken's public feed, version 2: no login, symbols are named."""

    paths = ("/v2",)

    def opened(self) -> list[str]:
        """See `Dialogue.opened`."""
        return [
            '{"channel":"status","type":"update","data":'
            '[{"version":"2.0.10","system":"online","api_version":"v2","connection_id":1}]}'
        ]

    def received(self, message: str) -> list[str]:
        """Answer `subscribe`, `unsubscribe` and `ping`."""
        request = _object(message)
        params = request.get("params")
        params = params if isinstance(params, dict) else {}
        symbols = _strings(params.get("symbol"))
        match request.get("method"):
            case "ping":
                return ['{"method":"pong"}']
            case "subscribe" as method:
                self.wanted = set(self.wanted or ()).union(symbols)
                self.playing = True
            case "unsubscribe" as method:
                self.wanted = set(self.wanted or ()).difference(symbols)
            case _:
                return ['{"error":"Method(s) not found","success":false}']
        return [
            json.dumps(
                {"method": method, "result": {"channel": params.get("channel"), "symbol": symbol}, "success": True},
                separators=(",", ":"),
            )
            for symbol in symbols
        ]


DIALOGUES: Mapping[str, Callable[[], Dialogue]] = {
    "massive": MassiveDialogue,
    "alpaca": AlpacaDialogue,
    "coinbase": CoinbaseDialogue,
    "kraken": KrakenDialogue,
    "plain": Dialogue,
}
"""By profile name, each with its defaults; `plain` plays to whoever connects."""


def _object(message: str) -> dict[str, Any]:
    try:
        value = json.loads(message)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _topics(params: str) -> list[str]:
    return [topic for part in params.split(",") if (topic := part.strip())]


def _status(status: str, message: str) -> str:
    return _statuses([(status, message)])


def _statuses(statuses: list[tuple[str, str]]) -> str:
    objects = [{"ev": "status", "status": status, "message": message} for status, message in statuses]
    return json.dumps(objects, separators=(",", ":"))


def _alpaca_error(code: int, text: str) -> str:
    return json.dumps([{"T": "error", "code": code, "msg": text}], separators=(",", ":"))
