"""Starts one supervised process so that it is stopped when its supervisor dies, however that happens.

Run by path, without `site` and with no other module of ours, as `child.py SUPERVISOR_PID KEPT COMMAND…`: this costs a
few milliseconds, and code in Python between fork and exec (preexec_fn), which is unsafe with threads, isn't needed.
KEPT lists inherited descriptors to pass on as sd_listen_fds_with_names(3) describes, as NAME:NUMBER,…; it may be empty.
"""

import ctypes
import fcntl
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_FIRST_FD = 3
"""SD_LISTEN_FDS_START (sd_listen_fds(3))."""


def pass_on(kept: list[list[str]]) -> None:
    """Move descriptors, given as (name, number), to where the command looks for them, and tell it so."""
    # Out of the way first: a number may be wanted for another one.
    moved = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, _FIRST_FD + len(kept)) for _, number in kept]
    for _, number in kept:
        os.close(int(number))
    for place, fd in enumerate(moved, _FIRST_FD):
        os.dup2(fd, place)
    names = ":".join(name for name, _ in kept)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": names}


def main(supervisor: int, kept: str, command: list[str]) -> None:
    """Ask the kernel for SIGTERM at the supervisor's death (prctl(2)), then become the command."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
    if prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        print(f"tradebal: warning: prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
    if os.getppid() != supervisor:  # it died before the kernel was asked
        sys.exit(1)
    if kept:
        pass_on([entry.rsplit(":", 1) for entry in kept.split(",")])
    try:
        os.execvp(command[0], command)  # noqa: S606 - becoming the command is what this is for
    except OSError as error:
        print(f"tradebal: error: {command[0]}: can't be started: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
