"""What Linux's pipes offer beyond reading and writing, see pipe(7): how full they are, their size, and tee(2)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import termios
from collections.abc import Sequence

DEFAULT_SIZE = 64 * 1024
"""A pipe's size when the kernel is asked for nothing, in bytes."""

# os.splice is there, os.tee isn't. It is the first thing that a worker does with what has come, so it is called in the
# way that ctypes is fastest at: without types to check, errno to keep, or the interpreter's lock to give up and get
# back; and, where it fails, once more to learn why.
_tee = ctypes.PyDLL(None).tee
_told_tee = ctypes.CDLL(None, use_errno=True).tee
_SPLICE_F_NONBLOCK = 2


def unread(fd: int) -> int:
    """Return how many bytes are in the pipe, or wait in the socket (FIONREAD)."""
    count = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


def capacity(fd: int) -> int:
    """Return the pipe's size in bytes, which it holds if all its pages are full."""
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def enlarge(descriptors: Sequence[int], wanted: int) -> int:
    """Give all pipes the same size, the largest that the kernel grants every one of them; returns it in bytes.

    Pipes share one allowance per user (fs.pipe-user-pages-soft): first come, first served would leave the last ones
    with a page or two.
    """
    size = wanted
    while size > DEFAULT_SIZE and not all(_resize(fd, size) for fd in descriptors):
        for fd in descriptors:
            _resize(fd, DEFAULT_SIZE)
        size //= 2
    return min(map(capacity, descriptors))


def tee(source: int, target: int, count: int) -> int:
    """Have the pipe `target` hold the first bytes of the pipe `source` too; returns how many they are.

    These are `count`, or as many as are in the one or find room in the other, page by page: a page that is partly
    filled needs the room of a whole one. Never waits. `count` is below 2^31.
    """
    copied: int = _tee(source, target, ctypes.c_size_t(count), _SPLICE_F_NONBLOCK)
    if copied < 0:
        copied = _told_tee(source, target, ctypes.c_size_t(count), _SPLICE_F_NONBLOCK)
        if copied < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return copied


def look(fd: int) -> bytes:
    """Return a copy of what is in the pipe, or of its beginning where the kernel grants no room for all of it."""
    copy_out, copy_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        enlarge([copy_in], 2 * capacity(fd))  # partly filled pages take the room of whole ones
        count = tee(fd, copy_in, capacity(fd))
        return os.read(copy_out, count) if count else b""
    except BlockingIOError:
        return b""
    finally:
        os.close(copy_out)
        os.close(copy_in)


def _resize(fd: int, size: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
    except OSError:  # EPERM: above a limit; ENOMEM: no memory for the ring; EBUSY: more is in it than would fit
        return False
    return True
