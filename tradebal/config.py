"""The configuration: what can be set, its defaults, and the strict way from a TOML file to it and back.

Each key is declared once, as a dataclass field that carries its kind (see `tradebal.kinds`) and its meaning; loader,
error lines, `dump` and the test of docs/configuration.md all read that declaration.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from tradebal import kinds
from tradebal.errors import UserError

SYSTEM_FILE = Path("/etc/tradebal/tradebal.toml")
"""Read where neither --config nor TRADEBAL_CONFIG names a file."""

PROFILES = ("massive", "alpaca", "coinbase", "kraken", "custom")

_MIB = 1 << 20
_GIB = 1 << 30


class ConfigError(UserError):
    """The configuration can't be used; the message is one line with file, key path, value and what is allowed."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, code=2)


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


@dataclass(frozen=True)
class _Table:
    """A key that holds a table of its own, or with `many` a list of such tables, with the fields of `cls`."""

    cls: type[Any]
    many: bool = False

    @property
    def allowed(self) -> str:
        return "a list of tables" if self.many else "a table"


def _key(kind: kinds.Kind | _Table, doc: str) -> dict[str, Any]:
    return {"kind": kind, "doc": doc}


@dataclass(frozen=True)
class LoginStep:
    """One step of a login exchange: wait for an object that matches `expect`, then send `send`."""

    expect: Mapping[str, str | int | bool] = field(
        default_factory=dict,
        metadata=_key(
            kinds.Expectation(),
            "Fields that the received object must have for this step; without it the step doesn't wait.",
        ),
    )
    send: str = field(
        default="",
        metadata=_key(
            kinds.Text("a non-empty string"),
            "Text to send then. `{key}` stands for the feed key; with `{secret}` used too, they are its two halves. "
            "`{subscribe}` stands for the `subscribe` list joined with commas, `{subscribe_list}` for it as an array.",
        ),
    )


@dataclass(frozen=True)
class CustomFeed:
    """What a profile would say, for a provider that has none."""

    trade_key: str = field(
        metadata=_key(kinds.Text(), "Key of an object that tells what it is, such as `ev`."),
    )
    trade_values: tuple[str, ...] = field(
        metadata=_key(kinds.Texts('["T"]', least=1), "Values under `trade_key` that mark a trade."),
    )
    symbol_key: str = field(
        metadata=_key(kinds.Text(), "Key of a trade that holds its symbol."),
    )
    trades_in: str | None = field(
        default=None,
        metadata=_key(
            kinds.Text(),
            "Key under which a marked object holds its trades as an array; without it the marked object is the trade.",
        ),
    )
    time_key: str | None = field(
        default=None,
        metadata=_key(
            kinds.Text(),
            "Key of a trade that holds its time (a number since the epoch, or RFC 3339), for the figures on lag.",
        ),
    )
    login: tuple[LoginStep, ...] = field(
        default=(),
        metadata=_key(_Table(LoginStep, many=True), "The login exchange, step by step, as `[[feed.custom.login]]`."),
    )


Tls = Literal["auto", "kernel", "user"]


@dataclass(frozen=True)
class Feed:
    """The provider, and how the one connection to it is kept."""

    profile: str = field(
        default="massive",
        metadata=_key(kinds.Choice(*PROFILES), "How to log in and subscribe, and where trades and symbols are."),
    )
    url: str = field(
        default="",
        metadata=_key(kinds.WebSocketUrl(), "Where to connect to; without it, the profile's own. May use `{key}`."),
    )
    subscribe: tuple[str, ...] = field(
        default=(),
        metadata=_key(kinds.Texts('["T.*"]'), "What to subscribe to; without it, all that the profile offers."),
    )
    headers: Mapping[str, str] = field(
        default_factory=dict,
        metadata=_key(kinds.Headers(), "Header fields to add to the opening handshake. May use `{key}`. Never shown."),
    )
    ca_file: Path | None = field(
        default=None,
        metadata=_key(
            kinds.AbsolutePath("file"),
            "Certificates (PEM) to trust for wss:// beside the system's.",
        ),
    )
    tls: Tls = field(
        default="auto",
        metadata=_key(
            kinds.Choice(*get_args(Tls)),
            "Who decrypts wss://: the kernel, OpenSSL in the balancer's process, or the kernel where it can.",
        ),
    )
    max_message: int = field(
        default=64 * _MIB,
        metadata=_key(kinds.Size(1 << 10, _GIB), "Longest message to accept; a longer one ends the connection."),
    )
    connect_timeout: float = field(
        default=10.0,
        metadata=_key(kinds.Seconds(0.1, 600), "Longest wait for a connection: name, TCP, TLS and opening handshake."),
    )
    login_timeout: float = field(
        default=10.0,
        metadata=_key(kinds.Seconds(0.1, 600), "Longest wait for the provider's next answer during login."),
    )
    ping_interval: float = field(
        default=10.0,
        metadata=_key(kinds.Seconds(0.1, 3600), "Silence after which a ping is sent."),
    )
    ping_timeout: float = field(
        default=20.0,
        metadata=_key(kinds.Seconds(0.1, 3600), "Further silence after which the connection counts as dead."),
    )
    custom: CustomFeed | None = field(
        default=None,
        metadata=_key(_Table(CustomFeed), 'What a profile would say; goes with `profile = "custom"`.'),
    )


@dataclass(frozen=True)
class Shards:
    """How trades are split, and the FIFOs that carry them."""

    count: int = field(
        default=7,
        metadata=_key(
            kinds.Integer(1, 1024),
            "Number of shards, and so of FIFOs and workers. Choose an odd one: over even counts the hash spreads "
            "symbols unevenly.",
        ),
    )
    directory: Path = field(
        default=Path("/run/tradebal"),
        metadata=_key(
            kinds.AbsolutePath("directory"),
            "Holds `shard-0.fifo` and so on, and `metrics/`; belongs to one balancer at a time.",
        ),
    )
    pipe_size: int = field(
        default=64 * _MIB,
        metadata=_key(kinds.Size(1 << 12, 1 << 31), "Capacity of each FIFO; what the system granted is logged."),
    )
    framing: Literal["ndjson", "length32"] = field(
        default="ndjson",
        metadata=_key(
            kinds.Choice("ndjson", "length32"),
            "How a trade is told from the next: each on a line, or each behind its length as 4 bytes, little-endian.",
        ),
    )
    pin: Mapping[str, int] = field(
        default_factory=dict,
        metadata=_key(
            # As many as a router has room for (tradebal.router.interface), which a test compares.
            kinds.Pins(1 << 14, _MIB),
            "Symbols placed by hand; each number below `count`. All others go where their hash says.",
        ),
    )
    gap_records: bool = field(
        default=True,
        metadata=_key(kinds.Flag(), "Whether a record in the stream tells workers where trades are missing."),
    )


@dataclass(frozen=True)
class Overflow:
    """What happens to trades that a full FIFO doesn't take."""

    directory: Path = field(
        default=Path("/var/lib/tradebal/overflow"),
        metadata=_key(kinds.AbsolutePath("directory"), "Holds each shard's overflow file, and `rejects.ndjson`."),
    )
    limit: int = field(
        default=_GIB,
        metadata=_key(kinds.Size(0, 1 << 50), "Most that may wait for one shard beyond its FIFO."),
    )
    when_full: Literal["drop", "block"] = field(
        default="drop",
        metadata=_key(
            kinds.Choice("drop", "block"),
            "At the limit: drop that shard's newest trades, counted exactly; or stop reading until there is room.",
        ),
    )


@dataclass(frozen=True)
class Worker:
    """What each worker does with its trades."""

    handler: str = field(
        default="tradebal.handlers:Count",
        metadata=_key(kinds.ClassName(), "Class that gets the trades."),
    )
    options: Mapping[str, Any] = field(
        default_factory=dict,
        metadata=_key(kinds.Options(), "Keyword arguments for the handler; what they mean is up to it."),
    )
    on_error: Literal["continue", "stop"] = field(
        default="continue",
        metadata=_key(
            kinds.Choice("continue", "stop"),
            "After an exception in the handler: go on behind the batch, or stop and leave it to the next start.",
        ),
    )
    read_size: int = field(
        default=_MIB,
        metadata=_key(
            kinds.Size(1 << 12, 1 << 30),
            "Most that a worker reads at once; never more than half of what its FIFO holds.",
        ),
    )


@dataclass(frozen=True)
class Metrics:
    """How the figures of all units get out."""

    address: str = field(
        default="127.0.0.1:9570",
        metadata=_key(kinds.Address(), "Where the exporter listens; port 0 takes any free one."),
    )
    interval: float = field(
        default=1.0,
        metadata=_key(kinds.Seconds(0.05, 60), "Time between two writes of a unit's figures."),
    )

    @property
    def host(self) -> str:
        """Host part of `address`, an IPv6 address without its brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port part of `address`."""
        return int(self.address.rpartition(":")[2])


@dataclass(frozen=True)
class Log:
    """What each unit writes to its log."""

    level: Literal["debug", "info", "warning", "error"] = field(
        default="info",
        metadata=_key(
            kinds.Choice("debug", "info", "warning", "error"), "Least importance of the lines that are written."
        ),
    )
    statistics: bool = field(
        default=True,
        metadata=_key(kinds.Flag(), "Whether the balancer writes a line for each run of 8192 trades."),
    )


@dataclass(frozen=True)
class Config:
    """The whole configuration; `source` is the file that it came from, if any, and doesn't count when compared."""

    feed: Feed = field(
        default_factory=Feed,
        metadata=_key(_Table(Feed), "The provider, and how the one connection to it is kept."),
    )
    shards: Shards = field(
        default_factory=Shards,
        metadata=_key(_Table(Shards), "How trades are split, and the FIFOs that carry them."),
    )
    overflow: Overflow = field(
        default_factory=Overflow,
        metadata=_key(_Table(Overflow), "What happens to trades that a full FIFO doesn't take."),
    )
    worker: Worker = field(
        default_factory=Worker,
        metadata=_key(_Table(Worker), "What each worker does with its trades."),
    )
    metrics: Metrics = field(
        default_factory=Metrics,
        metadata=_key(_Table(Metrics), "How the figures of all units get out."),
    )
    log: Log = field(
        default_factory=Log,
        metadata=_key(_Table(Log), "What each unit writes to its log."),
    )
    source: Path | None = field(default=None, compare=False)

    @property
    def metrics_directory(self) -> Path:
        """Where each unit writes `<unit>.prom`."""
        return self.shards.directory / "metrics"

    def fifo(self, shard: int) -> Path:
        """Path of a shard's FIFO."""
        return self.shards.directory / f"shard-{shard}.fifo"


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


def _name(path: Path) -> str:
    return _one_line(str(path))


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)


def _place_first(message: str) -> str:
    match = re.fullmatch(r"(.*) \(at (?:(line \d+, column \d+)|(end of document))\)", message, re.DOTALL)
    if match is None:
        return f"not valid TOML: {_one_line(message)}"
    return f"{match[2] or match[3]}: not valid TOML: {_one_line(match[1])}"


def _keys_of(cls: type[Any], prefix: str) -> Iterator[KeyInfo]:
    for item in dataclasses.fields(cls):
        if not item.metadata:
            continue
        kind, path = item.metadata["kind"], prefix + item.name
        if isinstance(kind, _Table):
            yield from _keys_of(kind.cls, path + ("[]." if kind.many else "."))
        else:
            yield KeyInfo(path, kind.allowed, _default_of(item, kind), item.metadata["doc"])


def _default_of(item: dataclasses.Field[Any], kind: kinds.Kind) -> str:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    return "" if default in (MISSING, None, "", ()) else kind.write(default)


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


def _read_value(kind: kinds.Kind | _Table, value: object, path: str, name: str) -> Any:
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

    if path == "feed" and _SECRET_NAME.search(key):
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


_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|auth", re.IGNORECASE)


def _dump_table(name: str, table: Any, conceal: bool) -> str:
    lines = [f"[{name}]"]
    for item in dataclasses.fields(table):
        kind, value = item.metadata["kind"], getattr(table, item.name)
        # What is unset has no TOML form, and reads back as unset by its absence.
        if value is None or value == "" or value == () or item.name == "custom":
            continue
        if isinstance(kind, _Table):
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
            k: "***" if _SECRET_NAME.search(k) and not isinstance(v, bool) else _starred(v) for k, v in value.items()
        }
    return [_starred(item) for item in value] if isinstance(value, list | tuple) else value
