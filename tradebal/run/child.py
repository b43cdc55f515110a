"""Starts one supervised process so that it is stopped when its supervisor dies, however that happens.

Run by path, without `site` and with no other module of ours, as `child.py SUPERVISOR_PID COMMAND…`: this costs a few
milliseconds, and code in Python between fork and exec (preexec_fn), which is unsafe with threads, isn't needed.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(supervisor: int, command: list[str]) -> None:
    """Ask the kernel for SIGTERM at the supervisor's death (prctl(2)), then become the command."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
    if prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        print(f"tradebal: warning: prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
    if os.getppid() != supervisor:  # it died before the kernel was asked
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - becoming the command is what this is for
    except OSError as error:
        print(f"tradebal: error: {command[0]}: can't be started: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
