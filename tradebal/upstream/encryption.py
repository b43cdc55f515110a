"""Decides who decrypts wss://, the kernel or OpenSSL in this process, and says why."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from pathlib import Path

from tradebal.config import Tls
from tradebal.errors import UserError
from tradebal.tls import kernel
from tradebal.tls.handshake import DeclinedError, Handshake
from tradebal.tls.keylog import KeyLog
from tradebal.tls.sockets import TlsSocket

_LOG = logging.getLogger(__name__)


class Encryption:
    """What wraps a socket for wss://: to websocket-client it is the SSLContext."""

    def __init__(self, mode: Tls, ca_file: Path | None) -> None:
        """Prepare what every connection needs; UserError (code 2) where `ca_file` can't be used."""
        self.mode = mode
        # Python's default context would write the secrets of every session to that file.
        if os.environ.pop("SSLKEYLOGFILE", None) is not None:
            _LOG.warning("tls: SSLKEYLOGFILE in the environment is ignored: it would give away the feed key")
        self._authorities = _read(ca_file) if ca_file else None
        try:
            self.context()
        except (ssl.SSLError, ValueError):
            raise _unusable(ca_file, "no certificates in it") from None
        self._said = ""

    def context(self) -> ssl.SSLContext:
        """Return new settings of a client that checks certificate and name.

        Each connection has its own: a key log belongs to a context, and must see one handshake only.
        """
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        if self._authorities is not None:
            context.load_verify_locations(cadata=self._authorities)
        return context

    def why_user(self) -> str:
        """Return why OpenSSL would decrypt, as far as this machine decides that; "" if the kernel would."""
        return 'feed.tls = "user"' if self.mode == "user" else kernel.why_not()

    def require(self) -> None:
        """Raise UserError (code 2) where the configuration wants what the kernel hasn't."""
        if self.mode == "kernel" and (why := self.why_user()):
            raise UserError(
                f'feed.tls = "kernel": {why}', hint=f'{kernel.HOW_TO_GET}; or set feed.tls = "auto"', code=2
            )

    def wrap_socket(self, sock: socket.socket, *, server_hostname: str, **_options: object) -> TlsSocket:
        """Do the handshake on a connected socket, and take it over.

        Raises what ssl.SSLContext.wrap_socket does, and DeclinedError where nothing but the kernel will do.
        """
        context = self.context()
        handshake = Handshake(sock, context, server_hostname)
        if why := self.why_user():
            if self.mode == "kernel":
                raise DeclinedError(why)
            handshake.run()
            wrapped: TlsSocket = handshake.to_user()
        else:
            with KeyLog(context) as log:
                handshake.run()
                try:
                    wrapped = handshake.to_kernel(log)
                except DeclinedError as declined:
                    if self.mode == "kernel":
                        raise
                    why = str(declined)
                    wrapped = handshake.to_user()
        self._say(why)
        return wrapped

    def _say(self, why: str) -> None:
        text = f"tls: by=user cause={why}" if why else "tls: by=kernel"
        if text != self._said:
            self._said = text
            _LOG.info("%s", text)


def _read(ca_file: Path) -> str:
    try:
        # What isn't ASCII can only be a comment (RFC 7468, section 2).
        return ca_file.read_bytes().decode("ascii", "ignore")
    except OSError as error:
        raise _unusable(ca_file, error.strerror or str(error)) from None


def _unusable(ca_file: Path | None, cause: str) -> UserError:
    return UserError(f"feed.ca_file {ca_file}: {cause}", hint="it must be a readable file of PEM certificates", code=2)
