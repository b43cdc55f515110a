"""The project's packages, built once for all tests of a run, and a clean Debian to install them in."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parent.parent
_CLEAN = ("mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,systemd,ca-certificates", "bookworm")

# A network of its own with nothing but a loopback: what needs more than the package fails.
_INSIDE = r"""
set -eu
ip link set lo up
mount -t overlay overlay -o "lowerdir=$CLEAN,upperdir=$LAYER,workdir=$WORK" "$MERGED"
mount -t proc proc "$MERGED/proc"
mount --bind /dev "$MERGED/dev"
"""


def why_not_built() -> str:
    """Return why the packages can't be built here; "" if they can."""
    for program in ("gcc", "strip", "objdump", "dpkg-deb"):
        if shutil.which(program) is None:
            return f"there is no {program} here"
    if not Path("/usr/bin/python3").exists():
        return "there is no /usr/bin/python3 here"
    return ""


def why_no_clean_root() -> str:
    """Return why no clean Debian can be made here; "" if one can."""
    if os.geteuid() != 0:
        return "installing packages into a clean root needs root"
    for program in ("mmdebstrap", "unshare", "ip", "rpm"):
        if shutil.which(program) is None:
            return f"there is no {program} here"
    return why_not_built()


@contextmanager
def _once(directory: Path, name: str) -> Iterator[Path | None]:
    """Give the place to make something at, or None where another test process has made it."""
    directory.mkdir(exist_ok=True)
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = directory / f"{name}.done"
        yield None if done.exists() else directory / name
        done.touch()


def build(shared: Path) -> dict[str, Path]:
    """Return the packages by their kind: "deb", "rpm"."""
    with _once(shared, "dist") as making:
        if making:
            command = [sys.executable, SOURCE / "packaging/make_package.py", "--output", making]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return {path.suffix[1:]: path for path in (shared / "dist").iterdir()}


def next_version(deb: Path, directory: Path) -> Path:
    """Return the package as a later version of itself, whose default configuration differs."""
    tree = directory / "next"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 1:"))
    with (tree / "etc/tradebal/tradebal.toml").open("a") as file:
        file.write("# changed by the next version\n")
    package = directory / "next.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, package], check=True, capture_output=True)
    return package


class CleanRoot:
    """A Debian 12 with nothing installed but what the package depends on; what happens in it is gone at the end."""

    def __init__(self, shared: Path, directory: Path) -> None:
        with _once(shared, "clean") as making:
            if making:
                done = subprocess.run([*_CLEAN, making], capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                # Every installer writes it; the bare system has none, nor a name for its own loopback.
                (making / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        self.root = directory / "merged"
        layer = directory / "layer"
        for path in (self.root, layer, directory / "work"):
            path.mkdir()
        self._environment = {
            "PATH": os.environ["PATH"],
            "CLEAN": str(shared / "clean"),
            "LAYER": str(layer),
            "WORK": str(directory / "work"),
            "MERGED": str(self.root),
        }

    def __enter__(self) -> CleanRoot:
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL"]
        self._process = subprocess.Popen(
            [*unshare, "sh", "-c", f"{_INSIDE}\necho ready\nexec sleep infinity"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        )
        said = self._process.stdout.readline()
        if said != "ready\n":
            said += self._process.stdout.read()
            self.__exit__()
            raise RuntimeError(f"no clean root: {said}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._pid = children.read_text().split()[0]
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def run(self, *command: str | Path, check: bool = True) -> str:
        """Run a command in the root, and return all that it said."""
        return self._enter("chroot", self.root, *command, check=check)

    def run_on(self, *command: str | Path, check: bool = True) -> str:
        """Run a command of the host's that works on `root`."""
        return self._enter(*command, check=check)

    def path(self, path: str) -> Path:
        """Return where the host finds the root's absolute `path`."""
        return Path(f"/proc/{self._pid}/root{self.root}") / path.lstrip("/")

    def bring(self, file: Path) -> str:
        """Copy a file into the root, and return its path there."""
        shutil.copy(file, self.path("/root"))
        return f"/root/{file.name}"

    def _enter(self, *command: str | Path, check: bool) -> str:
        done = subprocess.run(
            ["nsenter", "--target", self._pid, "--mount", "--net", "--pid", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}"
        return done.stdout
