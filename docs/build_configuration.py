"""Writes the tables of docs/configuration.md from the declarations of the keys: `python docs/build_configuration.py`.

The text between the tables is written by hand. A test keeps the tables current.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tradebal import config

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.md"

_HEAD = "| key | must be | default | meaning |\n| --- | --- | --- | --- |\n"
_SECTION = re.compile(r"^#+ (\[{1,2})([a-z_.]+)\]{1,2}\n", re.MULTILINE)
_TABLE = re.compile(r"^\| key \|.*\n(?:\|.*\n)*", re.MULTILINE)


def tables() -> dict[str, str]:
    """Return each table of the page by the path of the configuration's table, such as `feed.custom.login[]`."""
    rows: dict[str, str] = {}
    for info in config.declared_keys():
        path, _, name = info.path.rpartition(".")
        default = f"`{info.default}`" if info.default else "–"
        rows[path] = rows.get(path, _HEAD) + f"| `{name}` | {info.allowed} | {default} | {info.doc} |\n"
    return rows


def page(text: str) -> str:
    """Return the page's text with each section's table as the declarations have it.

    SystemExit if a declared table has no section, or a section no declared table: its words have to be written first.
    """
    wanted = tables()
    sections = list(_SECTION.finditer(text))
    names = [match[2] + ("[]" if match[1] == "[[" else "") for match in sections]
    if sorted(names) != sorted(wanted):
        raise SystemExit(f"sections of the page: {sorted(names)}, declared tables: {sorted(wanted)}")
    ends = [match.start() for match in sections[1:]] + [len(text)]
    parts = [text[: sections[0].start()]]
    for name, match, end in zip(names, sections, ends, strict=True):
        section, replaced = _TABLE.subn(lambda _, name=name: wanted[name], text[match.start() : end], count=1)
        if not replaced:
            raise SystemExit(f"the section [{name}] has no table that begins with {_HEAD.splitlines()[0]!r}")
        parts.append(section)
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    print(f"{PAGE.relative_to(ROOT)} written", file=sys.stderr)
