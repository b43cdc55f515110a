"""Boots Debian in qemu, with Debian's own kernel: what namespaces can't show, such as modules and limits of its own.

    root = make_root(directory / "root", packages=["openssl"])
    with Guest(root) as guest:
        guest.run("modprobe", "tls")
        print(guest.messages("--dmesg"))

The guest has no network: whatever it needs is put below `root` before. It writes to a snapshot of its disk, so that one
root serves many guests. A command whose closing line doesn't come, because the kernel panicked or hangs, raises
RuntimeError with the end of what the console said. Needs root, qemu, mmdebstrap and mke2fs; `why_not()` says what is
missing.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.boot import Systemd

_PROGRAMS = ("qemu-system-x86_64", "mmdebstrap", "mke2fs")
_NEEDED = ("kmod", "linux-image-cloud-amd64", "python3", "systemd-sysv", "udev")
_DISK_SIZE = "4G"  # sparse
_PORT = "commands"

# The kernel has its disk's driver as a module, so it wants an initial file system: Debian's own, with that alone.
_MODULES = "virtio_pci\nvirtio_blk\nvirtio_console\n"

_AGENT = r"""
import json, subprocess, sys

# A port can be opened only once, and takes 32 KiB at a time.
with open(sys.argv[1], "r+b", buffering=0) as port, open(port.fileno(), "w", closefd=False) as answers:
    for line in port:
        done = subprocess.run(json.loads(line), stdin=subprocess.DEVNULL, capture_output=True)
        said = [text.decode(errors="replace") for text in (done.stdout, done.stderr)]
        print(json.dumps([done.returncode, *said]), file=answers, flush=True)
"""

_UNIT = rf"""
[Unit]
Description=Commands of the Tests
BindsTo=dev-virtio\x2dports-{_PORT}.device
After=dev-virtio\x2dports-{_PORT}.device

[Service]
ExecStart=/usr/bin/python3 -I /usr/local/lib/agent.py /dev/virtio-ports/{_PORT}
"""


def why_not() -> str:
    """Return why no guest can be made and booted here; "" if one can."""
    if os.geteuid() != 0:
        return "making a guest's root needs root"
    if os.uname().machine != "x86_64":
        return "guests are x86-64"
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    return f"there is no {missing[0]} here" if missing else ""


def make_root(root: Path, *, packages: Sequence[str] = (), files: Sequence[Path] = ()) -> Path:
    """Make the directory `root`, a Debian 12 that can be a guest, with more packages: Debian's, and `files` (.deb)."""
    early = root.with_name(f"{root.name}.initramfs")
    _write(early / "initramfs-tools/conf.d/modules", "MODULES=list\n")
    _write(early / "initramfs-tools/modules", _MODULES)
    late = [f"/var/tmp/{file.name}" for file in files]
    _call(
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join((*_NEEDED, *packages))}"),
        f"--essential-hook=copy-in {early}/initramfs-tools /etc",
        *(f"--customize-hook=copy-in {file} /var/tmp" for file in files),
        *([f'--customize-hook=chroot "$1" apt-get install --yes {" ".join(late)}'] if late else []),
        *("bookworm", root),
    )
    _write(root / "usr/local/lib/agent.py", _AGENT)
    unit = root / "etc/systemd/system/commands.service"
    _write(unit, _UNIT)
    (unit.parent / "multi-user.target.wants" / unit.name).symlink_to(f"../{unit.name}")
    return root


class Guest(Systemd):
    """One booted guest, from `with` to its end."""

    def __init__(self, root: Path, *, memory: str = "2G", timeout: float = 180.0) -> None:
        """Boot from a disk with the files of `root`; `timeout`: seconds until all its units must have started."""
        self._root = root
        self._memory = memory
        self._timeout = timeout

    def __enter__(self) -> Guest:
        self._directory = tempfile.TemporaryDirectory(prefix="guest-", dir=self._root.parent)
        self._console = Path(self._directory.name) / "console"
        disk = Path(self._directory.name) / "disk"
        _call("mke2fs", "-q", "-t", "ext4", "-d", self._root, disk, _DISK_SIZE)
        self._port, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
                    *_accelerators(),
                    *("-machine", "q35", "-smp", "2", "-m", self._memory),
                    *("-kernel", self._root / "vmlinuz", "-initrd", self._root / "initrd.img"),
                    *("-append", "root=/dev/vda rw console=ttyS0 panic=-1 quiet mitigations=off"),
                    *("-drive", f"file={disk},if=none,id=disk,format=raw,snapshot=on"),
                    *("-device", "virtio-blk-pci,drive=disk", "-serial", f"file:{self._console}"),
                    *("-chardev", f"socket,id=port,fd={theirs.fileno()}", "-device", "virtio-serial-pci"),
                    *("-device", f"virtserialport,chardev=port,name={_PORT}"),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._answers = b""
        try:
            # Ends when all jobs of the boot are done; a unit that failed makes it "degraded".
            self.run("systemctl", "is-system-running", "--wait", check=False, timeout=self._timeout)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing on its disk will be asked for.
        self._process.kill()
        self._process.wait()
        self._port.close()
        self._directory.cleanup()

    def run(self, *command: str, check: bool = True, stderr: bool = False, timeout: float = 60.0) -> str:
        """Run a command inside and return its stdout, with `stderr` that too.

        AssertionError with all it said if it fails and `check`, or takes longer than `timeout` seconds.
        """
        # Beyond its time it is ended in there (and exits with 124), so that the next command is answered.
        ended = ["timeout", "--kill-after=5", str(timeout)]
        status, output, errors = self._ask([*ended, *command], timeout + 30)
        assert status == 0 or (not check and status != 124), f"{command}: exit {status}\n{output}{errors}"
        return output + errors if stderr else output

    def _ask(self, question: object, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        self._port.sendall(json.dumps(question).encode() + b"\n")
        while b"\n" not in self._answers:
            self._port.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                more = self._port.recv(1 << 16)
            except TimeoutError:
                self._process.kill()  # or a late answer would be taken for the next one
                raise RuntimeError(f"no answer within {timeout:g} s; {self._last_words()}") from None
            if not more:
                raise RuntimeError(f"the guest ended (qemu: exit {self._process.wait()}); {self._last_words()}")
            self._answers += more
        line, _, self._answers = self._answers.partition(b"\n")
        return json.loads(line)

    def _last_words(self) -> str:
        said = self._console.read_text(errors="replace").splitlines() if self._console.exists() else []
        return "\n".join(["its console's last lines:", *said[-40:]])


def _accelerators() -> list[str]:
    # Where the processor doesn't offer virtualization, /dev/kvm may be there all the same, and fail; where KVM doesn't
    # start, qemu goes on to TCG. TCG's cmpxchg16b isn't safe between threads that run side by side.
    offered = {"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split())
    return [*(("-accel", "kvm") if offered else ()), "-accel", "tcg,thread=multi", "-cpu", "max,-cx16"]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _call(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
