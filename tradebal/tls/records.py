"""The TLS record layer as far as it stays ours: one record at a time, and what is in those that hold no data."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

HEADER_SIZE = 5
MAX_PAYLOAD = (1 << 14) + 2048
"""Bytes of a record's payload at most (RFC 5246, section 6.2.3; TLS 1.3 permits 256 beyond 2^14)."""
MAX_MESSAGE = 1 << 17
"""Bytes of a handshake message at most that is taken after the handshake; a session ticket has some hundred."""


class ContentType(enum.IntEnum):
    """What a record holds (RFC 8446, section 5.1)."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(enum.IntEnum):
    """What a handshake message is (RFC 8446, section 4; HELLO_REQUEST: RFC 5246, section 7.4)."""

    HELLO_REQUEST = 0
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    KEY_UPDATE = 24


ALERTS = {
    # IANA's registry of TLS alerts.
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}


class TlsError(OSError):
    """What came through TLS ends the connection; the text says what it was."""


class AlertError(TlsError):
    """The peer gave up, by an alert."""


class RecordError(TlsError):
    """A record isn't what the peer encrypted: it was changed, cut or made up on the way, or another one is missing."""


class RekeyError(TlsError):
    """The peer has new keys, which the kernel can't take."""


class Record(NamedTuple):
    """A record as it went over the network."""

    type: int
    payload: bytes


def payload_size(header: bytes) -> int | None:
    """Return the size of the payload that a header announces, in bytes; None if that is no record's header."""
    size = int.from_bytes(header[3:5], "big")
    kinds = range(ContentType.CHANGE_CIPHER_SPEC, ContentType.APPLICATION_DATA + 1)
    if header[0] not in kinds or header[1] != 3 or size > MAX_PAYLOAD:
        return None
    return size


def split(flight: bytes) -> Iterator[Record]:
    """Give the records of a flight that OpenSSL wrote."""
    while flight:
        end = HEADER_SIZE + int.from_bytes(flight[3:5], "big")
        yield Record(flight[0], flight[HEADER_SIZE:end])
        flight = flight[end:]


def alert(payload: bytes) -> tuple[int, str]:
    """Return level and name of an alert; TlsError if it is none."""
    if len(payload) != 2:
        raise TlsError("an alert of a wrong length")
    return payload[0], ALERTS.get(payload[1], f"alert {payload[1]}")


class Messages:
    """Joins the handshake messages that come after the handshake, each of which may take several records."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, payload: bytes) -> Iterator[tuple[int, bytes]]:
        """Give type and body of each message that is whole now; TlsError if one is too long."""
        self._waiting += payload
        while len(self._waiting) >= 4:
            end = 4 + int.from_bytes(self._waiting[1:4], "big")
            if end > MAX_MESSAGE:
                raise TlsError(f"a handshake message of {end} bytes")
            if len(self._waiting) < end:
                return
            kind, body = self._waiting[0], bytes(self._waiting[4:end])
            del self._waiting[:end]
            yield kind, body
