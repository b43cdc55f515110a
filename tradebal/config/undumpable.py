"""Keeps the memory of a process that holds the key away from core dumps and from other processes of its user."""

from __future__ import annotations

import ctypes
import logging
import os

_log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4


def make_undumpable() -> None:
    """Have the kernel write no core dump of this process, and show its memory and environment to root alone.

    See PR_SET_DUMPABLE in prctl(2). It holds until the process runs another program. To be called before the key is
    read.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        _log.warning("core dumps not prevented: error=%s: one could hold the key", os.strerror(ctypes.get_errno()))
