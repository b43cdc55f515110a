"""The fastest client that Python's packages give: picows on uvloop, orjson, os.write.

python picows_client.py URL DIRECTORY SHARDS PIPE_SIZE
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import uvloop
from harness import KEY
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from sharding import make_fifos, make_router


class Listener(WSListener):
    """Log in, subscribe, then route each message in place."""

    def __init__(self, route: Callable[[bytes | memoryview], None]) -> None:
        super().__init__()
        self._route = route
        self._answers = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Called by picows for each frame; its bytes are valid only until this returns."""
        if frame.msg_type != WSMsgType.TEXT:
            return
        if self._answers == 3:
            self._route(frame.get_payload_as_memoryview())
            return
        self._answers += 1
        if self._answers == 1:
            transport.send(WSMsgType.TEXT, b'{"action":"auth","params":"%s"}' % KEY.encode())
        elif self._answers == 2:
            transport.send(WSMsgType.TEXT, b'{"action":"subscribe","params":"T.*"}')


async def main() -> None:
    url, directory, shards, pipe_size = sys.argv[1:]
    route = make_router(make_fifos(Path(directory), int(shards), int(pipe_size)))
    transport, _ = await ws_connect(lambda: Listener(route), url)
    await transport.wait_disconnected()


uvloop.run(main())
