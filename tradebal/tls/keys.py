"""Derives the keys that encrypt records from the secrets that a handshake ends with."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import NamedTuple

from tradebal.tls.memory import own, wipe


class Suite(NamedTuple):
    """An authenticated cipher that encrypts records, with what belongs to it."""

    endings: tuple[str, ...]
    """How OpenSSL's names of the cipher suites with it end."""
    hash: str
    """As hashlib names it."""
    key_size: int
    """In bytes, as the others."""
    fixed_iv_size: int
    """Of TLS 1.2: the part of the nonce that comes from the handshake (RFC 5288, section 3; RFC 7905, section 2)."""


AES_128_GCM = Suite(("TLS_AES_128_GCM_SHA256", "-AES128-GCM-SHA256"), "sha256", 16, 4)
AES_256_GCM = Suite(("TLS_AES_256_GCM_SHA384", "-AES256-GCM-SHA384"), "sha384", 32, 4)
CHACHA20_POLY1305 = Suite(("TLS_CHACHA20_POLY1305_SHA256", "-CHACHA20-POLY1305"), "sha256", 32, 12)
SUITES = (AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305)

IV_SIZE = 12
"""Of TLS 1.3, with each of them (RFC 8446, section 5.3)."""


def find_suite(cipher: str) -> Suite | None:
    """Return what OpenSSL's name of a cipher suite stands for; None for one that isn't known here."""
    return next((suite for suite in SUITES if cipher.endswith(suite.endings)), None)


@dataclass(repr=False)
class TrafficKey:
    """What one direction's records are encrypted with."""

    key: bytearray
    iv: bytearray
    """TLS 1.3: XORed with the sequence number. TLS 1.2: the nonce's fixed part."""

    def wipe(self) -> None:
        """Overwrite both."""
        wipe(self.key, self.iv)


def expand_label(secret: bytearray, label: str, size: int, hash_name: str) -> bytearray:
    """Return HKDF-Expand-Label with an empty context (RFC 8446, section 7.1); `size` is at most the hash's own."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    # Within the hash's size, HKDF-Expand is one step (RFC 5869, section 2.3).
    block = own(hmac.digest(secret, info + b"\x01", hash_name))
    result = block[:size]
    wipe(block)
    return result


def traffic_key(secret: bytearray, suite: Suite) -> TrafficKey:
    """Return TLS 1.3's key for a traffic secret (RFC 8446, section 7.3)."""
    key = expand_label(secret, "key", suite.key_size, suite.hash)
    return TrafficKey(key, expand_label(secret, "iv", IV_SIZE, suite.hash))


def update(secret: bytearray, suite: Suite) -> None:
    """Replace a traffic secret by the one that follows it after a KeyUpdate (RFC 8446, section 7.2)."""
    secret[:] = following = expand_label(secret, "traffic upd", len(secret), suite.hash)
    wipe(following)


def prf(secret: bytearray, label: bytes, seed: bytes, size: int, hash_name: str) -> bytearray:
    """Return `size` bytes of TLS 1.2's pseudorandom function (RFC 5246, section 5)."""
    a = seed = label + seed
    result = bytearray(size)
    at = 0
    while at < size:
        a = hmac.digest(secret, a, hash_name)
        block = own(hmac.digest(secret, a + seed, hash_name))
        with memoryview(block)[: size - at] as part:
            result[at : at + len(part)] = part
            at += len(part)
        wipe(block)
    return result


def key_block(
    master: bytearray, client_random: bytes, server_random: bytes, suite: Suite
) -> tuple[TrafficKey, TrafficKey]:
    """Return TLS 1.2's keys of client and server for a master secret (RFC 5246, section 6.3)."""
    key, iv = suite.key_size, suite.fixed_iv_size
    block = prf(master, b"key expansion", server_random + client_random, 2 * (key + iv), suite.hash)
    ivs = 2 * key
    client = TrafficKey(block[:key], block[ivs : ivs + iv])
    server = TrafficKey(block[key:ivs], block[ivs + iv :])
    wipe(block)
    return client, server
