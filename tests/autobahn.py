"""A websocket client made of the real router and websocket-client's frames, that echoes what it is sent.

It is what Autobahn's test suite (https://github.com/crossbario/autobahn-testsuite) wants to talk to: the suite's server
plays one case in each connection and judges what the client answers.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import websocket
from websocket import ABNF

from tradebal.router.interface import EventKind, Status

AGENT = "tradebal"


def run_all_cases(address, make):
    """Play all cases that the suite's server at `address` ("host:port") has; return how many."""
    (count,) = run(make, f"ws://{address}/getCaseCount", echo=False)
    # Side by side, since some cases are silent for seconds.
    with ThreadPoolExecutor(8) as pool:
        urls = [f"ws://{address}/runCase?case={case}&agent={AGENT}" for case in range(1, int(count) + 1)]
        list(pool.map(lambda url: run(make, url), urls))
    run(make, f"ws://{address}/updateReports?agent={AGENT}", echo=False)
    return int(count)


def run(make, url, *, echo=True):
    """Hold one connection until the server ends it; return the messages that came if they weren't echoed."""
    client = websocket.create_connection(url, timeout=30)
    router = make(1, None)
    messages = []
    with contextlib.closing(client.sock) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while count := sock.recv_into(router.space()):
            router.received(count)
            while router.process() is Status.EVENT:
                event = router.event()
                if event.kind is EventKind.MESSAGE and not echo:
                    messages.append(event.data)
                elif answer := answer_to(event):
                    sock.sendall(answer)
    return messages


def answer_to(event):
    """Return the masked frame with which a client answers the event; None if it asks for none."""
    match event.kind:
        case EventKind.MESSAGE:
            return frame(event.data, event.code)
        case EventKind.PING:
            return frame(event.data, ABNF.OPCODE_PONG)
        case EventKind.CLOSE if event.code == 1005:
            return frame(b"", ABNF.OPCODE_CLOSE)
        case EventKind.CLOSE | EventKind.VIOLATION:
            return frame(event.code.to_bytes(2, "big"), ABNF.OPCODE_CLOSE)
    return None


def frame(payload, opcode):
    return ABNF(fin=1, opcode=opcode, mask_value=1, data=payload).format()
