"""The login exchange on one connection, and what the provider's own messages mean, without any I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping
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
    """

    def __init__(self, profile: Profile, credentials: Credentials, timeout: float) -> None:
        self._profile = profile
        self._credentials = credentials
        self._timeout = timeout
        self._step = 0
        self._answers = 0
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
            self._ignored(data)
            return _NOTHING
        self._last = self._credentials.show(_text(value))
        step = self._profile.steps[self._step]
        if not _matches(value, step.expect):
            self._ignored(data)
            return _NOTHING
        _LOG.info("login: step=%d/%d answer=%s", self._step + 1, len(self._profile.steps), self._last)
        self._answers += 1
        if step.each_topic and self._answers < len(self._profile.subscribe):
            self._deadline = now + self._timeout
            return _NOTHING
        send = (self._credentials.message(step.send),) if step.send else ()
        self._step += 1
        self._answers = 0
        after = self._advance(now)
        return Outcome(send + after.send, after.live)

    def deadline(self) -> float | None:
        """Return when `expired` has something to say; None once live."""
        return self._deadline

    def expired(self) -> Failure:
        """Say what was waited for, once the deadline has passed."""
        step = self._profile.steps[self._step]
        awaited = ", ".join(f"{key}={value}" for key, value in step.expect.items())
        if step.each_topic and self._answers:
            awaited += f" ({self._answers} of {len(self._profile.subscribe)} topics answered)"
        heard = f"the last message was {self._last}" if self._last else "nothing was received"
        return Failure(
            "login_timeout",
            f"no answer for {self._timeout:g} s in step {self._step + 1} of the login, which waits for {awaited}; "
            f"{heard}; "
            "check feed.profile, feed.url and feed.subscribe, or allow more time by feed.login_timeout",
        )

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


def _matches(value: Mapping[str, object], fields: Mapping[str, str]) -> bool:
    return all(key in value and as_text(value[key]) == wanted for key, wanted in fields.items())


def _text(value: object) -> str:
    # Written anew, so that no unusual escape of the provider's hides the key from redaction.
    return orjson.dumps(value).decode()
