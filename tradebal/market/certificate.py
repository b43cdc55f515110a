"""A certificate authority that lives as long as the process, so that a simulated provider can be behind real TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class ThrowAwayAuthority:
    """Issues one server certificate; nothing trusts it but who was given `pem`, and its key is never written."""

    def __init__(self, *names: str) -> None:
        """Certify `names` (host names or addresses) besides localhost."""
        self._authority = trustme.CA(organization_name="tradebal simulated provider")
        self._certificate = self._authority.issue_cert(*dict.fromkeys(("localhost", "127.0.0.1", "::1", *names)))

    @property
    def pem(self) -> bytes:
        """The authority's certificate, which a client must trust (`ca_file`, SSL_CERT_FILE)."""
        return self._authority.cert_pem.bytes()

    def write(self, path: Path) -> None:
        """Write `pem` to a file; OSError as by open()."""
        path.write_bytes(self.pem)

    def server_context(self) -> ssl.SSLContext:
        """Settings of a TLS server (1.2 or newer) that shows the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._certificate.configure_cert(context)
        return context
