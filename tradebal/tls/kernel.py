"""Kernel TLS (linux/tls.h): whether it is to be had, and how a socket's keys are given to it."""

from __future__ import annotations

import errno
import socket
import struct

from tradebal.tls import keys
from tradebal.tls.keys import Suite, TrafficKey
from tradebal.tls.memory import wipe
from tradebal.tls.records import ContentType

HOW_TO_GET = "modprobe tls; to have it after every boot: echo tls >/etc/modules-load.d/tradebal.conf"

TLS_1_2 = 0x0303
TLS_1_3 = 0x0304

# Python's socket module names none of these: linux/tcp.h, linux/socket.h, linux/tls.h.
_TCP_ULP = 31
_ULP = b"tls"
_SOL_TLS = 282
TX, RX = 1, 2
"""The directions: TLS_TX and TLS_RX."""
_RX_EXPECT_NO_PAD = 4
_SET_RECORD_TYPE = 1
_GET_RECORD_TYPE = 2

_CIPHERS = {keys.AES_128_GCM: 51, keys.AES_256_GCM: 52, keys.CHACHA20_POLY1305: 54}
_SALT_SIZES = {keys.AES_128_GCM: 4, keys.AES_256_GCM: 4, keys.CHACHA20_POLY1305: 0}
"""Bytes of the nonce that the kernel calls salt; the others it calls iv."""


def why_not() -> str:
    """Return why this kernel decrypts no TLS; "" if it does."""
    with socket.socket() as probe:
        try:
            attach(probe)
        except OSError as error:
            if error.errno == errno.ENOTCONN:  # the protocol is there, and minds only that nothing is connected
                return ""
            if error.errno == errno.ENOENT:
                return "the kernel's module tls isn't loaded"
            return f"this kernel has no TLS ({error.strerror})"
    return ""


def attach(sock: socket.socket) -> None:
    """Put the kernel's TLS above a TCP socket; until it has keys, bytes pass through as they are."""
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_ULP, _ULP)


def set_key(
    sock: socket.socket,
    direction: int,
    version: int,
    suite: Suite,
    key: TrafficKey,
    sequence: int = 0,
    explicit_nonce: bytes = bytes(8),
) -> None:
    """Have the kernel encrypt (TX) or decrypt (RX) from here on; `sequence` is the next record's number.

    `explicit_nonce` is what the next record is sent with by TLS 1.2 with AES-GCM (RFC 5288, section 3).
    """
    salt = _SALT_SIZES[suite]
    iv = (key.iv + explicit_nonce)[: keys.IV_SIZE]
    # The order of tls12_crypto_info_aes_gcm_128 and its like.
    fields = (
        struct.pack("=HH", version, _CIPHERS[suite]), iv[salt:], key.key, iv[:salt], sequence.to_bytes(8, "big")
    )  # fmt: skip
    info = bytearray().join(fields)
    try:
        sock.setsockopt(_SOL_TLS, direction, info)
    finally:
        wipe(info, iv)


def expect_no_padding(sock: socket.socket) -> None:
    """Have the kernel decrypt TLS 1.3 straight into the reader's buffer, as for TLS 1.2, where it can (Linux 6.0).

    It then does so before it knows whether a record is padded, or is data at all, and does it again for one that is
    otherwise: nobody but a peer that pads its records loses by it.
    """
    try:
        sock.setsockopt(_SOL_TLS, _RX_EXPECT_NO_PAD, 1)
    except OSError:
        return


def receive_record(sock: socket.socket, size: int) -> tuple[int, bytes] | None:
    """Take type and content of the record that recv stops at, up to `size` bytes; None at the end of the stream."""
    content, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_SPACE(1))
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_TLS, _GET_RECORD_TYPE):
            return data[0], content
    return (ContentType.APPLICATION_DATA, content) if content else None


def send_record(sock: socket.socket, content_type: ContentType, content: bytes) -> None:
    """Send a record that holds no data; BlockingIOError if there is no room for it."""
    sock.sendmsg([content], [(_SOL_TLS, _SET_RECORD_TYPE, bytes([content_type]))], socket.MSG_DONTWAIT)
