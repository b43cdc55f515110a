"""What a configuration that can't be used raises."""

from __future__ import annotations

from tradebal.errors import UserError


class ConfigError(UserError):
    """The configuration can't be used; the message is one line with file, key path, value and what is allowed."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, code=2)
