"""Prints the default configuration file, each key explained, which packages install as /etc/tradebal/tradebal.toml."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator

from tradebal import config

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
What tradebal does: tradebal.toml(5). Each key stands here with its default, or with an example where it has none,
behind a "#": take that away, and change the value. "tradebal check" tells what is wrong with this file.

Sizes are numbers of bytes, or strings such as "64MiB". Durations are numbers of seconds. Paths are absolute.

The provider's key is not in this file: it is the first line of /etc/credstore/feed-key.

After a change: systemctl daemon-reload && systemctl restart tradebal.target
"""


def default_file() -> str:
    """Return the file's text."""
    return "\n".join(_lines()) + "\n"


def meanings() -> dict[str, str]:
    """Return what each table of the configuration is about, by its path."""
    found = {field.name: field.metadata["doc"] for field in dataclasses.fields(config.Config) if field.metadata}
    for cls, path in ((config.Feed, "feed."), (config.CustomFeed, "feed.custom.")):
        for field in dataclasses.fields(cls):
            if dataclasses.is_dataclass(getattr(field.metadata.get("kind"), "cls", None)):
                suffix = "[]" if field.metadata["kind"].many else ""
                found[f"{path}{field.name}{suffix}"] = field.metadata["doc"]
    return found


def shown(key: config.KeyInfo) -> str:
    """Return the value to show for a key, as TOML."""
    return EXAMPLES.get(key.path) or key.default


def _lines() -> Iterator[str]:
    yield from _comment(_HEAD)
    table = ""
    for key in config.declared_keys():
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


if __name__ == "__main__":
    print(default_file(), end="")
