"""Makes the project's virtual environment on a machine that has python3 and nothing else: no pip, no python3-venv."""

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv
from pathlib import Path

_OLDEST = (3, 11)
_PIP_RELEASES = "https://pypi.org/pypi/pip/json"


def main() -> int:
    """Make the environment, install the project into it in place, and mark it as done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where the environment goes")
    parser.add_argument("--extras", default="", help="the project's extras to install, separated by commas")
    arguments = parser.parse_args()
    if sys.version_info < _OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"tradebal needs Python 3.11 or newer; {sys.executable} is {found}.", file=sys.stderr)
        print("Name another one: make setup PYTHON=python3.12", file=sys.stderr)
        return 1
    python = arguments.directory / "bin" / "python"
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    if not python.exists():
        print(f"making {arguments.directory} with {sys.executable}", flush=True)
        venv.create(arguments.directory, with_pip=False, symlinks=True)
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        # Debian keeps ensurepip in python3-venv, and stubs it so that it imports but refuses to run.
        ensured = (
            has_ensurepip
            and not subprocess.run(
                [python, "-m", "ensurepip", "--upgrade"], capture_output=True, check=False
            ).returncode
        )
        if not ensured:
            _pip_from_pypi(python)
    print(f"installing tradebal[{arguments.extras}] and what it needs from PyPI", flush=True)
    # Debian 12's pip (23.0) installs what has no wheel, sdnotify, by setup.py, without the list of its files that the
    # packages are made from; a build as PEP 517 describes it writes that list.
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--use-pep517"]
    install += ["--upgrade-strategy", "eager"]
    project = f".[{arguments.extras}]" if arguments.extras else "."
    # setuptools calls its own support of extensions in pyproject.toml experimental, at length, at each build.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([*install, "--upgrade", "--editable", project], env=environment, check=False).returncode
    if done:
        print("pip failed (its messages are above). Is PyPI reachable from here?", file=sys.stderr)
        return done
    # pip shows nothing of an optional extension that failed to build, so say what became of it.
    probe = (
        "import logging; from tradebal.router import make_router, warn_if_slow; from tradebal.upstream import profiles"
    )
    probe += "; warn_if_slow(make_router(1, profiles.MASSIVE.rule), logging.getLogger())"
    subprocess.run([python, "-c", probe], check=True)
    return 0


def _pip_from_pypi(python: Path) -> None:
    """Install pip by its own wheel, which can run itself; the index's SHA-256 must match."""
    print("no ensurepip here (Debian's python3-venv): fetching pip from PyPI", flush=True)
    with urllib.request.urlopen(_PIP_RELEASES, timeout=60) as answer:
        files = json.load(answer)["urls"]
    wheel = next(entry for entry in files if entry["packagetype"] == "bdist_wheel")
    url = urllib.parse.urljoin(_PIP_RELEASES, wheel["url"])  # mirrors give addresses relative to their own
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 (the index's own answer)
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != wheel["digests"]["sha256"]:
        raise SystemExit(f"{url} doesn't have the SHA-256 that PyPI names")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / wheel["filename"]
        path.write_bytes(content)
        environment = {**os.environ, "PYTHONPATH": str(path)}
        command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", str(path)]
        subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
