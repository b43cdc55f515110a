"""The login exchange on one connection, and what the provider's own messages mean, without any I/O."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from tradebal.systemd.log import Limited
from tradebal.upstream.credentials import Credentials
from tradebal.upstream.failures import Failure
from tradebal.upstream.profiles import Profile, Trouble, as_text

_LOG = logging.getLogger(__name__)

_WARNING_HOLDS = 30.0
"""Seconds after a provider's warning during which a loss is put down to it."""


@dataclass(frozen=True)
class Outcome:
    """What follows from one step of the exchange."""

    send: tuple[str, ...] = ()
    """Text messages to send, in this order. They may hold the key."""
    live: bool = False
    """Login and subscription are through, as of this step."""
    failure: Failure | None = None
    """Close the connection with code 1000, and try again as it says."""


_NOTHING = Outcome()


class Session:
    """One connection's login: `opened` first, then `message` for each object that isn't a trade.

    `timeout` is in seconds, from each step of the exchange to the provider's next answer; `now` is any monotonic clock.
    A message that nobody waits for is ignored: providers add new ones (Coinbase's overview says to expect it).

    Where a provider answers each topic by itself, one that it never answers costs `timeout` and a warning, not the
    others: the session is live with those that were answered.
    """

    def __init__(self, profile: Profile, credentials: Credentials, timeout: float) -> None:
        self._profile = profile
        self._credentials = credentials
        self._timeout = timeout
        self._step = 0
        self._answers = 0
        self._asked = tuple(profile.subscribe)
        self._unnamed = set(profile.subscribe)
        """Topics that no answer has named."""
        self._deadline: float | None = None
        self._last = ""
        self._warned: tuple[Trouble, float] | None = None
        self._warnings = Limited(_LOG)
        self.live = False

    def opened(self, now: float) -> Outcome:
        """Begin, on a connection whose opening handshake is done."""
        return self._advance(now)

    def message(self, data: bytes, now: float) -> Outcome:
        """Take what the provider sent and that is no trade: one object, or anything else it can think of."""
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            self._ignored(data)
            return _NOTHING
        for trouble in self._profile.troubles:
            if _matches(value, trouble.fields) and (not trouble.contains or trouble.contains in _text(value).lower()):
                return self._trouble(trouble, value, now)
        if self.live:
            if any(step.each_topic and _matches(value, step.expect) for step in self._profile.steps):
                self._answered(value)
            self._ignored(data)
            return _NOTHING
        self._last = self._credentials.show(_text(value))
        step = self._profile.steps[self._step]
        if not _matches(value, step.expect):
            self._ignored(data)
            return _NOTHING
        _LOG.info("login: step=%d/%d answer=%s", self._step + 1, len(self._profile.steps), self._last)
        if step.each_topic:
            self._answered(value)
            if self._answers < len(self._asked) and self._unnamed:
                self._deadline = now + self._timeout
                return _NOTHING
        return self._complete(now)

    def deadline(self) -> float | None:
        """Return when `expired` has something to say; None once live."""
        return self._deadline

    def expired(self, now: float) -> Outcome:
        """Take it that no further answer comes, once the deadline has passed."""
        step = self._profile.steps[self._step]
        if step.each_topic and self._answers:
            unanswered = [topic for topic in self._asked if topic in self._unnamed]
            _LOG.warning(
                "subscribe: asked=%d answered=%d unanswered=%s: the provider didn't answer for %g s; live without; "
                "check feed.subscribe",
                len(self._asked),
                self._answers,
                self._credentials.show(",".join(unanswered), 1000),
                self._timeout,
            )
            return self._complete(now)
        awaited = ", ".join(f"{key}={value}" for key, value in step.expect.items())
        heard = f"the last message was {self._last}" if self._last else "nothing was received"
        failure = Failure(
            "login_timeout",
            f"no answer for {self._timeout:g} s in step {self._step + 1} of the login, which waits for {awaited}; "
            f"{heard}; "
            "check feed.profile, feed.url and feed.subscribe, or allow more time by feed.login_timeout",
        )
        return Outcome(failure=failure)

    @property
    def topics(self) -> tuple[int, int]:
        """Topics that were asked for, and how many of them the provider has answered.

        Where it answers all of them at once, that counts for each.
        """
        if any(step.each_topic for step in self._profile.steps):
            return len(self._asked), min(self._answers, len(self._asked))
        return len(self._asked), len(self._asked) if self.live else 0

    def ask_for(self, topics: Sequence[str]) -> None:
        """Note that the live connection's topics are these from now on."""
        before = set(self._asked)
        answered = before - self._unnamed
        self._asked = tuple(topics)
        self._unnamed = {topic for topic in topics if topic not in answered}
        self._answers = len(self._asked) - len(self._unnamed)

    def _answered(self, value: object) -> None:
        """Count an answer to a topic, which most providers name somewhere in it."""
        self._answers += 1
        self._unnamed.difference_update(word for text in _strings(value) for word in (text, *_WORDS.split(text)))

    def _complete(self, now: float) -> Outcome:
        """End the present step, and begin what follows it."""
        step = self._profile.steps[self._step]
        send = (self._credentials.message(step.send),) if step.send else ()
        self._step += 1
        after = self._advance(now)
        return Outcome(send + after.send, after.live)

    def _advance(self, now: float) -> Outcome:
        send: list[str] = []
        while self._step < len(self._profile.steps):
            step = self._profile.steps[self._step]
            if step.expect:
                self._deadline = now + self._timeout
                return Outcome(tuple(send))
            if step.send:
                send.append(self._credentials.message(step.send))
            self._step += 1
        self._deadline = None
        self.live = True
        return Outcome(tuple(send), live=True)

    def named(self, now: float) -> Trouble | None:
        """Return the trouble that the provider has just named without closing: why a loss happens at `now`."""
        if self._warned is None or now - self._warned[1] > _WARNING_HOLDS:
            return None
        return self._warned[0]

    def _trouble(self, trouble: Trouble, value: object, now: float) -> Outcome:
        text = f"{trouble.text}; it sent {self._credentials.show(_text(value))}"
        if trouble.during == "any" or (trouble.during == "login" and not self.live):
            return Outcome(failure=Failure(trouble.reason, text, trouble.retry))
        self._warnings.warning("provider warns: reason=%s: %s", trouble.reason, text)
        before = self.named(now)
        # A provider may say more than one thing before it closes; the table names the more telling one first.
        if before is None or self._profile.troubles.index(trouble) <= self._profile.troubles.index(before):
            self._warned = (trouble, now)
        return _NOTHING

    def _ignored(self, data: bytes) -> None:
        if _LOG.isEnabledFor(logging.DEBUG):
            _LOG.debug("message ignored: %s", self._credentials.show(data))


_WORDS = re.compile(r"[\s,]+")


def _strings(value: object) -> Iterator[str]:
    """Give every string in a decoded JSON value."""
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)


def _matches(value: Mapping[str, object], fields: Mapping[str, str]) -> bool:
    return all(key in value and as_text(value[key]) == wanted for key, wanted in fields.items())


def _text(value: object) -> str:
    # Written anew, so that no unusual escape of the provider's hides the key from redaction.
    return orjson.dumps(value).decode()
