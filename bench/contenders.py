"""The programs that are measured side by side, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import CA_FILE, HERE, KEY, OUT, Contender

READ_SIZE = 512 << 10
"""Bytes per recv of the floor: the size at which it is fastest here (see README.md)."""


@dataclass(frozen=True)
class Balancer(Contender):
    """The real `tradebal balancer`, as a user runs it."""

    router: str = "native"
    decrypts: str = ""
    """feed.tls of a balancer that is reached by wss."""

    def command(self, url: str, directory: Path, shards: int, pipe_size: int) -> Sequence[str | Path]:
        """See Contender."""
        feed = f'tls = "{self.decrypts}"\nca_file = "{directory.parent / CA_FILE}"' if self.wss else ""
        return balancer_command(url, directory, shards, pipe_size, feed)

    def environment(self) -> Mapping[str, str]:
        """See Contender."""
        return {"TRADEBAL_FEED_KEY": KEY, "TRADEBAL_ROUTER": self.router}


def balancer_command(url: str, directory: Path, shards: int, pipe_size: int, feed: str = "") -> Sequence[str | Path]:
    """Write a configuration beside `directory`, with further lines for [feed], and give the balancer's command line."""
    config = directory.parent / "tradebal.toml"
    config.write_text(
        f'[feed]\nurl = "{url}"\n{feed}\n'
        f'[shards]\ncount = {shards}\ndirectory = "{directory}"\npipe_size = {pipe_size}\n'
        f'[overflow]\ndirectory = "{directory.parent / "overflow"}"\n'
    )
    return [sys.executable, "-m", "tradebal", "balancer", "--config", config]


@dataclass(frozen=True)
class Floor(Contender):
    """recv → write of the same bytes, in C."""

    way: str = "split"

    def command(self, url: str, directory: Path, shards: int, pipe_size: int) -> Sequence[str | Path]:
        """See Contender."""
        port = url.split(":")[2].partition("/")[0]
        # In turn, each read must find room in one FIFO, or the floor would pay for waiting.
        read_size = min(READ_SIZE, pipe_size) if self.way == "rotate" else READ_SIZE
        return [OUT / "floor", port, directory, str(shards), str(pipe_size), str(read_size), self.way]


@dataclass(frozen=True)
class Client(Contender):
    """A Python client that decodes each message, and encodes each trade again."""

    script: str = ""
    way: str = ""

    def command(self, url: str, directory: Path, shards: int, pipe_size: int) -> Sequence[str | Path]:
        """See Contender."""
        return [sys.executable, HERE / self.script, url, directory, str(shards), str(pipe_size), *self.way.split()]


OURS = Balancer("tradebal", "tradebal balancer")
FLOOR = Floor("floor", "bare recv → write, split", websocket=False, by_shard=False)
COPY = Floor("copy", "bare recv → copy → write", websocket=False, by_shard=False, way="copy")
ROTATE = Floor("rotate", "bare recv → write, in turn", websocket=False, by_shard=False, way="rotate")
NAIVE = Client("naive", "websocket-client + orjson", script="naive_client.py", way="plain")
TUNED = Client("tuned", "websocket-client, tuned", script="naive_client.py", way="tuned")
PICOWS = Client("picows", "picows + orjson", script="picows_client.py")
WSS_USER = Balancer("wss-user", "OpenSSL in the balancer", wss=True, decrypts="user")
WSS_KERNEL = Balancer("wss-kernel", "the kernel", wss=True, decrypts="kernel")
PYTHON = Balancer("python", "tradebal, Python router", router="python")

COMPILED = (OURS, FLOOR, COPY, ROTATE)
"""What differs by percents and not by factors."""
PYTHON_ROUNDS = 3
"""Rounds in which the others, all in Python, take part."""
