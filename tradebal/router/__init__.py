"""Chooses the router: the C core where it was built, else its Python twin."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from tradebal.errors import UserError
from tradebal.router.interface import MAX_MESSAGE, Router, RouterFactory, Rule
from tradebal.stream.framing import Framing

CHOICE_VARIABLE = "TRADEBAL_ROUTER"
"""Environment variable that forces one implementation: "native" or "python"."""

HOW_TO_GET_NATIVE = (
    "install gcc and the C library's headers (Debian: gcc, libc6-dev), then tradebal again from where it came: "
    "make clean setup in a checkout, else pip install --force-reinstall FILE"
)


def make_router(
    shards: int,
    rule: Rule | None,
    *,
    framing: Framing = "ndjson",
    pins: Mapping[bytes, int] | None = None,
    max_message: int = MAX_MESSAGE,
) -> Router:
    """Return the fastest router that there is, or the one that `TRADEBAL_ROUTER` names.

    UserError if that one isn't there or isn't known; ValueError where an argument is out of its range.
    """
    return _factory(os.environ.get(CHOICE_VARIABLE, ""))(
        shards, rule, framing=framing, pins=pins, max_message=max_message
    )


def warn_if_slow(router: Router, log: logging.Logger) -> None:
    """Say loudly, and how to change it, if the router isn't the C core; call it once per start."""
    if router.kind != "native":
        log.warning(
            "slow router in use: kind=%s: it can't keep up with the market's open; for the C core, %s",
            router.kind,
            HOW_TO_GET_NATIVE,
        )


def _factory(choice: str) -> RouterFactory:
    if choice not in ("", "native", "python"):
        raise UserError(
            f"{CHOICE_VARIABLE} is {choice!r}",
            hint=f'set it to "native" or "python", or unset {CHOICE_VARIABLE}',
            code=2,
        )
    if choice != "python":
        try:
            from tradebal.router import native
        except ImportError as error:
            if choice == "native":
                raise UserError(
                    f'{CHOICE_VARIABLE} is "native", but the C core isn\'t there: {error}', hint=HOW_TO_GET_NATIVE
                ) from None
        else:
            return native.Router
    from tradebal.router.pure import Router as PurePythonRouter

    return PurePythonRouter
