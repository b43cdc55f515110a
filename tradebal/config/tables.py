"""Declares each configuration key once: name, type, range, default and meaning, as a dataclass field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tradebal.config import kinds
from tradebal.stream.framing import Framing

Profile = Literal["massive", "polygon", "alpaca", "coinbase", "kraken", "custom"]
Tls = Literal["auto", "kernel", "user"]
WhenFull = Literal["drop", "block"]
OnError = Literal["continue", "stop"]
LogLevel = Literal["debug", "info", "warning", "error"]

PROFILES: tuple[Profile, ...] = get_args(Profile)

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True)
class Table:
    """A key that holds a table of its own, or with `many` a list of such tables, with the fields of `cls`."""

    cls: type[Any]
    many: bool = False

    @property
    def allowed(self) -> str:
        """Completes "must be …"."""
        return "a list of tables" if self.many else "a table"


def _key(kind: kinds.Kind | Table, doc: str) -> dict[str, Any]:
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
    """Describes a feed for which there is no profile."""

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
            "Key of a trade that holds its time (a number since the epoch, or RFC 3339), for the metrics on lag.",
        ),
    )
    login: tuple[LoginStep, ...] = field(
        default=(),
        metadata=_key(Table(LoginStep, many=True), "The login exchange, step by step, as `[[feed.custom.login]]`."),
    )


@dataclass(frozen=True)
class Feed:
    """The provider, and how the one connection to it is kept."""

    profile: str = field(
        default="massive",
        metadata=_key(kinds.Choice(Profile), "How to log in and subscribe, and where trades and symbols are."),
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
            kinds.Choice(Tls),
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
        metadata=_key(Table(CustomFeed), 'Describes the feed in place of a profile; requires `profile = "custom"`.'),
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
        metadata=_key(kinds.Size(1 << 12, 1 << 31), "Capacity of each FIFO; the log shows what the kernel granted."),
    )
    framing: Framing = field(
        default="ndjson",
        metadata=_key(
            kinds.Choice(Framing),
            "How records are delimited: each on a line, or each after its length as 4 bytes, little-endian.",
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
        metadata=_key(
            kinds.AbsolutePath("directory"), "Holds `rejects.ndjson`. (What waits for a worker waits in memory.)"
        ),
    )
    limit: int = field(
        default=_GIB,
        metadata=_key(
            kinds.Size(0, 1 << 50),
            "Most that may wait in memory for one shard, beyond its FIFO; all shards together may take `shards.count` "
            "times as much.",
        ),
    )
    when_full: WhenFull = field(
        default="drop",
        metadata=_key(
            kinds.Choice(WhenFull),
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
    on_error: OnError = field(
        default="continue",
        metadata=_key(
            kinds.Choice(OnError),
            "After an exception in the handler: continue after the batch, or stop and leave it to the next start.",
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
    """How the metrics of all units are published."""

    address: str = field(
        default="127.0.0.1:9570",
        metadata=_key(kinds.Address(), "Where the exporter listens; port 0 takes any free one."),
    )
    interval: float = field(
        default=1.0,
        metadata=_key(kinds.Seconds(0.05, 60), "Time between two writes of a unit's metrics."),
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

    level: LogLevel = field(
        default="info",
        metadata=_key(kinds.Choice(LogLevel), "Lowest level of the log lines that are written."),
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
        metadata=_key(Table(Feed), "The provider, and how the one connection to it is kept."),
    )
    shards: Shards = field(
        default_factory=Shards,
        metadata=_key(Table(Shards), "How trades are split, and the FIFOs that carry them."),
    )
    overflow: Overflow = field(
        default_factory=Overflow,
        metadata=_key(Table(Overflow), "What happens to trades that a full FIFO doesn't take."),
    )
    worker: Worker = field(
        default_factory=Worker,
        metadata=_key(Table(Worker), "What each worker does with its trades."),
    )
    metrics: Metrics = field(
        default_factory=Metrics,
        metadata=_key(Table(Metrics), "How the metrics of all units are published."),
    )
    log: Log = field(
        default_factory=Log,
        metadata=_key(Table(Log), "What each unit writes to its log."),
    )
    source: Path | None = field(default=None, compare=False)

    @property
    def metrics_directory(self) -> Path:
        """Where each unit writes `<unit>.prom`."""
        return self.shards.directory / "metrics"

    def fifo(self, shard: int) -> Path:
        """Path of a shard's FIFO."""
        return self.shards.directory / f"shard-{shard}.fifo"
