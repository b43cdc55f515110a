"""Decides from the environment whether the way to the provider leads through a proxy."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass


@dataclass(frozen=True)
class Proxy:
    """A proxy to connect through."""

    kind: str
    """"http" (CONNECT), or "socks5" and its like."""
    host: str
    port: int
    variable: str
    """The environment variable that names it."""
    auth: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """Return host:port."""
        return place(self.host, self.port)


def place(host: str, port: int) -> str:
    """Return host:port, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def find(host: str, port: int, *, secure: bool) -> Proxy | None:
    """Return the proxy for a connection to host and port, or None for a direct one.

    https_proxy serves wss, http_proxy serves ws, all_proxy both; no_proxy lists exceptions. A loopback address is
    never reached through a proxy. ValueError where the variable holds no usable URL.
    """
    if is_loopback(host) or proxy_bypass(host) or proxy_bypass(place(host, port)):
        return None
    found = getproxies()
    for kind in ("https" if secure else "http", "all"):
        if url := found.get(kind):
            break
    else:
        return None
    variable = f"{kind}_proxy"
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host_of_proxy, port_of_proxy = parts.hostname, parts.port
    except ValueError:
        host_of_proxy = port_of_proxy = None
    if not host_of_proxy:
        raise ValueError(f"{variable} in the environment holds no proxy URL such as http://proxy.example:3128")
    socks = parts.scheme.startswith("socks")
    return Proxy(
        {"socks": "socks5"}.get(parts.scheme, parts.scheme) if socks else "http",
        host_of_proxy,
        port_of_proxy or (1080 if socks else 80),
        variable,
        (unquote(parts.username), unquote(parts.password or "")) if parts.username else None,
    )


def options(proxy: Proxy | None) -> dict[str, Any]:
    """Return what websocket-client's `connect` needs to do as decided, whatever it would read from the environment."""
    if proxy is None:
        # It takes an exception list only beside a proxy; this one excepts every host.
        return {"http_proxy_host": "proxy.invalid", "http_proxy_port": 1, "http_no_proxy": ["*"]}
    return {
        "http_proxy_host": proxy.host,
        "http_proxy_port": proxy.port,
        "http_proxy_auth": proxy.auth,
        "proxy_type": proxy.kind,
    }


def is_loopback(host: str) -> bool:
    """Whether the host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
