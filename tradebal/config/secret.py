"""Keeps a secret out of logs and tracebacks, and reads the feed's key from where it may stand."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tradebal.config.errors import ConfigError

SECRET_NAME = re.compile(r"pass|secret|token|key|credential|auth", re.IGNORECASE)


class Secret:
    """A string that stays out of logs and tracebacks: only `reveal` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself, for the one line that has to send it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def feed_key(env: Mapping[str, str] = os.environ) -> Secret | None:
    """Return the feed's key: systemd's credential "feed-key", else TRADEBAL_FEED_KEY; None where there is neither.

    ConfigError, which doesn't show the key, if it can't be read or isn't one line of printable ASCII.
    """
    place, text = "TRADEBAL_FEED_KEY", env.get("TRADEBAL_FEED_KEY", "")
    if directory := env.get("CREDENTIALS_DIRECTORY"):
        file = Path(directory) / "feed-key"
        try:
            text = file.read_text("ascii", errors="replace")
            place = str(file)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigError(f"{file}: the feed's key can't be read: {error.strerror}") from None
    text = text.strip()
    if not text.isascii() or not text.isprintable():
        raise ConfigError(f"{place}: the feed's key must be one line of printable ASCII characters")
    return Secret(text) if text else None
