"""The C core's memory: nothing is read behind its input, nothing is lost, and what is in use stays."""

import ctypes
import gc
import mmap
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frames import BINARY, PING, fragments, frame, text
from tests.routing import STOCKS, drive, feed, process_all
from tradebal.router.interface import EventKind, Status

native = pytest.importorskip("tradebal.router.native", reason="the C core isn't built")

PAGE = mmap.PAGESIZE

counts_memory = pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps memory")
PROT_NONE, PROT_READ_WRITE = 0, 3
TRADE = b'{"ev":"T","sym":"%s","p":1.5,"c":[0,12],"x":"\\"}]"}'


@pytest.fixture
def page_end():
    """Gives views of bytes that end where reading on would be a segmentation fault."""
    memory = mmap.mmap(-1, 17 * PAGE)
    anchor = ctypes.c_char.from_buffer(memory)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    last = ctypes.addressof(anchor) + 16 * PAGE
    assert protect(last, PAGE, PROT_NONE) == 0

    def place(data):
        view = memoryview(memory)[16 * PAGE - len(data) : 16 * PAGE]
        view[:] = data
        return view

    yield place
    assert protect(last, PAGE, PROT_READ_WRITE) == 0
    del anchor
    gc.collect()
    memory.close()


@pytest.fixture(params=native.variants())
def variant(request):
    """Each variant of the wide loops in turn."""
    before = native.variant()
    native.use_variant(request.param)
    yield request.param
    native.use_variant(before)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.mark.usefixtures("variant")
def test_the_wide_loops_read_nothing_behind_their_input(page_end):
    trades = b",".join([TRADE % b"A"] * 700)
    for size in (*range(1, 200), 4095, 4096, 4097, 32768):
        with page_end(trades[:size]) as view:
            found = native.scan(view)
        assert found == native.scan(trades[:size])


def test_utf8_validation_reads_nothing_behind_its_input(page_end):
    for size in range(1, 200):
        for data in (b"x" * size, b"x" * (size - 1) + b"\xc3", b"x" * (size - 1) + b"\xf0"):
            with page_end(data) as view:
                assert native.utf8_valid(view) == (data[-1] == ord("x"))


def test_every_variant_finds_what_the_portable_one_finds():
    rng = random.Random(1)
    pieces = [b"{", b"}", b"[", b"]", b'"', b"\\", b"\\\\", b'\\"', b",", b":", b"\n", b"Y", b"_", b"\x7f", b"\xc3\xa4"]
    pieces += [b"a" * n for n in (1, 7, 61, 64)] + [TRADE % b"A"] * 4
    before = native.variant()
    try:
        for _ in range(3000):
            data = rng.choice((b"{", b"[", b"")) + b"".join(rng.choices(pieces, k=rng.randrange(1, 60)))
            found = {}
            for name in native.variants():
                native.use_variant(name)
                found[name] = native.scan(data)
            assert all(what == found["portable"] for what in found.values()), data
    finally:
        native.use_variant(before)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="can't run the variant 'mmx'"):
        native.use_variant("mmx")


def test_utf8_is_judged_as_pythons_decoder_judges_it():
    rng = random.Random(1)
    edges = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF4, 0xFF]
    for number in range(256 * 200):
        tail = bytes(rng.choice(edges) for _ in range(rng.randrange(5)))
        data = b"x" * rng.choice((0, 1, 62, 63, 64, 130)) + bytes([number % 256]) + tail
        try:
            data.decode()
            valid = True
        except UnicodeDecodeError:
            valid = False
        assert native.utf8_valid(data) is valid, data


def test_a_view_keeps_the_routers_memory():
    router = native.Router(1, STOCKS)
    feed(router, text(TRADE % b"A"))
    assert router.process() is Status.INPUT
    space, pending = router.space(), router.pending(0)
    del router
    gc.collect()
    assert bytes(pending) == TRADE % b"A" + b"\n"
    space[:4] = b"used"
    assert pending.readonly
    assert not space.readonly


@counts_memory
def test_a_million_calls_leak_nothing():
    router = native.Router(3, STOCKS, pins={b"A": 1})
    stream = (
        text(b"[" + TRADE % b"A" + b"," + TRADE % b"LONGSYMBOL" + b',{"ev":"x"},5,{"ev":"T"}]')
        + frame(PING, b"abc")
        + b"".join(fragments(b"[" + TRADE % b"B" + b"]", [3, 9], BINARY))
    )

    def once():
        feed(router, stream)
        process_all(router)
        for shard in range(3):
            router.sent(shard, len(router.pending(shard)))
            router.torn(shard)
        router.inject(0, b"{}")
        router.counters()
        router.shard_counters()
        router.batches()
        router.stalled()
        for wrong in (lambda: router.sent(0, 1 << 30), lambda: router.pending(3), lambda: router.inject(0, "text")):
            with pytest.raises((ValueError, IndexError, TypeError)):
                wrong()

    statuses = list(Status) + list(EventKind)
    for _ in range(500):
        once()
    gc.collect()
    before, references = resident_bytes(), [sys.getrefcount(status) for status in statuses]
    calls = 27
    for _ in range(1_000_000 // calls):
        once()
    gc.collect()
    assert resident_bytes() - before < 2 << 20
    assert [sys.getrefcount(status) for status in statuses] == references


@counts_memory
def test_making_routers_leaks_nothing():
    def once():
        router = native.Router(64, STOCKS, pins={b"A": 1}, max_message=1 << 30)
        feed(router, text(TRADE % b"A"))
        router.process()
        for wrong in ({"shards": 0}, {"pins": {b"A": 64}}, {"framing": "csv"}, {"max_message": 0}, {"pins": {"A": 1}}):
            with pytest.raises((ValueError, TypeError)):
                native.Router(**{"shards": 64, "rule": STOCKS} | wrong)

    for _ in range(100):
        once()
    gc.collect()
    before = resident_bytes()
    for _ in range(3000):
        once()
    gc.collect()
    assert resident_bytes() - before < 2 << 20


@counts_memory
def test_the_memory_of_a_huge_message_is_given_back():
    message = b"[" + b",".join([TRADE % b"A"] * 300_000) + b"]"
    router = native.Router(1, STOCKS)
    drive(router, [text(TRADE % b"A")])
    rest = memoryview(text(message))
    before = resident_bytes()
    while rest:
        rest = rest[feed(router, rest) :]
        process_all(router)
    assert router.counters().trades == 300_001
    assert resident_bytes() - before < 4 << 20


def test_an_impossible_size_is_a_memory_error():
    with pytest.raises(MemoryError):
        native.Router(1, STOCKS, max_message=1 << 62)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
    try:
        with pytest.raises(MemoryError):
            native.Router(1, STOCKS, max_message=1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


EXERCISE = """
import gc
from tests.frames import PING, close, frame, text
from tests.routing import STOCKS, drive
from tradebal.router import native
for variant in native.variants():
    native.use_variant(variant)
    for rule in (STOCKS, None):
        for stream in (text(b'[{"ev":"T","sym":"A"},{"ev":"T"},7]') + frame(PING, b"x") + close(1000), b"\\xff\\xff"):
            router = native.Router(2, rule, pins={b"A": 1})
            drive(router, [stream[at:at + 1] for at in range(len(stream))])
            router.reset()
            drive(router, [stream])
            for wrong in ((), (0, None), ("a", None), (1, 5), (1, None, 3)):
                try:
                    native.Router(*wrong)
                except (TypeError, ValueError, AttributeError):
                    pass
"""


def test_the_debug_allocator_and_development_mode_find_nothing():
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", EXERCISE],
        env=os.environ | {"PYTHONMALLOC": "debug"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
