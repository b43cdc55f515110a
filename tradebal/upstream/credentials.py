"""Puts the feed key into what is sent, and keeps it out of everything that is shown."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from urllib.parse import quote

from tradebal.config import Secret
from tradebal.errors import UserError

WHERE = (
    "write it to /etc/credstore/feed-key, for root alone: systemd hands it over (LoadCredential=feed-key); "
    "or put it into the environment variable TRADEBAL_FEED_KEY"
)

SHORTEST_HIDDEN = 4
"""Characters that a key needs to be redacted: a shorter one is no secret, and would riddle every line with ***."""

_PLACEHOLDER = re.compile(r"\{(key|secret|subscribe|subscribe_list)\}")


def placeholders(*texts: str) -> set[str]:
    """Return the names of the placeholders that the texts use."""
    return {name for text in texts for name in _PLACEHOLDER.findall(text)}


class Credentials:
    """The feed key, whole or in the two halves that some providers want, and the topics to subscribe to.

    Where any of `texts` uses `{secret}`, the key must be KEY:SECRET, split at its first colon. UserError (code 2) if
    the key is missing while `texts` need it, lacks that colon, or holds characters that no key has.
    """

    def __init__(self, key: Secret | None, texts: Sequence[str], subscribe: Sequence[str], profile: str) -> None:
        used = placeholders(*texts)
        whole = key.reveal() if key is not None else ""
        if not whole.isprintable():
            raise UserError("the feed key holds a control character or a line break", hint=WHERE, code=2)
        if used & {"key", "secret"} and not whole:
            shape = " as KEY:SECRET" if "secret" in used else ""
            raise UserError(
                f'feed.profile "{profile}" needs the provider\'s key, and there is none', hint=f"{WHERE}{shape}", code=2
            )
        first, _, rest = whole.partition(":") if "secret" in used else (whole, ":", "")
        if "secret" in used and not (first and rest):
            raise UserError(
                f'feed.profile "{profile}" needs the key and its secret as KEY:SECRET, but the feed key has no colon '
                "with text on both sides",
                hint=WHERE,
                code=2,
            )
        self._subscribe = tuple(subscribe)
        topics = ",".join(subscribe)
        self._values = {"key": first, "secret": rest, "subscribe": topics, "subscribe_list": topics}
        hidden = {
            text
            for part in (whole, first, rest)
            if len(part) >= SHORTEST_HIDDEN
            for text in (part, _in_json(part), json.dumps(part, ensure_ascii=False)[1:-1], quote(part, safe=""))
        }
        # The longest first: a part must not be replaced inside the whole.
        self._hidden = sorted(hidden, key=len, reverse=True)

    def __repr__(self) -> str:
        return "Credentials(***)"

    def for_topics(self, subscribe: Sequence[str]) -> Credentials:
        """Return the same with other topics."""
        other = copy.copy(self)
        other._subscribe = tuple(subscribe)
        topics = ",".join(subscribe)
        other._values = self._values | {"subscribe": topics, "subscribe_list": topics}
        return other

    def message(self, template: str) -> str:
        """Fill in a JSON text: `{key}`, `{secret}` and `{subscribe}` (the topics joined by commas) inside its strings,
        `{subscribe_list}` as an array of strings.
        """
        topics = json.dumps(self._subscribe)
        return _PLACEHOLDER.sub(
            lambda match: topics if match[1] == "subscribe_list" else _in_json(self._values[match[1]]), template
        )

    def url(self, template: str) -> str:
        """Fill in a URL, percent-encoded (RFC 3986, section 2.1)."""
        return _PLACEHOLDER.sub(lambda match: quote(self._values[match[1]], safe=""), template)

    def header(self, template: str) -> str:
        """Fill in the content of a header field, as it is."""
        return _PLACEHOLDER.sub(lambda match: self._values[match[1]], template)

    def redact(self, text: str) -> str:
        """Return the text with the key and its usual encodings replaced by ***."""
        for hidden in self._hidden:
            text = text.replace(hidden, "***")
        return text

    def show(self, text: str | bytes, limit: int = 200) -> str:
        """Return what a provider sent as one safe line for a log: without the key, printable, at most `limit` long."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        # Redacted before it is cut, or half a key would stay at the end.
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in self.redact(text))
        return text if len(text) <= limit else text[: limit - 1] + "…"


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
