"""Serves what all units have written about themselves at one HTTP address, for Prometheus and for people."""

from __future__ import annotations

import contextlib
import errno
import html
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, NamedTuple

import tradebal
from tradebal.config import Config
from tradebal.errors import UserError
from tradebal.monitoring import figures
from tradebal.monitoring.publish import STALE_AFTER, read_texts
from tradebal.systemd.notify import Notifier

log = logging.getLogger("tradebal.monitoring.exporter")

_CLIENT_TIMEOUT = 5.0
"""Seconds that a client may take from connecting to having its answer."""
_CLIENTS = 32
"""Clients that are served at the same time; one more ends the one that has taken longest."""
_LOOK = 0.2
"""Seconds between two looks at the clock and at whether to stop."""
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_HELP = re.compile(rf"# HELP ({_NAME}) (.*)")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|histogram|summary|untyped)")
_SERIES = rf'{_NAME}(?:\{{(?:{_NAME}="(?:[^"\\]|\\.)*+",?)*+\}})?'
_VALUE = r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]+)?|Inf)|NaN"
_SAMPLE = re.compile(rf"({_SERIES}) (?:{_VALUE})(?: -?[0-9]+)?")


class Unit(NamedTuple):
    """What the exporter knows of one unit."""

    name: str
    up: bool
    age: float | None
    """Seconds since it wrote; None: it never did."""


class _Family:
    """All samples of one metric, from all units."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.text = text
        self.samples: dict[str, str] = {}


def units(directory: Path, expected: Sequence[str]) -> tuple[list[Unit], dict[str, str]]:
    """Return the state of all units, and the text of those that are up.

    A unit is up if it wrote within STALE_AFTER seconds. One that isn't `expected` (left from a larger configuration)
    only counts while it is up.
    """
    texts = read_texts(directory)
    known = []
    fresh = {}
    for name in [*expected, *(name for name in texts if name not in expected)]:
        age, text = texts.get(name, (None, ""))
        up = age is not None and age <= STALE_AFTER
        if up:
            fresh[name] = text
        if up or name in expected:
            known.append(Unit(name, up, age))
    return known, fresh


def merge(directory: Path, expected: Sequence[str], *, openmetrics: bool = False) -> str:
    """Return all units' metrics as one text in Prometheus' text format, or in that of OpenMetrics 1.0.

    What isn't well-formed (a foreign or half-written file) is left out, whole, and its unit is not up. So are the
    figures of units that have stopped: a balancer that is gone must not go on saying that it is connected.
    """
    known, fresh = units(directory, expected)
    families: dict[str, _Family] = {}
    broken = set()
    for name, text in fresh.items():
        if (parsed := _parse(text)) is None:
            broken.add(name)
            continue
        for family, theirs in parsed.items():
            ours = families.setdefault(family, _Family(theirs.kind, theirs.text))
            if ours.kind == theirs.kind:
                for series, line in theirs.samples.items():
                    # Where two units claim a series, the first one's stands: Prometheus takes it only once.
                    ours.samples.setdefault(series, line)
    up = _Family("gauge", f"Whether the unit wrote its metrics within the last {STALE_AFTER:g} seconds: 1, else 0.")
    for unit in known:
        series = f'tradebal_up{{unit="{_escape(unit.name)}"}}'
        up.samples[series] = f"{series} {int(unit.up and unit.name not in broken)}"
    return _openmetrics({"tradebal_up": up} | families) if openmetrics else _text({"tradebal_up": up} | families)


def _text(families: Mapping[str, _Family]) -> str:
    lines = []
    for name, family in families.items():
        if family.text:
            lines.append(f"# HELP {name} {family.text}")
        lines.append(f"# TYPE {name} {family.kind}")
        lines.extend(family.samples.values())
    return "\n".join(lines) + "\n"


def _openmetrics(families: Mapping[str, _Family]) -> str:
    """Give the families as OpenMetrics wants them: counters named without _total, quotes escaped, no time stamps."""
    lines = []
    taken: set[str] = set()
    for name, family in families.items():
        kind = family.kind
        if kind == "counter" and name.endswith("_total") and all(map(_named(name), family.samples)):
            name = name.removesuffix("_total")
        elif kind in ("counter", "untyped"):
            kind = "unknown"
        if name in taken:  # a counter's name without _total is another metric's
            continue
        taken.add(name)
        lines.append(f"# TYPE {name} {kind}")
        if family.text:
            text = re.sub(r'(?:\\.)|(")', lambda found: r"\"" if found[1] else found[0], family.text)
            lines.append(f"# HELP {name} {text}")
        for series, line in family.samples.items():
            value = line[len(series) + 1 :].partition(" ")[0]
            lines.append(f"{series} {value}")
    return "\n".join(lines) + "\n# EOF\n"


def _named(name: str) -> Callable[[str], bool]:
    return lambda series: series.partition("{")[0] == name


def wants_openmetrics(accept: str) -> bool:
    """Tell whether an Accept header field (RFC 9110, section 12.5.1) prefers OpenMetrics to Prometheus' text format."""
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        if kind == "application/openmetrics-text" and given.get("version", "1.0.0") not in ("1.0.0", "0.0.1"):
            continue
        quality = given.get("q", "1")
        if kind in best and re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", quality):
            best[kind] = max(best[kind], float(quality))
    return best["application/openmetrics-text"] > 0 and best["application/openmetrics-text"] >= best["text/plain"]


def _parse(text: str) -> dict[str, _Family] | None:
    """Return a file's families by name; None if it isn't in Prometheus' text format.

    Samples are checked, not decoded: a scrape with hundreds of units must stay cheap.
    """
    families: dict[str, _Family] = {}
    texts: dict[str, str] = {}
    name, family = "", _Family("untyped", "")
    for line in text.split("\n"):
        if line.startswith("#"):
            if found := _HELP.fullmatch(line):
                texts[found[1]] = found[2]
            elif found := _TYPE.fullmatch(line):
                name = found[1]
                family = families.setdefault(name, _Family(found[2], texts.get(name, "")))
            elif line.startswith(("# HELP", "# TYPE")):
                return None
        elif line:
            sample = _SAMPLE.fullmatch(line)
            if sample is None:
                return None
            series = sample[1]
            own = series.partition("{")[0]
            if not name or (own != name and own not in (f"{name}_bucket", f"{name}_sum", f"{name}_count")):
                name = own
                family = families.setdefault(name, _Family("untyped", texts.get(name, "")))
            family.samples.setdefault(series, line)
    return families


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Exporter:
    """The HTTP server; takes its address when made, and answers while `serve` runs."""

    def __init__(self, config: Config) -> None:
        """Listen; UserError (code 3 if the port is taken) if that can't be done."""
        self._directory = config.metrics_directory
        self._expected = ["balancer", *(f"worker-{shard}" for shard in range(config.shards.count))]
        self._server = _listen(config.metrics.host, config.metrics.port, self)
        host, port = self._server.server_address[:2]
        self.address = f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"
        """Host and port that it really listens on."""

    def serve(self, stopping: Callable[[], bool], notifier: Notifier) -> None:
        """Answer requests until `stopping()` is true."""
        while not stopping():
            self._server.handle_request()
            self._server.end_overdue()
            notifier.alive()

    def close(self) -> None:
        """Listen no more, and end the requests that are under way."""
        self._server.server_close()
        self._server.end_overdue(all_of_them=True)

    def metrics(self, *, openmetrics: bool = False) -> str:
        """Return what /metrics shows now."""
        return merge(self._directory, self._expected, openmetrics=openmetrics)

    def missing(self) -> list[str]:
        """Return the configured units that aren't up."""
        return [unit.name for unit in units(self._directory, self._expected)[0] if not unit.up]

    def page(self) -> str:
        """Return the page for people."""
        rows = "".join(
            f"<tr><td>{html.escape(unit.name)}<td>{'up' if unit.up else 'down'}"
            f"<td>{'never wrote' if unit.age is None else f'wrote {unit.age:.0f} s ago'}"
            for unit in units(self._directory, self._expected)[0]
        )
        return (
            f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>tradebal</title>"
            f"<style>body{{font:16px system-ui;margin:2em}}td{{padding-right:2em}}</style>"
            f"<h1>tradebal {html.escape(tradebal.__version__)}</h1>{_summary(figures.read(self._directory))}"
            f"<table>{rows}</table>"
            f"<p><a href=/metrics>/metrics</a> is for Prometheus; <a href=/-/healthy>/-/healthy</a> tells that this "
            f"exporter answers, <a href=/-/ready>/-/ready</a> whether every unit is up.</html>\n"
        )


def _summary(now: figures.Figures | None) -> str:
    if now is None or time.time() - now.at > STALE_AFTER:
        return "<p>The balancer isn't running."
    state = "live" if now.connected else "not connected"
    return (
        f"<p>{state}; {now.routed:,} trades routed, {now.handled:,} handled, {now.backlog:,} bytes wait, "
        f"{now.dropped:,} lost; highest rate of 8192 trades: {now.highest:,.0f}/s"
    )


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    exporter = Exporter(config)
    notifier = Notifier()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    log.info("exporter started: address=%s directory=%s", exporter.address, config.metrics_directory)
    notifier.ready()
    try:
        exporter.serve(stop.is_set, notifier)
    finally:
        notifier.stopping()
        exporter.close()
        notifier.close()
    log.info("exporter stopped")
    return 0


def _listen(host: str, port: int, exporter: Exporter) -> _Server:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    key = "[metrics] address"
    try:
        family, _, _, _, resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _Server(family, resolved, exporter)
    except socket.gaierror as error:
        raise UserError(f"{key}: {host}: {error.strerror}", hint="take an address of this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"{key}: another process listens on {address}",
                hint=f"`ss -ltnp 'sport = :{port}'` shows which; or take another port (--address HOST:PORT)",
                code=3,
            ) from None
        hint = "ports below 1024 need a privilege; take a higher one" if error.errno == errno.EACCES else ""
        raise UserError(f"{key}: can't listen on {address}: {error.strerror}", hint=hint) from None


class _Server(ThreadingHTTPServer):
    """Bounds what clients can take up: their number and their time, whatever they send or don't."""

    daemon_threads = True
    request_queue_size = 128
    timeout = _LOOK

    def __init__(self, family: int, address: Any, exporter: Exporter) -> None:
        self.address_family = family
        self.exporter = exporter
        self._lock = threading.Lock()
        # When each client's time is up; the longest served first. 0: it was ended already.
        self._clients: dict[socket.socket, float] = {}
        super().__init__(address, _Request)

    def server_bind(self) -> None:
        # HTTPServer's would ask the name service for the host's name.
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._clients[request] = time.monotonic() + _CLIENT_TIMEOUT
            if len(self._clients) > _CLIENTS:
                self._end(next((client for client, until in self._clients.items() if until), request))
            crowded = len(self._clients) > 2 * _CLIENTS
        if crowded:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
            super().shutdown_request(request)

    def end_overdue(self, *, all_of_them: bool = False) -> None:
        """End the requests whose time is up, or all."""
        now = time.monotonic()
        with self._lock:
            for client, until in self._clients.items():
                if until and (all_of_them or now >= until):
                    self._end(client)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.debug("client dropped: address=%s", client_address, exc_info=True)

    def _end(self, client: socket.socket) -> None:
        # The thread that serves it gets an error or an end of file, and closes it.
        self._clients[client] = 0.0
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


class _Request(BaseHTTPRequestHandler):
    timeout = _CLIENT_TIMEOUT
    server: _Server

    def version_string(self) -> str:
        return "tradebal"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        log.debug("client: " + format, *args)

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            openmetrics = wants_openmetrics(",".join(self.headers.get_all("Accept", [])))
            text = self.server.exporter.metrics(openmetrics=openmetrics)
            self._send(HTTPStatus.OK, _OPENMETRICS if openmetrics else _TEXT, text)
        elif path == "/-/healthy":
            self._send(HTTPStatus.OK, _TEXT, "healthy\n")
        elif path == "/-/ready":
            if missing := self.server.exporter.missing():
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"not ready: {' '.join(missing)}\n")
            else:
                self._send(HTTPStatus.OK, _TEXT, "ready\n")
        elif path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.exporter.page())
        else:
            self._send(HTTPStatus.NOT_FOUND, _TEXT, "not found; there are /metrics, /-/healthy, /-/ready and /\n")

    do_HEAD = do_GET  # noqa: N815 - the names are http.server's

    def do_POST(self) -> None:
        """Refuse: nothing can be changed here."""
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, "only GET and HEAD\n")

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_POST  # noqa: N815

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Vary", "Accept")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
