"""Boots a systemd in namespaces, this machine's own or another root's, over an overlay, in about half a second.

    with Machine(layer) as machine:                     # `layer`: a directory whose files lie over the root's
        machine.run("systemctl", "start", "cron.service")
        assert machine.show("cron.service", "ActiveState") == "active"
        print(machine.journal("-u", "cron.service"))

A real PID 1 with real cgroups, journal and sandboxing, and nothing of it is seen outside: all it writes goes to a tmpfs
and is gone at the end; its network is a loopback of its own. Needs root, util-linux, systemd and a cgroup2 hierarchy;
`why_not()` says what is missing. Machines may run side by side.

Not to be had in namespaces, where the host lacks CAP_SYS_RESOURCE: limits beyond the host's; nor modules that the
host's kernel hasn't. tests/guest.py boots a kernel too.
"""

from __future__ import annotations

import abc
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

SYSTEMD = Path("/lib/systemd/systemd")

_START = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$SPACE"
mkdir "$SPACE/upper" "$SPACE/work" "$SPACE/root"
cp -a "$LAYER/." "$SPACE/upper"
chmod 755 "$SPACE/upper"
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=$SPACE/upper,workdir=$SPACE/work" "$SPACE/root"
cd "$SPACE/root"
mount -t proc proc proc
# PID 1's first act, of this network alone: short of it, a burst of log lines finds the journal's queue full.
echo 512 > proc/sys/net/unix/max_dgram_qlen
# Written through it, systemd-sysctl would set the host's limits.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for directory in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs $directory; done
chmod 1777 tmp
mkdir dev/pts dev/shm
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
touch dev/kmsg  # not the kernel's log, which is the host's: a file that can be read afterwards
ln -s /proc/self/fd dev/fd
mkdir -p mnt
pivot_root . mnt
umount -l mnt
# Private, it would keep credentials from services with User=.
mount --make-rshared /
exec env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --unit=basic.target --log-target=journal
"""


def why_not() -> str:
    """Return why no machine can be booted here; "" if one can."""
    if os.geteuid() != 0:
        return "booting systemd in namespaces needs root"
    for program in ("unshare", "nsenter", "systemctl"):
        if shutil.which(program) is None:
            return f"there is no {program} here"
    if not SYSTEMD.exists():
        return f"there is no {SYSTEMD} here"
    if _cgroup2() is None:
        return "no cgroup2 hierarchy is mounted here"
    return ""


class Systemd(abc.ABC):
    """What can be asked of a booted systemd, wherever commands run on it."""

    @abc.abstractmethod
    def run(self, *command: str, check: bool = True, stderr: bool = False, timeout: float = 60.0) -> str:
        """Run a command inside and return its stdout, with `stderr` that too.

        AssertionError with all it said if it fails and `check`.
        """

    def show(self, unit: str, *properties: str) -> str:
        """Return properties of a unit, separated by spaces, as `systemctl show` gives them."""
        names = [f"--property={name}" for name in properties]
        lines = self.run("systemctl", "show", unit, *names).splitlines()
        values = dict(line.split("=", 1) for line in lines)
        return " ".join(values[name] for name in properties)

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """Return journal entries as their fields, oldest first; `arguments` as for journalctl."""
        self.run("journalctl", "--sync", check=False)
        lines = self.run("journalctl", "--output=json", "--all", "--no-pager", *arguments, check=False).splitlines()
        return [json.loads(line) for line in lines]

    def messages(self, *arguments: str) -> str:
        """Return the messages of journal entries, one a line."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.journal(*arguments))


class Machine(Systemd):
    """One booted systemd, from `with` to its end."""

    def __init__(self, layer: Path, *, root: Path = Path("/"), timeout: float = 30.0) -> None:
        """Boot with the files below `layer` over those of `root`; `timeout`: seconds until it must answer."""
        self._layer = layer
        self._root = root
        self._timeout = timeout
        self._space = tempfile.mkdtemp(prefix="machine-")
        self._cgroup = Path(tempfile.mkdtemp(prefix="machine-", dir=_cgroup2()))
        self.pid = 0
        """PID 1, as the host sees it."""

    def __enter__(self) -> Machine:
        # Nothing of the host is mounted, no module loaded into its kernel (an empty unit file masks a unit), and the
        # journal is kept in memory.
        for path in ("fstab", "systemd/system/modprobe@.service", "systemd/system/systemd-modules-load.service"):
            self.prepare(f"etc/{path}", "")
        self.prepare("etc/systemd/journald.conf.d/tests.conf", "[Journal]\nStorage=volatile\nRuntimeMaxUse=256M\n")
        unshare = "unshare --mount --uts --ipc --pid --cgroup --net --fork --kill-child=KILL"
        self._process = subprocess.Popen(
            ["sh", "-c", f'echo $$ > "$CGROUP/cgroup.procs" && exec {unshare} sh -c "$START"'],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "SPACE": self._space,
                "LAYER": str(self._layer),
                "ROOT": str(self._root),
                "CGROUP": str(self._cgroup),
                "START": _START,
            },
        )
        try:
            self._await_answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid and self._process.poll() is None:
            self.run("systemctl", "poweroff", "--no-block", check=False)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.kill(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        Path(self._space).rmdir()
        self._remove_cgroups()

    def prepare(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file into the layer; before the boot only."""
        file = self._layer / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def path(self, path: str) -> Path:
        """Return where the host finds the machine's absolute `path`."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def run(self, *command: str, check: bool = True, stderr: bool = False, timeout: float = 60.0) -> str:
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "SYSTEMD_PAGER": ""},
        )
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if stderr else "")

    def host_pid(self, unit: str) -> int:
        """Return the main process of a service, as the host numbers it; 0 if it has none."""
        inside = self.show(unit, "MainPID")
        for file in Path("/proc").glob("[0-9]*/status"):
            try:
                numbers = next(line for line in file.read_text().splitlines() if line.startswith("NSpid:")).split()
                namespace = (file.parent / "ns/pid").readlink()
            except (OSError, StopIteration):
                continue
            if numbers[-1] == inside and namespace == Path(f"/proc/{self.pid}/ns/pid").readlink():
                return int(file.parent.name)
        return 0

    def _await_answer(self) -> None:
        deadline = time.monotonic() + self._timeout
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                said = self._process.stdout.read().decode() if self._process.stdout else ""
                raise RuntimeError(f"systemd did not start (exit {self._process.returncode}): {said}")
            self.pid = int((children.read_text().split() or ["0"])[0])
            if self.pid and self.path("/run/systemd/private").exists():
                # Ends when all jobs of the boot are done; units that can't work in namespaces make it "degraded".
                self.run("systemctl", "is-system-running", "--wait", check=False)
                return
            time.sleep(0.02)
        raise RuntimeError(f"systemd did not answer within {self._timeout:g} s")

    def _remove_cgroups(self) -> None:
        deadline = time.monotonic() + 5
        while self._cgroup.exists():
            try:
                for directory, _, _ in os.walk(self._cgroup, topdown=False):
                    Path(directory).rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)


def _cgroup2() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(directory)
    return None
