"""The load of every benchmark: a block of trades as a provider sends them, and what each shard must get of it."""

from __future__ import annotations

import bisect
import itertools
import random
import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TRADES = 30720
"""Trades in a block; a multiple of 128, 15 and 3, so that whole frames fill it at each of these sizes."""

_SYMBOLS = 6000
_TOP = ("SPY", 0.022), ("TSLA", 0.011), ("AAPL", 0.010)
_START_MS = 1606487400000  # 27 November 2020, 09:30 in New York


def trades(seed: int = 1, count: int = TRADES) -> list[tuple[str, bytes]]:
    """Give symbol and JSON text of numbered trades: 105 bytes (104.7) on average, the market's skew over 6,000 symbols.

    Compact, and with the shortest form of each number, so that a client that decodes and encodes them again gives the
    same bytes.
    """
    rng = random.Random(seed)
    symbols, cumulative = _universe(rng)
    made = []
    for number in range(1, count + 1):
        symbol = symbols[bisect.bisect_left(cumulative, rng.random() * cumulative[-1])]
        dark = rng.random() < 0.36
        price = round(rng.lognormvariate(4, 1), 2 if rng.random() < 0.8 else 4)
        fields = [
            f'"ev":"T","sym":"{symbol}"',
            f'"x":{4 if dark else rng.randint(1, 21)}',
            f'"i":"{rng.randint(1, 99999)}"',
            f'"z":{rng.randint(1, 3)}',
            f'"p":{price!r}',
            f'"s":{rng.choice((100, 1, 10, 25, 200, 500, 1500))}',
        ]
        if rng.random() < 0.8:
            fields.append(f'"c":{rng.choice(("[37]", "[12,37]", "[14,41]", "[12]"))}')
        fields += [f'"t":{_START_MS + number}', f'"q":{number}']
        if dark:
            fields.append(f'"trfi":{rng.choice((201, 202, 203))}')
        made.append((symbol, ("{" + ",".join(fields) + "}").encode()))
    return made


def _universe(rng: random.Random) -> tuple[list[str], list[float]]:
    names = [name for name, _ in _TOP]
    taken = set(names)
    while len(names) < _SYMBOLS:
        length = rng.choices((1, 2, 3, 4, 5), (1, 8, 45, 40, 6))[0]
        name = "".join(rng.choices(string.ascii_uppercase, k=length))
        if name not in taken:
            taken.add(name)
            names.append(name)
    tail = [1 / (rank + 12) ** 0.85 for rank in range(_SYMBOLS - len(_TOP))]
    share = (1 - sum(weight for _, weight in _TOP)) / sum(tail)
    weights = [weight for _, weight in _TOP] + [weight * share for weight in tail]
    return names, list(itertools.accumulate(weights))


def shard_of(symbol: str, shards: int) -> int:
    """FNV-1a, 64 bit, upper half, modulo: written here once more, so that the check doesn't rest on what it checks."""
    value = 0xCBF29CE484222325
    for byte in symbol.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return (value >> 32) % shards


def frame(payload: bytes) -> bytes:
    """Give one unmasked text frame (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x81, length) + payload
    if length < 65536:
        return struct.pack("!BBH", 0x81, 126, length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload


@dataclass(frozen=True)
class Block:
    """Frames in a file, for `load`, and what they come to."""

    path: Path
    trades: int
    frames: int
    bytes: int
    byte_sum: int
    """The values of all bytes, added up."""


@dataclass(frozen=True)
class Expected:
    """What each shard gets of a block, in a file, for `load`."""

    path: Path
    bytes: int
    largest_share: float
    """Of the bytes, 0..1: what the shard gets that gets the most."""


def write_block(path: Path, texts: Sequence[bytes], per_frame: int) -> Block:
    """Write the trades as websocket frames of `per_frame` trades each."""
    frames = [frame(b"[" + b",".join(texts[i : i + per_frame]) + b"]") for i in range(0, len(texts), per_frame)]
    data = b"".join(frames)
    path.write_bytes(data)
    return Block(path, len(texts), len(frames), len(data), sum(data))


def write_expected(path: Path, made: Sequence[tuple[str, bytes]], shards: int) -> Expected:
    """Write what the shards must give, as ndjson."""
    parts: list[list[bytes]] = [[] for _ in range(shards)]
    for symbol, text in made:
        parts[shard_of(symbol, shards)].append(text + b"\n")
    joined = [b"".join(part) for part in parts]
    path.write_bytes(struct.pack(f"={shards}Q", *map(len, joined)) + b"".join(joined))
    sizes = [len(part) for part in joined]
    return Expected(path, sum(sizes), max(sizes) / sum(sizes))
