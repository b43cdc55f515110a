"""Where to connect to and what the opening handshake carries, checked once before the first try."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tradebal.errors import UserError
from tradebal.upstream import proxies


@dataclass(frozen=True)
class Target:
    """Where to connect to, and how."""

    url: str = field(repr=False)
    """May hold the key, as `headers` may."""
    shown: str
    """The URL without its query, for logs."""
    host: str
    port: int
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    """Seconds for everything: name, TCP, TLS and opening handshake."""
    tls: ssl.SSLContext | None
    """None for ws."""

    @property
    def place(self) -> str:
        """Return host:port."""
        return proxies.place(self.host, self.port)


def target(url: str, headers: Mapping[str, str], ca_file: Path | None, timeout: float) -> Target:
    """Prepare what every try needs; UserError (code 2) where the URL or `ca_file` can't be used."""
    parts = urlsplit(url)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise UserError(f'feed.url "{shown}" is no ws:// or wss:// URL', code=2)
    tls = None
    if parts.scheme == "wss":
        tls = ssl.create_default_context()
        tls.set_alpn_protocols(["http/1.1"])
        if ca_file is not None:
            try:
                tls.load_verify_locations(ca_file)
            except (OSError, ssl.SSLError) as error:
                cause = (
                    error.strerror
                    if error.strerror and not isinstance(error, ssl.SSLError)
                    else "no certificates in it"
                )
                raise UserError(
                    f"feed.ca_file {ca_file}: {cause}", hint="it must be a readable file of PEM certificates", code=2
                ) from None
    port = parts.port or (80 if tls is None else 443)
    return Target(url, shown, parts.hostname, port, headers, timeout, tls)
