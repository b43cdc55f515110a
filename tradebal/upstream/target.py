"""Where to connect to and what the opening handshake carries, checked once before the first try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tradebal.config import Feed
from tradebal.errors import UserError
from tradebal.upstream import proxies
from tradebal.upstream.encryption import Encryption


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
    tls: Encryption | None
    """None for ws."""

    @property
    def place(self) -> str:
        """Return host:port."""
        return proxies.place(self.host, self.port)


def target(url: str, headers: Mapping[str, str], feed: Feed) -> Target:
    """Prepare what every try needs; UserError (code 2) where the URL or `feed.ca_file` can't be used."""
    parts = urlsplit(url)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise UserError(f'feed.url "{shown}" is no ws:// or wss:// URL', code=2)
    tls = Encryption(feed.tls, feed.ca_file) if parts.scheme == "wss" else None
    port = parts.port or (80 if tls is None else 443)
    return Target(url, shown, parts.hostname, port, headers, feed.connect_timeout, tls)
