"""Why a connection, or a try to get one, came to nothing: one line with the place, the cause and what to do."""

from __future__ import annotations

import errno
import http
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

import websocket

from tradebal.tls.handshake import DeclinedError
from tradebal.tls.records import AlertError, RecordError, RekeyError, TlsError
from tradebal.upstream.answer import MAX_HEAD, AnswerTooLongError
from tradebal.upstream.proxies import Proxy
from tradebal.upstream.target import Target

Retry = Literal["at_once", "normal", "slow"]
"""at_once: nobody's fault. normal: may pass at any moment. slow: somebody has to put it right, so a try every 30 to
60 s is enough."""

REASONS = (
    "closed",
    "eof",
    "reset",
    "silent",
    "violation",
    "refused_key",
    "not_authorized",
    "symbol_limit",
    "connection_taken",
    "slow_consumer",
    "force_disconnect",
    "login_timeout",
    "dns",
    "refused",
    "unreachable",
    "timeout",
    "certificate",
    "tls",
    "tls_alert",
    "tls_record",
    "tls_rekey",
    "proxy",
    "redirect",
    "rate_limited",
    "http_status",
    "handshake",
    "error",
)
"""Every value that the metrics label `reason` can take."""

MAX_RETRY_AFTER = 300.0
"""Longest wait, in seconds, that a server can impose by Retry-After."""

CONNECTION = "TCP or TLS connection"
ANSWER = "answer to the opening handshake"

_ROUTE = "check the network and its routes"
_BY_ERRNO = {
    errno.ECONNREFUSED: (
        "refused",
        "nothing accepts connections there; check feed.url, and the provider's status page",
    ),
    errno.ENETUNREACH: ("unreachable", f"no network leads there; {_ROUTE}"),
    errno.EHOSTUNREACH: ("unreachable", f"the host can't be reached; {_ROUTE}"),
    errno.ENETDOWN: ("unreachable", f"the network is down; {_ROUTE}"),
    errno.ECONNRESET: (
        "reset",
        "the connection was reset before it was open; check feed.url, and any firewall between",
    ),
    errno.EACCES: (
        "unreachable",
        "this machine doesn't permit the connection; check its firewall and the unit's sandbox",
    ),
    errno.EPERM: (
        "unreachable",
        "this machine doesn't permit the connection; check its firewall and the unit's sandbox",
    ),
}


@dataclass(frozen=True)
class Failure:
    """Why a connection, or a try to get one, came to nothing."""

    reason: str
    """One of `REASONS`."""
    text: str
    """What happened and what to do."""
    retry: Retry = "normal"
    retry_after: float = 0.0
    """Seconds that the provider wants us to wait at the least."""
    code: int | None = None
    """Of the provider's close frame, if it sent one."""


def locate(target: Target, proxy: Proxy | None, text: str) -> str:
    """Return the text behind the place that it is about."""
    way = f" through the proxy {proxy.place} of {proxy.variable}" if proxy else ""
    return f"{target.place}{way}: {text}"


def no_answer(target: Target, proxy: Proxy | None, stage: str) -> Failure:
    """Say that `target.timeout` has passed while `stage` was waited for."""
    text = f"no {stage} within {target.timeout:g} s; check network and firewall, or raise feed.connect_timeout"
    return Failure("timeout", locate(target, proxy, text))


def ended(error: OSError | None) -> Failure:
    """Say what the end of an open connection means: the error of the last recv, or None for the end of the stream."""
    match error:
        case None:
            return Failure("eof", "the provider ended the connection without a close frame")
        case RekeyError():
            return Failure("tls_rekey", f"the provider took {error}", "at_once")
        case AlertError():
            return Failure("tls_alert", f"the provider gave up by a TLS alert ({error})")
        case RecordError() | OSError(errno=errno.EBADMSG | errno.EMSGSIZE | errno.EINVAL):  # the kernel's words for it
            return Failure("tls_record", "a TLS record was broken: what came isn't what the provider encrypted")
        case TlsError():
            return Failure("tls", f"TLS failed ({error})")
        case OSError(errno=errno.ETIMEDOUT):
            return Failure("timeout", "the provider's host doesn't answer any more")
        case OSError(errno=errno.ECONNRESET | errno.EPIPE):
            return Failure("reset", "the connection was reset")
    return Failure("error", f"reading failed ({error.strerror})")


def explain(error: Exception, target: Target, proxy: Proxy | None, answered: Mapping[str, str]) -> Failure:
    """Translate what websocket-client's `connect` raised.

    `answered` are the header fields of the server's answer, if there was one. Nothing that the server or the exception
    says is passed on, unless it is of a known form: it could hold the key.
    """
    if isinstance(error, websocket.WebSocketTimeoutException):
        return no_answer(target, proxy, ANSWER)
    if isinstance(error, TimeoutError):
        return no_answer(target, proxy, CONNECTION)
    reason, text, retry, wait = _explain(error, target, proxy, answered)
    return Failure(reason, locate(target, proxy, text), retry, wait)


def _explain(
    error: Exception, target: Target, proxy: Proxy | None, answered: Mapping[str, str]
) -> tuple[str, str, Retry, float]:
    match error:
        case websocket.WebSocketAddressException() | socket.gaierror():
            cause = error.args[0] if error.args and isinstance(error.args[0], OSError) else error
            said = getattr(cause, "strerror", None) or "no address"
            name = proxy.host if proxy else target.host
            text = f"the name \"{name}\" wasn't found ({said}); check feed.url, and this machine's name service"
            return "dns", text, "normal", 0.0
        case websocket.WebSocketProxyException():
            status = re.search(r"status: (\d{3})", str(error))
            said = f"HTTP status {status[1]}" if status else "no usable answer"
            variable = proxy.variable if proxy else "the environment"
            return (
                "proxy",
                f"the proxy doesn't let us through ({said}); check {variable}, or set no_proxy",
                "normal",
                0.0,
            )
        case websocket.WebSocketBadStatusException():
            return _bad_status(error.status_code, error.resp_headers or {})
        case AnswerTooLongError(status=int(status)):
            return _bad_status(status, {})
        case AnswerTooLongError():
            text = f"the answer to the opening handshake has more than {MAX_HEAD >> 10} KiB of headers; check feed.url"
            return "handshake", text, "slow", 0.0
        case ssl.SSLCertVerificationError():
            text = (
                f"its certificate isn't trusted ({error.verify_message}); check feed.url and this machine's clock; "
                "for a private authority set feed.ca_file"
            )
            return "certificate", text, "slow", 0.0
        case TlsError():
            end = ended(error)
            return end.reason, end.text, end.retry, 0.0
        case ssl.SSLError():
            text = f"TLS failed ({_said(error)}); if that port speaks no TLS, use ws:// in feed.url"
            return "tls", text, "normal", 0.0
        case DeclinedError():
            return "tls", f'feed.tls = "kernel", but {error}; load the module, or set "auto"', "slow", 0.0
        case websocket.WebSocketConnectionClosedException():
            text = "the server ended the connection during the opening handshake; check feed.url, also ws:// or wss://"
            return "handshake", text, "normal", 0.0
        case websocket.WebSocketException() if "location" in answered:
            place = _shown(answered["location"])
            return "redirect", f"the server redirects to {place}; if you trust that, set feed.url to it", "slow", 0.0
        case websocket.WebSocketException():
            return (
                "handshake",
                "what answers there is no websocket server; check feed.url, also ws:// or wss://",
                "slow",
                0.0,
            )
        case OSError(errno=int(number)) if number in _BY_ERRNO:
            reason, text = _BY_ERRNO[number]
            return reason, text, "normal", 0.0
        case _ if proxy is not None and type(error).__module__.startswith("python_socks"):
            return "proxy", f"the proxy doesn't let us through; check {proxy.variable}, or set no_proxy", "normal", 0.0
        case OSError(errno=int(number)):
            return "error", f"the connection failed ({os.strerror(number)})", "normal", 0.0
    return (
        "error",
        f"the opening handshake failed ({type(error).__name__}); check feed.url and feed.headers",
        "slow",
        0.0,
    )


def _said(error: ssl.SSLError) -> str:
    return (error.reason or "ended by the peer").replace("_", " ").lower()


def _bad_status(status: int, headers: Mapping[str, str]) -> tuple[str, str, Retry, float]:
    try:
        said = f"HTTP status {status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        said = f"HTTP status {status}"
    wait = _retry_after(headers.get("retry-after", ""))
    if status == 401:
        return (
            "refused_key",
            f"the provider refused the key ({said}); check the feed key and feed.headers",
            "slow",
            wait,
        )
    if status == 403:
        text = f"the provider doesn't let us in ({said}); check the feed key, the plan, and from where it may be used"
        return "not_authorized", text, "slow", wait
    if status == 429:
        return (
            "rate_limited",
            f"too many connections in a short time ({said}); is another process trying too?",
            "slow",
            wait,
        )
    if status >= 500:
        return "http_status", f"the provider is in trouble ({said}); look at its status page", "normal", wait
    return "http_status", f"no websocket is served there ({said}); check feed.url", "slow", wait


def _retry_after(text: str) -> float:
    """Return the seconds that a Retry-After field asks for (RFC 9110, section 10.2.3); 0 for none."""
    if text.isascii() and text.isdecimal():
        seconds = float(text[:9])
    else:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        # A date with the zone -0000 comes without one.
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _shown(url: str) -> str:
    """Return a URL that a server sent, without what may be secret in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "what is no URL"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
