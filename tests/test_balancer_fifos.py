"""The shard directory: one balancer at a time, FIFOs that are ours, as large as the kernel allows."""

import ctypes
import fcntl
import os
import resource
import stat
import struct
import subprocess
import sys

import pytest

from tradebal.balancer import fifos
from tradebal.errors import UserError


@pytest.fixture
def made(tmp_path):
    created = []

    def make(count=2, pipe_size=1 << 16):
        created.extend(fifos.create(tmp_path, count, pipe_size))
        return created

    yield make
    for fifo in created:
        os.close(fifo.fd)


def test_fifos_are_readable_by_owner_and_group_whatever_the_umask(made, tmp_path):
    before = os.umask(0o077)
    try:
        made()
    finally:
        os.umask(before)
    for shard in (0, 1):
        status = (tmp_path / f"shard-{shard}.fifo").stat()
        assert stat.S_ISFIFO(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o640


def test_capacity_is_what_the_kernel_really_gave(made):
    made_fifos = made(pipe_size=1 << 18)
    assert len(made_fifos) == 2
    for fifo in made_fifos:
        assert fifo.capacity == fcntl.fcntl(fifo.fd, fcntl.F_GETPIPE_SZ)


def test_the_lock_follows_no_link_and_empties_nothing_that_is_not_its_own(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    lock = tmp_path / fifos.LOCK_NAME
    lock.symlink_to(victim)
    with pytest.raises(UserError, match=r"can't be used"):
        fifos.DirectoryLock(tmp_path)
    lock.unlink()
    lock.hardlink_to(victim)
    with pytest.raises(UserError, match=r"balancer\.lock is in the way"):
        fifos.DirectoryLock(tmp_path)
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(UserError, match=r"balancer\.lock is in the way"):
        fifos.DirectoryLock(tmp_path)
    assert victim.read_text() == "kept"


def test_a_directory_that_everybody_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o1777)
    with pytest.raises(UserError, match="everybody may write"):
        fifos.DirectoryLock(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user needs root")
def test_a_directory_of_another_user_is_refused_with_its_owner(tmp_path):
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(UserError, match=r"belongs to another user \(uid 65534\)"):
        fifos.DirectoryLock(tmp_path)
    assert not (tmp_path / fifos.LOCK_NAME).exists()


@pytest.fixture
def ordinary_limits():
    """This thread without CAP_SYS_RESOURCE, which lets root have pipes of any size (capabilities(7), capset(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", 0x20080522, 0)
    before = ctypes.create_string_buffer(24)
    assert libc.capget(header, before) == 0
    effective, *others = struct.unpack("6I", before)
    assert libc.capset(header, struct.pack("6I", effective & ~(1 << 24), *others)) == 0
    yield
    assert libc.capset(header, before) == 0


@pytest.mark.usefixtures("ordinary_limits")
def test_a_size_beyond_the_system_limit_falls_back_to_one_that_all_shards_get(made, caplog):
    made_fifos = made(count=4, pipe_size=1 << 30)
    assert len({fifo.capacity for fifo in made_fifos}) == 1
    assert 1 << 12 <= made_fifos[0].capacity < 1 << 30
    assert f"got={made_fifos[0].capacity} bytes each, less than" in caplog.text


def test_unread_bytes_survive_a_reader_that_comes_and_goes(made, tmp_path):
    fifo = made()[0]
    os.write(fifo.fd, b"abcdef")
    reader = os.open(tmp_path / "shard-0.fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 2) == b"ab"
    os.close(reader)
    assert fifo.unread() == 4


def test_fifos_of_an_earlier_run_are_replaced_and_surplus_ones_removed(made, tmp_path):
    os.mkfifo(tmp_path / "shard-0.fifo")
    os.mkfifo(tmp_path / "shard-7.fifo")
    old = (tmp_path / "shard-0.fifo").stat().st_ino
    reader = os.open(tmp_path / "shard-0.fifo", os.O_RDONLY | os.O_NONBLOCK)  # keeps the old inode from reuse
    made()
    assert (tmp_path / "shard-0.fifo").stat().st_ino != old
    assert not (tmp_path / "shard-7.fifo").exists()
    os.close(reader)


def test_a_file_in_the_way_is_refused_by_name_and_left_alone(tmp_path):
    (tmp_path / "shard-1.fifo").write_text("mine")
    with pytest.raises(UserError, match=r"shard-1\.fifo is in the way"):
        fifos.create(tmp_path, 2, 1 << 16)
    assert (tmp_path / "shard-1.fifo").read_text() == "mine"


def test_removed_fifos_are_gone_from_the_directory_but_still_readable(tmp_path):
    (fifo,) = fifos.create(tmp_path, 1, 1 << 16)
    reader = os.open(fifo.path, os.O_RDONLY | os.O_NONBLOCK)
    os.write(fifo.fd, b"last words")
    fifos.remove([fifo])
    assert not fifo.path.exists()
    assert os.read(reader, 100) == b"last words"
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_a_second_balancer_is_refused_with_the_pid_of_the_first(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from tradebal.balancer.fifos import DirectoryLock\n"
            "lock = DirectoryLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"pid {holder.pid}") as refused:
            fifos.DirectoryLock(tmp_path)
        assert refused.value.code == 3
        holder.kill()
    fifos.DirectoryLock(tmp_path).release()  # a killed balancer leaves no lock behind


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"shards\.directory: .*file/run") as refused:
        fifos.DirectoryLock(tmp_path / "file" / "run")
    assert refused.value.code == 2  # a restart wouldn't change it


def test_a_full_directory_is_an_error_that_names_it(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(UserError, match=r"shards\.directory: .*can't be written") as refused:
            fifos.DirectoryLock(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.code == 2
