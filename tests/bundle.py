"""Lays out the bundle as its packages install it, so that a booted systemd can be given the working tree."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent
SYSTEM_PYTHON = "/usr/bin/python3"

_PACKAGES = "usr/lib/tradebal/packages"
_NEEDED = ("orjson", "prometheus-client", "sdnotify", "websocket-client", "websockets")
_COMMAND = f"""\
#!{SYSTEM_PYTHON} -sP
import sys

sys.path.insert(0, "/{_PACKAGES}")
from tradebal.cli import main

sys.exit(main())
"""


def why_not() -> str:
    """Return why the bundle can't run on this system's Python; "" if it can."""
    ask = "import sys; print(sys.implementation.cache_tag)"
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-IS", "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{SYSTEM_PYTHON} can't be run: {error}"
    tag = done.stdout.strip()
    if tag != sys.implementation.cache_tag:
        return f"{SYSTEM_PYTHON} is {tag}, and the packages here are {sys.implementation.cache_tag}'s"
    return ""


def lay_out(layer: Path) -> None:
    """Put commands, packages, units and their like below `layer`, where the packages put them."""
    packages = layer / _PACKAGES
    shutil.copytree(SOURCE / "tradebal", packages / "tradebal", ignore=shutil.ignore_patterns("c"))
    for name in _NEEDED:
        for file in importlib.metadata.files(name) or []:
            if ".." not in file.parts:
                place(Path(str(file.locate())), packages / file)
    command = layer / "usr/bin/tradebal"
    command.parent.mkdir(parents=True)
    command.write_text(_COMMAND)
    command.chmod(0o755)
    subprocess.run(["make", "--silent", "-C", SOURCE / "systemd", "install", f"DESTDIR={layer}"], check=True)


def place(source: Path, target: Path) -> None:
    """Copy a file with its mode and time (which compiled modules are compared by), making directories as needed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
