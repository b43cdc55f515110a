"""Directories for a user without root: where a run keeps its FIFOs and its state when the system's aren't theirs."""

from __future__ import annotations

import dataclasses
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tradebal.config import Config, Overflow, Shards
from tradebal.errors import UserError


def for_this_user(config: Config, env: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration with directories of the user's own for those that are left at their defaults and can't
    be written; UserError where there is no safe place for them.
    """
    if config.shards.directory == Shards.directory and not usable(config.shards.directory):
        shards = dataclasses.replace(config.shards, directory=_runtime_directory(env))
        config = dataclasses.replace(config, shards=shards)
    if config.overflow.directory == Overflow.directory and not usable(config.overflow.directory):
        overflow = dataclasses.replace(config.overflow, directory=_state_directory(env) / "overflow")
        config = dataclasses.replace(config, overflow=overflow)
    return config


def usable(directory: Path) -> bool:
    """Whether this process may write to the directory, or make it where it is missing."""
    existing = nearest_existing(directory)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK, effective_ids=True)


def nearest_existing(path: Path) -> Path:
    """Return the path itself, or the nearest directory above it that exists."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def _runtime_directory(env: Mapping[str, str]) -> Path:
    # XDG Base Directory Specification: absolute, owned by the user, gone at the last logout.
    base = Path(env.get("XDG_RUNTIME_DIR", ""))
    if base.is_absolute() and base.is_dir() and usable(base):
        return base / "tradebal"
    return _private_directory()


def _state_directory(env: Mapping[str, str]) -> Path:
    for base in (Path(env.get("XDG_STATE_HOME", "")), Path(env.get("HOME", "")) / ".local" / "state"):
        if base.is_absolute() and usable(base):
            return base / "tradebal"
    return _private_directory()


def _private_directory() -> Path:
    """Return the user's own directory below the one for temporary files, made if it is missing.

    Its name is known to everybody who may write there, so one that somebody else made, or that others may write to,
    is refused.
    """
    directory = Path(tempfile.gettempdir()) / f"tradebal-{os.geteuid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise UserError(f"{directory}: can't be made: {error.strerror}", hint="set shards.directory") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UserError(
            f"{directory}: belongs to somebody else, or others may write to it", hint="set shards.directory to another"
        )
    return directory
