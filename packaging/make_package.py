"""Builds the .deb and the .rpm: stages everything below build/package/root as it will be installed, then calls nfpm."""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import os
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import tradebal
from tradebal.config.sample import sample

PYTHONS = ("3.11", "3.12", "3.13")
"""Versions of Python that a package serves, without a hole between: of Debian 12, Ubuntu 24.04 and Debian 13."""

SOURCE = Path(__file__).parent.parent
HERE = SOURCE / "packaging"
STAGE = SOURCE / "build" / "package"
ROOT = STAGE / "root"
HOME = ROOT / "usr/lib/tradebal"
PACKAGES = HOME / "packages"
DOC = ROOT / "usr/share/doc/tradebal"

_COMMAND = """\
#!/usr/lib/tradebal/bin/python3
import sys

from tradebal.cli import main

sys.exit(main())
"""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main() -> int:
    """Stage, package, and name the files that were made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=SOURCE / "dist", help="where the packages go (default: dist)")
    arguments = parser.parse_args()
    shutil.rmtree(STAGE, ignore_errors=True)
    # Staged directories are installed with the modes that they have here.
    os.umask(0o022)
    os.environ["SOURCE_DATE_EPOCH"] = epoch = str(_time_of_source())
    print(f"staging {ROOT}", flush=True)
    stage_python()
    stage_system()
    stage_documents()
    for path in [STAGE, *STAGE.rglob("*")]:
        os.utime(path, (int(epoch), int(epoch)), follow_symlinks=False)
    arguments.output.mkdir(parents=True, exist_ok=True)
    values = {
        "arch": _ARCHITECTURES[os.uname().machine],
        "libc": _newest_libc(PACKAGES.rglob("*.so")),
        "mtime": _run("date", "--utc", f"--date=@{epoch}", "+%Y-%m-%dT%H:%M:%SZ").strip(),
        "python": PYTHONS[0],
        "python_after": f"3.{int(PYTHONS[-1].partition('.')[2]) + 1}",
        "stage": STAGE.relative_to(SOURCE),
        "version": tradebal.__version__,
    }
    recipe = STAGE / "nfpm.yaml"
    recipe.write_text(string.Template((HERE / "nfpm.yaml").read_text()).substitute(values))
    nfpm = [Path(sys.executable).parent / "nfpm", "package", "-f", recipe, "-t", f"{arguments.output}/", "-p"]
    running = [subprocess.Popen([*nfpm, packager], cwd=SOURCE) for packager in ("deb", "rpm")]
    return max(process.wait() for process in running)


def stage_python() -> None:
    """Make the Python environment with tradebal and all that its commands need."""
    # A copy, since setuptools builds in the source's own directory and would pick up what earlier builds left there.
    source = STAGE / "source"
    source.mkdir(parents=True)
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(SOURCE / name, source)
    shutil.copytree(SOURCE / "tradebal", source / "tradebal", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    # Instead of what this Python was linked with: one that somebody built has its own libraries' path in there.
    os.environ["LDSHARED"] = "gcc -shared"
    _pip("--constraint", HERE / "constraints.txt", "--target", PACKAGES, f"{source}[demo]")
    shutil.rmtree(PACKAGES / "bin")
    core = next((PACKAGES / "tradebal" / "router").glob("_corelib*.so"), None)
    if core is None:
        raise SystemExit("the C core wasn't built: is gcc here?")
    # Loaded by ctypes, it serves every Python, whichever it was built by.
    core.rename(core.with_name("_corelib.abi3.so"))
    for version in PYTHONS:
        _add_modules_for(version)
    for library in PACKAGES.rglob("*.so"):
        subprocess.run(["strip", "--strip-unneeded", library], check=True)
        library.chmod(0o644)
    # It names the building machine.
    (PACKAGES / f"tradebal-{tradebal.__version__}.dist-info/direct_url.json").unlink()

    # A virtual environment (PEP 405) that is the same for whichever Python /usr/bin/python3 is.
    (HOME / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for version in PYTHONS:
        _link(HOME / f"lib/python{version}/site-packages", "../../packages")
    _link(HOME / "bin/python3", "../../../bin/python3")
    _link(ROOT / "usr/bin/tradebal", "../lib/tradebal/bin/tradebal")
    command = HOME / "bin/tradebal"
    command.write_text(_COMMAND)
    command.chmod(0o755)


def stage_system() -> None:
    """Put units and their like, the default configuration, dashboards and Prometheus files where they belong."""
    subprocess.run(["make", "--silent", "-C", SOURCE / "systemd", "install", f"DESTDIR={ROOT}"], check=True)
    for part in ("dashboards", "provisioning", "prometheus/prometheus.yml", "prometheus/rules"):
        for file in [SOURCE / "grafana" / part, *(SOURCE / "grafana" / part).rglob("*")]:
            if file.is_file():
                _place(ROOT / "usr/share/tradebal" / file.relative_to(SOURCE), file.read_bytes())
    _place(ROOT / "etc/tradebal/tradebal.toml", sample(system=True).encode())


def stage_documents() -> None:
    """Write manual pages, the guides, changelog and copyright."""
    pages = STAGE / "man"
    subprocess.run([sys.executable, HERE / "make_manual.py", pages], check=True)
    for page in [*pages.iterdir(), *(HERE / "man").iterdir()]:
        _place(ROOT / f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz", _compressed(page.read_bytes()))
    for guide in (SOURCE / "docs").glob("*.md"):
        _place(DOC / guide.name, guide.read_bytes())
    _place(DOC / "copyright", "".join(_copyright()).encode())
    date = _run("date", "--utc", "--rfc-email", f"--date=@{os.environ['SOURCE_DATE_EPOCH']}").strip()
    version = tradebal.__version__
    author = "The tradebal authors <tradebal@users.noreply.github.com>"
    changes = f"tradebal ({version}-1) stable; urgency=medium\n\n  * Version {version}.\n\n -- {author}  {date}\n"
    _place(STAGE / "changelog.Debian.gz", _compressed(changes.encode()))


def _add_modules_for(version: str) -> None:
    """Add the compiled modules for another Python beside those that are there; their names tell them apart."""
    compiled = [
        f"{found.name}=={found.version}"
        for found in _dependencies()
        if any(".cpython-3" in file.name for file in found.files or [])
    ]
    target = STAGE / f"python{version}"
    _pip("--no-deps", "--only-binary=:all:", "--python-version", version, "--target", target, *compiled)
    for library in target.rglob(f"*.cpython-{version.replace('.', '')}-*.so"):
        shutil.copy(library, PACKAGES / library.relative_to(target))


def _dependencies() -> list[importlib.metadata.Distribution]:
    found = importlib.metadata.distributions(path=[str(PACKAGES)])
    return sorted((each for each in found if each.name != "tradebal"), key=lambda each: each.name.lower())


def _copyright() -> Iterator[str]:
    yield "tradebal is under this license:\n\n"
    yield (SOURCE / "LICENSE").read_text()
    yield f"\nThe Python packages in /{PACKAGES.relative_to(ROOT)} have licenses of their own, whose texts lie there:\n"
    for found in _dependencies():
        terms = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
        yield f"\n{found.name} {found.version}: {terms.splitlines()[0] if terms else 'see its metadata'}\n"
        for file in found.files or []:
            if ".dist-info" in str(file.parent) and re.search(r"licen[cs]e|copying|notice", file.name, re.IGNORECASE):
                yield f"  {file}\n"
    yield "\nOn Debian systems, the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0 as well.\n"


def _newest_libc(libraries: Iterator[Path]) -> str:
    """Return the oldest version of the C library that has every symbol which these want."""
    symbols = _run("objdump", "--dynamic-syms", *libraries)
    versions = re.findall(r"\(GLIBC_(\d+)\.(\d+)", symbols)
    return "{}.{}".format(*max((int(major), int(minor)) for major, minor in versions))


def _time_of_source() -> int:
    """Return the last commit's time, so that the same source gives the same packages."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    asked = ["git", "-C", str(SOURCE), "log", "-1", "--format=%ct"]
    # An unpacked archive has no history, and a machine that unpacked one may have no git.
    done = subprocess.run(asked, capture_output=True, text=True, check=False) if shutil.which("git") else None
    return int(done.stdout) if done and done.returncode == 0 else int((SOURCE / "pyproject.toml").stat().st_mtime)


def _pip(*arguments: str | Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile"]
    subprocess.run([*pip, *arguments], check=True)


def _place(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _compressed(content: bytes) -> bytes:
    # The time inside would make two builds differ.
    return gzip.compress(content, mtime=0)


def _run(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
