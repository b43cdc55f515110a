"""The strict way from a TOML file to a configuration; each mistake becomes one line that names file, key and value."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from argparse import Namespace
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from tradebal.config import kinds
from tradebal.config.errors import ConfigError
from tradebal.config.keys import declared_keys
from tradebal.config.secret import SECRET_NAME
from tradebal.config.tables import Config, Table

SYSTEM_FILE = Path("/etc/tradebal/tradebal.toml")
"""Read where neither --config nor TRADEBAL_CONFIG names a file."""


def load(path: Path | None) -> Config:
    """Read a file; None stands for the defaults alone. ConfigError if it can't be read or used."""
    if path is None:
        return Config()
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise ConfigError(f"{_name(path)}: is a directory; the configuration must be a TOML file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{_name(path)}: can't be read: {reason}") from None
    return dataclasses.replace(parse(data, _name(path)), source=path)


def parse(data: bytes, name: str) -> Config:
    """Read TOML text; `name` is what error lines call it. ConfigError if it can't be used, and nothing else."""
    try:
        raw = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}: line {line}: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: {_place_first(str(error))}") from None
    except RecursionError:
        raise ConfigError(f"{name}: arrays or tables are nested too deeply") from None
    except ValueError as error:
        # Only numbers and dates that Python itself can't hold get here.
        raise ConfigError(f"{name}: not valid TOML: {_one_line(str(error))}") from None
    try:
        config: Config = _read_table(Config, raw, "", name)
    except RecursionError:
        raise ConfigError(f"{name}: arrays or tables are nested too deeply") from None
    _check_whole(config, name)
    return config


def load_config(args: Namespace) -> Config:
    """Read the file that --config names, else TRADEBAL_CONFIG, else the system's if it exists, else take defaults."""
    named = getattr(args, "config", None) or os.environ.get("TRADEBAL_CONFIG")
    if named:
        return load(Path(named))
    return load(SYSTEM_FILE if SYSTEM_FILE.exists() else None)


def override(config: Config, path: str, value: object, origin: str) -> Config:
    """Return the configuration with one key of a section set, such as `shards.count`.

    `value` is checked as if it stood in a file; `origin`, such as "--shards", is what the error line calls it.
    """
    section, _, name = path.partition(".")
    table = getattr(config, section)
    found = next(f for f in dataclasses.fields(table) if f.name == name)
    changed = dataclasses.replace(table, **{name: _read_value(found.metadata["kind"], value, path, origin)})
    result: Config = dataclasses.replace(config, **{section: changed})
    _check_whole(result, origin)
    return result


def _name(path: Path) -> str:
    return _one_line(str(path))


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)


def _place_first(message: str) -> str:
    match = re.fullmatch(r"(.*) \(at (?:(line \d+, column \d+)|(end of document))\)", message, re.DOTALL)
    if match is None:
        return f"not valid TOML: {_one_line(message)}"
    return f"{match[2] or match[3]}: not valid TOML: {_one_line(match[1])}"


def _read_table(cls: type[Any], raw: object, path: str, name: str) -> Any:
    if not isinstance(raw, dict):
        raise ConfigError(f"{name}: {path} = {kinds.show(raw)}: must be a table")
    prefix = f"{path}." if path else ""
    fields = {item.name: item for item in dataclasses.fields(cls) if item.metadata}
    values = {}
    for key, value in raw.items():
        if key not in fields:
            raise ConfigError(f"{name}: {prefix}{kinds.write_key(key)}: {_unknown(key, value, path, list(fields))}")
        values[key] = _read_value(fields[key].metadata["kind"], value, prefix + key, name)
    for key, item in fields.items():
        if key not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{name}: {prefix}{key}: missing; must be {item.metadata['kind'].allowed}")
    return cls(**values)


def _read_value(kind: kinds.Kind | Table, value: object, path: str, name: str) -> Any:
    if isinstance(kind, kinds.Kind):
        try:
            return kind.read(value)
        except kinds.RefusedError as refused:
            raise ConfigError(f"{name}: {path}{refused.at} = {refused.shown}: must be {refused.allowed}") from None
    if not kind.many:
        return _read_table(kind.cls, value, path, name)
    if not isinstance(value, list):
        raise ConfigError(f"{name}: {path} = {kinds.show(value)}: must be a list of tables, written as [[{path}]]")
    return tuple(_read_table(kind.cls, table, f"{path}[{number}]", name) for number, table in enumerate(value))


def _unknown(key: str, value: object, path: str, known: list[str]) -> str:
    import difflib  # only an error needs it, and a generator at boot imports this module

    if path == "feed" and SECRET_NAME.search(key):
        return "unknown key; the provider's key goes into systemd's credential feed-key, or into TRADEBAL_FEED_KEY"
    kind = "table" if isinstance(value, dict) and not path else "key"
    if near := difflib.get_close_matches(key.lower(), known, n=1):
        return f"unknown {kind}; did you mean {path + '.' if path else ''}{near[0]}?"
    for info in declared_keys():
        if info.path.rpartition(".")[2] == key and "[]" not in info.path:
            return f"unknown {kind}; did you mean {info.path}?"
    where = f"[{path}]" if path else "the file"
    return f"unknown {kind}; {where} can hold {', '.join(known)}"


def _check_whole(config: Config, name: str) -> None:
    count = config.shards.count
    for symbol, shard in config.shards.pin.items():
        if shard >= count:
            raise ConfigError(
                f"{name}: shards.pin.{kinds.write_key(symbol)} = {shard}: must be a shard number "
                f"from 0 to {count - 1}, as shards.count = {count}"
            )
    feed = config.feed
    if feed.custom is not None and feed.profile != "custom":
        raise ConfigError(f'{name}: feed.custom: must be left out, or feed.profile = "custom" be set')
    if feed.profile == "custom":
        if feed.custom is None:
            raise ConfigError(
                f'{name}: feed.custom: missing; with feed.profile = "custom", a table [feed.custom] must say '
                "trade_key, trade_values and symbol_key"
            )
        if not feed.url:
            raise ConfigError(
                f'{name}: feed.url: missing; with feed.profile = "custom" it must be {kinds.WebSocketUrl.allowed}'
            )
