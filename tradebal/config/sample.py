"""Writes the sample configuration, each key explained, for `tradebal init` and for packages."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator

from tradebal.config.keys import KeyInfo, declared_keys
from tradebal.config.tables import Config, CustomFeed, Feed

EXAMPLES = {
    "feed.url": '"wss://socket.massive.com/stocks"',
    "feed.subscribe": '["T.*"]',
    "feed.ca_file": '"/etc/tradebal/provider.pem"',
    "feed.custom.trade_key": '"type"',
    "feed.custom.trade_values": '["match"]',
    "feed.custom.symbol_key": '"product_id"',
    "feed.custom.trades_in": '"data"',
    "feed.custom.time_key": '"time"',
    "feed.custom.login[].expect": '{ type = "hello" }',
    "feed.custom.login[].send": '\'{"type":"login","key":"{key}"}\'',
}
"""What to show for a key that has no default, or none that would tell anything."""

_HEAD = """\
Configuration of tradebal. Each key is shown with its default, or with an example where it has no default, after a "#":
remove the "#" and change the value. "tradebal check" reports what is wrong with this file and with this machine.

Sizes are numbers of bytes, or strings such as "64MiB". Durations are numbers of seconds. Paths are absolute.

"""

_SYSTEM = """\
The provider's key is not in this file: it is the first line of /etc/credstore/feed-key.

After a change: systemctl daemon-reload && systemctl restart tradebal.target
tradebal.toml(5) describes every key.
"""

_OWN = """\
The provider's key is not in this file: put it into the environment variable TRADEBAL_FEED_KEY.

Use it: tradebal run --config THIS-FILE
"""


def sample(*, system: bool = False) -> str:
    """Return the file's text; with `system`, as packages install it for the systemd services."""
    return "\n".join(_lines(_HEAD + (_SYSTEM if system else _OWN))) + "\n"


def meanings() -> dict[str, str]:
    """Return what each table of the configuration is about, by its path."""
    found = {field.name: field.metadata["doc"] for field in dataclasses.fields(Config) if field.metadata}
    tables: tuple[tuple[type, str], ...] = ((Feed, "feed."), (CustomFeed, "feed.custom."))
    for cls, path in tables:
        for field in dataclasses.fields(cls):
            if dataclasses.is_dataclass(getattr(field.metadata.get("kind"), "cls", None)):
                suffix = "[]" if field.metadata["kind"].many else ""
                found[f"{path}{field.name}{suffix}"] = field.metadata["doc"]
    return found


def shown(key: KeyInfo) -> str:
    """Return the value to show for a key, as TOML."""
    return EXAMPLES.get(key.path) or key.default


def _lines(head: str) -> Iterator[str]:
    yield from _comment(head)
    table = ""
    for key in declared_keys():
        where, _, name = key.path.rpartition(".")
        if where != table:
            table = where
            yield ""
            yield _header(table)
            yield from _comment(meanings()[table])
        yield ""
        yield from _comment(f"{key.doc}\nMust be {key.allowed}.")
        yield f"#{name} = {shown(key)}"


def _header(table: str) -> str:
    if table.endswith("[]"):
        return f"#[[{table.removesuffix('[]')}]]"
    # A [feed.custom] that is there asks for its keys; the others may stand empty.
    return f"#[{table}]" if "." in table else f"[{table}]"


def _comment(text: str) -> Iterator[str]:
    for line in text.replace("`", "").splitlines():
        yield from textwrap.wrap(line, 116, initial_indent="# ", subsequent_indent="# ") or ["#"]
