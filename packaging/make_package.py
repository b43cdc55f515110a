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

SOURCE = Path(__file__).parent.parent
HERE = SOURCE / "packaging"
STAGE = SOURCE / "build" / "package"
ROOT = STAGE / "root"
HOME = ROOT / "usr/lib/tradebal"

_UNITS = "usr/lib/systemd/system"
_DOC = "usr/share/doc/tradebal"
_DIRECTORIES = {"*.service": _UNITS, "*.target": _UNITS, "*.timer": _UNITS, "*.slice": _UNITS}
_FILES = {
    "tradebal-generator": "usr/lib/systemd/system-generators/tradebal-generator",
    "tradebal.catalog": "usr/lib/systemd/catalog/tradebal.catalog",
    "sysusers.conf": "usr/lib/sysusers.d/tradebal.conf",
    "tmpfiles.conf": "usr/lib/tmpfiles.d/tradebal.conf",
    "sysctl.conf": "usr/lib/sysctl.d/60-tradebal.conf",
}

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
    parser.add_argument("--python", default="/usr/bin/python3", help="the distribution's, which the packages will use")
    parser.add_argument("--output", type=Path, default=SOURCE / "dist", help="where the packages go (default: dist)")
    arguments = parser.parse_args()
    shutil.rmtree(STAGE, ignore_errors=True)
    # Staged directories are installed with the modes that they have here.
    os.umask(0o022)
    os.environ["SOURCE_DATE_EPOCH"] = epoch = str(_time_of_source())
    print(f"staging {ROOT}", flush=True)
    version = stage_python(arguments.python)
    stage_system()
    stage_documents(version)
    for path in [STAGE, *STAGE.rglob("*")]:
        os.utime(path, (int(epoch), int(epoch)), follow_symlinks=False)
    arguments.output.mkdir(parents=True, exist_ok=True)
    minor = int(version.partition(".")[2])
    values = {
        "arch": _ARCHITECTURES[os.uname().machine],
        "libc": _newest_libc(HOME.rglob("*.so")),
        "mtime": _run("date", "--utc", f"--date=@{epoch}", "+%Y-%m-%dT%H:%M:%SZ").strip(),
        "python": version,
        "python_after": f"3.{minor + 1}",
        "stage": STAGE.relative_to(SOURCE),
        "version": tradebal.__version__,
    }
    recipe = STAGE / "nfpm.yaml"
    recipe.write_text(string.Template((HERE / "nfpm.yaml").read_text()).substitute(values))
    nfpm = Path(sys.executable).parent / "nfpm"
    for packager in ("deb", "rpm"):
        target = str(arguments.output) + "/"
        subprocess.run([nfpm, "package", "-f", recipe, "-p", packager, "-t", target], cwd=SOURCE, check=True)
    return 0


def stage_python(python: str) -> str:
    """Make the Python environment with tradebal and all that its commands need; returns the version, such as 3.11."""
    version = _run(python, "-IS", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    interpreter = HOME / "bin/python3"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(f"/usr/bin/python{version}")  # while building; relative once it is installed
    packages = HOME / f"lib/python{version}/site-packages"
    packages.mkdir(parents=True)
    (HOME / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    # A copy, since setuptools builds in the source's own directory and would pick up what earlier builds left there.
    source = STAGE / "source"
    source.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        if (SOURCE / name).exists():
            shutil.copy(SOURCE / name, source)
    shutil.copytree(SOURCE / "tradebal", source / "tradebal", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", interpreter]
    install = [*pip, "install", "--no-compile", "--constraint", HERE / "constraints.txt", "--no-warn-script-location"]
    subprocess.run([*install, f"{source}[demo]"], check=True)
    for script in (HOME / "bin").iterdir():
        if script != interpreter:
            script.unlink()
    command = HOME / "bin/tradebal"
    command.write_text(_COMMAND)
    command.chmod(0o755)
    link = ROOT / "usr/bin/tradebal"
    link.parent.mkdir(parents=True)
    link.symlink_to("../lib/tradebal/bin/tradebal")
    _tidy(packages)
    if not list((packages / "tradebal").glob("_corelib*.so")):
        raise SystemExit("the C core wasn't built: is gcc here?")
    compiling = [python, "-m", "compileall", "-q", "-s", ROOT, "-p", "/", "--invalidation-mode", "checked-hash"]
    subprocess.run([*compiling, HOME / "lib"], check=True)
    interpreter.unlink()
    interpreter.symlink_to(f"../../../bin/python{version}")
    return version


def stage_system() -> None:
    """Put units and their like, the default configuration, dashboards and Prometheus files where they belong."""
    systemd = SOURCE / "systemd"
    for pattern, directory in _DIRECTORIES.items():
        for unit in sorted(systemd.glob(pattern)):
            _place(unit, f"{directory}/{unit.name}")
    for name, target in _FILES.items():
        if (systemd / name).exists():
            _place(systemd / name, target, 0o755 if name.endswith("generator") else 0o644)
    for example in sorted((systemd / "examples").glob("*.conf")):
        _place(example, f"{_DOC}/examples/{example.name}")
    for file in sorted((SOURCE / "grafana").rglob("*")):
        if file.suffix in {".json", ".yaml", ".yml"}:
            _place(file, f"usr/share/tradebal/{file.relative_to(SOURCE)}")
    configuration = ROOT / "etc/tradebal/tradebal.toml"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(_run(sys.executable, HERE / "make_config.py"))


def stage_documents(python: str) -> None:
    """Write manual pages, changelog and copyright."""
    pages = STAGE / "man"
    subprocess.run([sys.executable, HERE / "make_manual.py", pages], check=True)
    for page in [*pages.iterdir(), *(HERE / "man").iterdir()]:
        _compressed(f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz", page.read_bytes())
    date = _run("date", "--utc", "--rfc-email", f"--date=@{os.environ['SOURCE_DATE_EPOCH']}").strip()
    version = tradebal.__version__
    author = "The tradebal authors <tradebal@users.noreply.github.com>"
    changes = f"tradebal ({version}-1) stable; urgency=medium\n\n  * Version {version}.\n\n -- {author}  {date}\n"
    # The time inside would make two builds differ.
    (STAGE / "changelog.Debian.gz").write_bytes(gzip.compress(changes.encode(), mtime=0))
    (ROOT / _DOC).mkdir(parents=True, exist_ok=True)
    (ROOT / _DOC / "copyright").write_text("".join(_copyright(HOME / f"lib/python{python}/site-packages")))


def _copyright(packages: Path) -> Iterator[str]:
    installed = f"/{packages.relative_to(ROOT)}"
    yield "tradebal is under this license:\n\n"
    yield (SOURCE / "LICENSE").read_text()
    yield f"\nThe Python packages below {installed} are under licenses of their own, whose texts lie there:\n"
    for found in sorted(importlib.metadata.distributions(path=[str(packages)]), key=lambda found: found.name.lower()):
        if found.name == "tradebal":
            continue
        terms = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
        yield f"\n{found.name} {found.version}: {terms.splitlines()[0] if terms else 'see its metadata'}\n"
        for file in found.files or []:
            if ".dist-info" in str(file.parent) and re.search(r"licen[cs]e|copying|notice", file.name, re.IGNORECASE):
                yield f"  {file}\n"
    yield "\nOn Debian systems, the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0 as well.\n"


def _tidy(packages: Path) -> None:
    """Take out what only an installer needs, what names the building machine, and debugging symbols."""
    for record in packages.glob("*.dist-info/direct_url.json"):
        record.unlink()
    for directory in [*packages.rglob("__pycache__")]:
        shutil.rmtree(directory)
    for library in packages.rglob("*.so"):
        subprocess.run(["strip", "--strip-unneeded", library], check=True)
        library.chmod(0o644)


def _newest_libc(libraries: Iterator[Path]) -> str:
    """Return the oldest version of the C library that has every symbol which these want."""
    wanted = {(2, 17)}
    for library in libraries:
        for version in re.findall(r"\(GLIBC_(\d+)\.(\d+)", _run("objdump", "--dynamic-syms", library)):
            wanted.add((int(version[0]), int(version[1])))
    return "{}.{}".format(*max(wanted))


def _time_of_source() -> int:
    """Return the last commit's time, so that the same source gives the same packages."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    asked = ["git", "-C", str(SOURCE), "log", "-1", "--format=%ct"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else int((SOURCE / "pyproject.toml").stat().st_mtime)


def _place(source: Path, target: str, mode: int = 0o644) -> None:
    path = ROOT / target
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    path.chmod(mode)


def _compressed(target: str, content: bytes) -> None:
    path = ROOT / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0))


def _run(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
