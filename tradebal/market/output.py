"""Writes the files that a simulated provider leaves to whoever waits for them: port, certificate, report."""

from __future__ import annotations

import os
from pathlib import Path

from tradebal.errors import UserError


def write(path: Path, data: bytes) -> None:
    """Write the file at once and whole, so that whoever waits for it never reads half of it.

    UserError if that fails.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UserError:
    """Say which file it was, and why."""
    return UserError(f"cannot write {path}: {error.strerror}", hint="name a file in a directory that you can write to")
