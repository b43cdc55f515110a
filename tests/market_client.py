"""A plain client of a Massive-like provider, for tests: websocket-client, and nothing that hides what was received."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import websocket


@contextlib.contextmanager
def connected(url: str, ca: Path | None = None, buffer: int = 0) -> Iterator[websocket.WebSocket]:
    """Connect; with `buffer` the kernel keeps only about so many unread bytes."""
    tls = {"ca_certs": str(ca)} if ca else None
    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)] if buffer else []
    client = websocket.create_connection(url, timeout=20, sslopt=tls, sockopt=options)
    try:
        yield client
    finally:
        # close() does nothing once a close frame was answered, and would then leave the socket open.
        client.shutdown()


@contextlib.contextmanager
def logged_in(
    url: str, key: str = "key", topics: str = "T.*", ca: Path | None = None, buffer: int = 0
) -> Iterator[websocket.WebSocket]:
    with connected(url, ca, buffer) as client:
        assert statuses(client.recv()) == ["connected"]
        client.send(json.dumps({"action": "auth", "params": key}))
        assert statuses(client.recv()) == ["auth_success"]
        client.send(json.dumps({"action": "subscribe", "params": topics}))
        assert set(statuses(client.recv())) == {"success"}
        yield client


def statuses(message: str | bytes) -> list[str]:
    return [entry["status"] for entry in json.loads(message)]


def messages(client: websocket.WebSocket) -> Iterator[tuple[int, bytes]]:
    """Every message until the close, which comes last, as (opcode, payload)."""
    while True:
        opcode, data = client.recv_data(control_frame=True)
        yield opcode, data
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return


def close_code(data: bytes) -> int:
    return int.from_bytes(data[:2], "big")


def objects(client: websocket.WebSocket) -> Iterator[dict]:
    """Every object of every text message until the connection is closed."""
    for opcode, data in messages(client):
        if opcode == websocket.ABNF.OPCODE_TEXT:
            yield from json.loads(data)
