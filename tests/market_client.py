"""A plain client of a Massive-like provider, for tests: websocket-client, and nothing that hides what was received."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import websocket


def connect(url: str, ca: Path | None = None) -> websocket.WebSocket:
    options = {"ca_certs": str(ca)} if ca else None
    return websocket.create_connection(url, timeout=20, sslopt=options)


@contextlib.contextmanager
def logged_in(url: str, key: str = "key", topics: str = "T.*", ca: Path | None = None) -> Iterator[websocket.WebSocket]:
    with contextlib.closing(connect(url, ca)) as client:
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
