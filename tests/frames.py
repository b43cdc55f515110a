"""Builds the frames that a websocket server sends, valid or not (RFC 6455, section 5.2)."""

import itertools

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def frame(opcode, payload=b"", *, fin=True, reserved=0, mask=None, length_size=None, length=None):
    """Return one frame.

    `reserved` are the three reserved bits as a number, `mask` four bytes; `length_size` (1, 2 or 8) forces the form
    of the length, and `length` another length than the payload's.
    """
    first = fin << 7 | reserved << 4 | opcode
    masked = 0x80 if mask is not None else 0
    length = len(payload) if length is None else length
    if length_size is None:
        length_size = 1 if length < 126 else 2 if length < 1 << 16 else 8
    if length_size == 1:
        head = bytes([first, masked | length])
    else:
        head = bytes([first, masked | (126 if length_size == 2 else 127)]) + length.to_bytes(length_size, "big")
    if mask is not None:
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        head += mask
    return head + payload


def text(payload):
    """Return an unfragmented text message."""
    return frame(TEXT, payload)


def close(code, reason=b""):
    """Return a close frame with a code."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def fragments(payload, cuts, opcode=TEXT):
    """Return the frames of a message that is fragmented at the offsets `cuts`."""
    edges = [0, *sorted(cuts), len(payload)]
    return [
        frame(
            opcode if not number else CONTINUATION,
            payload[begin:end],
            fin=number == len(edges) - 2,
        )
        for number, (begin, end) in enumerate(itertools.pairwise(edges))
    ]
