"""Events that people search the journal for: each has a MESSAGE_ID, and an explanation in systemd/tradebal.catalog.

`journalctl MESSAGE_ID=…` finds all of a kind, `journalctl -x` explains them, `journalctl -o json` shows their fields.
"""

from __future__ import annotations

from typing import Any


class Event:
    """A kind of log line. Called with the line's fields, it gives what `logging` wants as `extra`."""

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        """128 bits in hexadecimal, as journald wants it (sd-id128(3)); never changed and never used again."""

    def __call__(self, **fields: object) -> dict[str, Any]:
        """Give the record's MESSAGE_ID and these fields to the journal; elsewhere they aren't shown."""
        return {"journal": {"MESSAGE_ID": self.message_id, **fields}}


LIVE = Event("ea1287da86c54b0ca963b75a8a975cbf")
"""Connected to the provider, logged in and subscribed: trades flow."""
DISCONNECTED = Event("15eb057da6644a86b4339a06f9a5a61a")
"""The connection to the provider was lost."""
CONNECT_FAILED = Event("96c55eb1f13e4885984eddbc83d1c594")
"""A try to connect to the provider failed."""
RATE = Event("9e63015331ac4ccdb443045c01f2a912")
"""Statistics: one line for each run of 8192 trades."""
HIGHEST_RATE = Event("83f10f8a27b44cb5a880e89a76c14418")
"""A batch of 8192 trades was faster than all before it."""
OVERFLOW_BEGAN = Event("74ed5d71606f4dc9a141718366779b27")
"""A shard's FIFO is full; its trades wait in memory."""
OVERFLOW_ENDED = Event("d53e259d341c461292ccc6035fa374c5")
"""A shard's worker has caught up."""
DROPPED = Event("47324b4d9c5242bcb5a2d16a88340a82")
"""Trades of a shard were dropped, since its overflow was full."""
REJECTED = Event("0785e7ae87d64700a573375dc180d238")
"""Something that the provider sent could not be routed."""
TAKEN_OVER = Event("0bb540d67d554844b3500ce7aabf85c7")
"""The balancer before this one was killed; this one took over its FIFOs."""
SMALL_FIFOS = Event("c52c6f8f3d5c4b838929be58388b5203")
"""The kernel gave smaller FIFOs than asked for."""
HANDLER_FAILED = Event("e337d851d6784d1883993aaa9a310493")
"""A worker's handler raised an exception."""
TORN = Event("740afef769894cdeb7837cd3cc16b794")
"""A worker found a torn record."""
RELOADED = Event("43bce71c52594882882d7e4d7da71a3f")
"""The configuration was read again."""
NOT_RELOADED = Event("af855299200b4115ade921369f181fe2")
"""The configuration was read again, but not all of it can be taken over by a running balancer."""
