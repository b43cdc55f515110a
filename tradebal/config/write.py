"""The way from a configuration back to a TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tradebal.config import kinds
from tradebal.config.secret import SECRET_NAME
from tradebal.config.tables import Config, Table


def dump(config: Config, *, conceal: bool = False) -> str:
    """Return the configuration as TOML that loads to an equal one.

    With `conceal`, what may hold a secret (contents of header fields, a URL's query, options named like one) is
    starred out.
    """
    tables: dict[str, Any] = {"feed": config.feed}
    if config.feed.custom is not None:
        tables["feed.custom"] = config.feed.custom
    tables |= {name: getattr(config, name) for name in ("shards", "overflow", "worker", "metrics", "log")}
    return "\n".join(_dump_table(name, table, conceal) for name, table in tables.items())


def _dump_table(name: str, table: Any, conceal: bool) -> str:
    lines = [f"[{name}]"]
    for item in dataclasses.fields(table):
        kind, value = item.metadata["kind"], getattr(table, item.name)
        # What is unset has no TOML form, and reads back as unset by its absence.
        if value is None or value == "" or value == () or item.name == "custom":
            continue
        if isinstance(kind, Table):
            lines.append(f"{item.name} = [")
            lines += [f"    {kinds.write_value(_set_fields(step))}," for step in value]
            lines.append("]")
            continue
        if conceal:
            value = _concealed(kind, value)
        lines.append(f"{item.name} = {kind.write(value)}")
    return "\n".join(lines) + "\n"


def _set_fields(table: Any) -> dict[str, Any]:
    values = {item.name: getattr(table, item.name) for item in dataclasses.fields(table)}
    return {name: value for name, value in values.items() if value}


def _concealed(kind: kinds.Kind, value: Any) -> Any:
    match kind:
        case kinds.Headers():
            return dict.fromkeys(value, "***")
        case kinds.WebSocketUrl():
            return kinds.conceal_url(value)
        case kinds.Options():
            return _starred(value)
    return value


def _starred(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            k: "***" if SECRET_NAME.search(k) and not isinstance(v, bool) else _starred(v) for k, v in value.items()
        }
    return [_starred(item) for item in value] if isinstance(value, list | tuple) else value
