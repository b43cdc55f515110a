"""The project's packages, built once for all tests of a run, and clean Debian systems to install them in."""

import fcntl
import re
import shutil
import subprocess
import sys

from tests import boot
from tests.booted import Bundled
from tests.bundle import SOURCE

_ROOTS = SOURCE / "build/roots"
_CLEAN = ("mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates,python3,systemd")


def why_not_built():
    """Return why the packages can't be built here; "" if they can."""
    missing = [name for name in ("gcc", "strip", "objdump", "dpkg-deb") if shutil.which(name) is None]
    return f"there is no {missing[0]} here" if missing else ""


def why_not_booted():
    """Return why no clean Debian can be booted here; "" if one can."""
    return boot.why_not() or ("" if shutil.which("mmdebstrap") else "there is no mmdebstrap here") or why_not_built()


def build(directory):
    """Return the packages by their kind, "deb" and "rpm"; built where `directory` doesn't exist yet."""
    _once(directory, sys.executable, SOURCE / "packaging/make_package.py", "--output")
    return {path.suffix[1:]: path for path in directory.iterdir()}


def next_version(deb, directory):
    """Return the package as a later version, with another default configuration, and without one of its modules."""
    tree = directory / "next"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub("^Version: .*", "Version: 99.0.0-1", control.read_text(), flags=re.MULTILINE))
    with (tree / "etc/tradebal/tradebal.toml").open("a") as file:
        file.write("# changed by the next version\n")
    shutil.rmtree(tree / "usr/lib/tradebal/packages/pycparser")
    package = directory / "next.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, package], check=True, capture_output=True)
    return package


class Debian(Bundled):
    """A clean Debian with nothing but what the package depends on. Its root is made once, and kept in build/roots."""

    def __init__(self, directory, release="bookworm"):
        root = _ROOTS / release
        _once(root, *_CLEAN, release)
        layer = directory / "layer"
        layer.mkdir()
        super().__init__(layer, root=root)

    def install(self, deb):
        """Install the package without a network, keeping the configuration; returns what was said."""
        shutil.copy(deb, self.path("/root"))
        keep = "--option=Dpkg::Options::=--force-confold"
        return self.run("apt-get", "install", "--quiet", "--yes", keep, f"/root/{deb.name}", stderr=True)


def _once(path, *command):
    """Have `command PATH` make what isn't there; another process that makes it is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        part = path.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        done = subprocess.run([*command, part], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        part.rename(path)
