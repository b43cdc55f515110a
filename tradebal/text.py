"""Makes text that came from outside harmless to show: a terminal, a log or a metrics file takes it as text only."""

from __future__ import annotations

import re

# C0, DEL and C1 control characters; line and paragraph separators; surrogates; and what reorders or hides text
# (Unicode's bidirectional controls, zero-width characters).
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]",
)

_NAMES = {9: "\\t", 10: "\\n", 13: "\\r"}


def printable(text: str) -> str:
    r"""Return the text with each control or invisible character written as `\n`, `\x1b` or `\u2028`."""
    return _HARMFUL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if (name := _NAMES.get(code)) is not None:
        return name
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
