"""Keeps secrets in memory that can be overwritten, which Python's bytes can't."""

from __future__ import annotations

import ctypes


def own(secret: bytes) -> bytearray:
    """Return a copy that `wipe` takes, and overwrite `secret`: fresh, longer than a byte, and nobody else's."""
    owned = bytearray(secret)
    # CPython keeps the contents at the object's end, before one more byte.
    ctypes.memset(id(secret) + bytes.__basicsize__ - 1, 0, len(secret))
    return owned


def wipe(*secrets: bytearray) -> None:
    """Overwrite secrets where they stand."""
    for secret in secrets:
        secret[:] = bytes(len(secret))
