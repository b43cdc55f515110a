"""Lists the declared keys for whoever documents them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import MISSING
from typing import Any, NamedTuple

from tradebal.config import kinds
from tradebal.config.tables import Config, Table


class KeyInfo(NamedTuple):
    """One key as the documentation shows it."""

    path: str
    """Such as `shards.count`."""
    allowed: str
    """Completes "must be …"."""
    default: str
    """As TOML; "" where there is none."""
    doc: str


def declared_keys() -> Iterator[KeyInfo]:
    """Give every key in the order of its declaration."""
    return _keys_of(Config, "")


def _keys_of(cls: type[Any], prefix: str) -> Iterator[KeyInfo]:
    for item in dataclasses.fields(cls):
        if not item.metadata:
            continue
        kind, path = item.metadata["kind"], prefix + item.name
        if isinstance(kind, Table):
            yield from _keys_of(kind.cls, path + ("[]." if kind.many else "."))
        else:
            yield KeyInfo(path, kind.allowed, _default_of(item, kind), item.metadata["doc"])


def _default_of(item: dataclasses.Field[Any], kind: kinds.Kind) -> str:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    return "" if default in (MISSING, None, "", ()) else kind.write(default)
