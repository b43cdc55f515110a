"""Which shard a symbol belongs to, in one readable place."""

from __future__ import annotations

from collections.abc import Mapping

from tradebal.router.interface import MAX_PINS, MAX_PINS_SIZE

# Parameters of FNV-1a, 64 bits: Fowler, Noll, Vo, http://www.isthe.com/chongo/tech/comp/fnv/
FNV_OFFSET_BASIS = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
_MASK = (1 << 64) - 1


def fnv1a64(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash of `data`, 0..2**64-1."""
    value = FNV_OFFSET_BASIS
    for byte in data:
        value = (value ^ byte) * FNV_PRIME & _MASK
    return value


def shard_of(symbol: bytes, shards: int, pins: Mapping[bytes, int] | None = None) -> int:
    """Return the shard, 0..shards-1, of a symbol given as unescaped UTF-8.

    A pinned symbol goes where its pin says. All others: the hash's upper 32 bits modulo the number of shards, as in
    the founding system (trade-balancer), so that a move from it keeps each symbol's worker.
    """
    if pins and symbol in pins:
        return pins[symbol]
    return (fnv1a64(symbol) >> 32) % shards


def check_pins(pins: Mapping[bytes, int], shards: int) -> None:
    """Raise ValueError where a symbol is pinned to no shard of 0..shards-1, or there are too many pins."""
    for symbol, shard in pins.items():
        if not 0 <= shard < shards:
            raise ValueError(f"{symbol!r} is pinned to shard {shard}, must be 0 to {shards - 1}")
    if len(pins) > MAX_PINS or sum(map(len, pins)) > MAX_PINS_SIZE:
        raise ValueError(
            f"{len(pins)} symbols are pinned, must be at most {MAX_PINS} with {MAX_PINS_SIZE} bytes in all"
        )
