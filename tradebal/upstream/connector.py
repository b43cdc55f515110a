"""Opens the websocket in a thread, so that no name server, proxy or provider can hold up the loop that moves trades."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import threading

from tradebal import __version__
from tradebal.upstream import failures, proxies
from tradebal.upstream.answer import BoundedWebSocket
from tradebal.upstream.connection import Connection
from tradebal.upstream.failures import Failure
from tradebal.upstream.target import Target
from tradebal.wakeup import Wakeup


class Connector:
    """One try to open the websocket: `start`, wait until `fileno` is readable, take `result`; or `cancel`.

    The thread is a daemon, since nothing can interrupt a name lookup: one that is still at it after `cancel` holds
    neither the loop nor the process, and closes what it opens.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._wakeup = Wakeup()
        self._lock = threading.Lock()
        self._cancelled = False
        self._done = False
        self._result: Connection | Failure | None = None
        self._proxy: proxies.Proxy | None = None
        self._websocket = BoundedWebSocket(sslopt={"context": target.tls} if target.tls else None)

    def start(self) -> None:
        """Begin in the background."""
        threading.Thread(target=self._run, name="connect", daemon=True).start()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when `result` has something; -1 after `cancel`."""
        return self._wakeup.fileno()

    def result(self) -> Connection | Failure | None:
        """Return the open connection, whose owner the caller is from now on, or why there is none; None: not yet."""
        with self._lock:
            result, self._result = self._result, None
            return result

    def cancel(self) -> None:
        """Let go of everything but a connection already taken from `result`, and end what is still under way."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            self._wakeup.close()
            if isinstance(self._result, Connection):
                self._result.close()
            elif not self._done and (sock := self._websocket.sock) is not None:
                # The thread may be reading an answer that never ends.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def timed_out(self) -> Failure:
        """Cancel because `target.timeout` has passed; say what took so long."""
        stage = failures.CONNECTION if self._websocket.sock is None else failures.ANSWER
        self.cancel()
        return failures.no_answer(self._target, self._proxy, stage)

    def _run(self) -> None:
        try:
            result = self._open()
        except Exception as error:
            # Whatever the handshake can run into must end up as a line for the user, not as a thread's traceback.
            result = failures.explain(error, self._target, self._proxy, self._websocket.headers or {})
        with self._lock:
            self._done = True
            if not self._cancelled:
                self._result = result
                self._wakeup.wake()
                return
        if isinstance(result, Connection):
            result.close()

    def _open(self) -> Connection | Failure:
        target = self._target
        try:
            self._proxy = proxies.find(target.host, target.port, secure=target.tls is not None)
        except ValueError as error:
            return self._failed("proxy", str(error))
        if self._proxy is not None and self._proxy.kind != "http" and importlib.util.find_spec("python_socks") is None:
            return self._failed("proxy", "a SOCKS proxy needs one more package: pip install python-socks")
        headers = dict(target.headers)
        host = next((headers.pop(name) for name in target.headers if name.lower() == "host"), None)
        if not any(name.lower() == "user-agent" for name in headers):
            headers["User-Agent"] = f"tradebal/{__version__}"
        self._websocket.connect(  # type: ignore[no-untyped-call]
            target.url,
            timeout=target.timeout,
            suppress_origin=True,
            redirect_limit=0,
            host=host,
            header=[f"{name}: {text}" for name, text in headers.items()],
            **proxies.options(self._proxy),
        )
        assert self._websocket.sock is not None
        sock = self._websocket.sock.sock
        answered = self._websocket.headers or {}
        for name in ("sec-websocket-extensions", "sec-websocket-protocol"):
            if name in answered:
                # RFC 6455, section 4.1: an answer that uses what wasn't offered fails the connection.
                sock.close()
                return self._failed("handshake", f"the server answered with {name}, which wasn't asked for")
        return Connection(sock)

    def _failed(self, reason: str, text: str) -> Failure:
        return Failure(reason, failures.locate(self._target, self._proxy, text), "slow")
