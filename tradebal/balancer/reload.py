"""What a running balancer can take over from a changed configuration, and what has to wait for a restart."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from tradebal.config import Config

_LIVE = {
    "feed": {"subscribe", "connect_timeout", "login_timeout", "ping_interval", "ping_timeout"},
    "shards": {"gap_records", "pin"},
    "overflow": {"when_full"},
    "metrics": {"interval"},
    "log": {"level", "statistics"},
}


class Reload(NamedTuple):
    """The outcome of comparing two configurations."""

    config: Config
    """The one before, with what can be taken over from the new one."""
    taken: list[str]
    """Keys that changed and are taken over, such as `feed.subscribe`."""
    waiting: list[str]
    """Keys that changed and need a restart."""


def compare(before: Config, after: Config) -> Reload:
    """Return what follows from the change."""
    taken: list[str] = []
    waiting: list[str] = []
    merged = before
    for section in (item.name for item in dataclasses.fields(Config) if item.metadata):
        old, new = getattr(before, section), getattr(after, section)
        changed = [item.name for item in dataclasses.fields(old) if getattr(old, item.name) != getattr(new, item.name)]
        live = {name for name in changed if name in _LIVE.get(section, set())}
        if section == "feed" and before.feed.profile == "custom":
            live.discard("subscribe")  # its login exchange doesn't say how to change it later
        if section == "shards" and any(shard >= before.shards.count for shard in after.shards.pin.values()):
            live.discard("pin")  # shards that the new count brings
        taken += [f"{section}.{name}" for name in changed if name in live]
        waiting += [f"{section}.{name}" for name in changed if name not in live]
        table = dataclasses.replace(old, **{name: getattr(new, name) for name in live})
        merged = dataclasses.replace(merged, **{section: table})
    return Reload(merged, taken, waiting)
