"""The recording format: exact for any payload, readable after a crash, loud about damage."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tradebal.recordings.format as recording
from tradebal.recordings.format import Contents, Header, Kind, Reader, Record, RecordingError, Writer
from tradebal.router.interface import Rule

HEADER = Header("massive", "wss://socket.massive.com/stocks", "2026-01-05T14:29:58.120Z", ("T.*",))
TRADE = b'[{"ev":"T","sym":"MSFT","x":4,"p":114.125,"s":100,"t":1536036818784}]'

records = st.lists(
    st.builds(Record, st.integers(0, 2**63 - 1), st.sampled_from(Kind), st.binary(max_size=200)), max_size=20
)
suffixes = st.sampled_from(["", ".gz", ".zst"])
shared_directory = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, given_records: list[Record], header: Header = HEADER) -> None:
    path.unlink(missing_ok=True)
    with Writer(path, header) as writer:
        for record in given_records:
            writer.write(*record)


def read(path: Path) -> tuple[list[Record], str]:
    with Reader(path) as reader:
        return list(reader), reader.truncated


@shared_directory
@given(records, suffixes)
def test_what_was_written_is_read_back_byte_for_byte(tmp_path: Path, given_records: list[Record], suffix: str) -> None:
    path = tmp_path / f"recording{suffix}"
    write(path, given_records)
    assert read(path) == (given_records, "")


def try_read(path: Path) -> tuple[list[Record] | None, str]:
    """What was read and the warning, or None and the complaint; any other exception is the test's failure."""
    try:
        return read(path)
    except RecordingError as error:
        return None, error.message


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = texts.map(str.encode)


@given(
    st.builds(
        Header,
        texts,
        st.just("wss://host:1/x"),
        texts,
        st.lists(texts, max_size=3).map(tuple),
        st.none() | st.builds(Rule, names, st.lists(names, max_size=3).map(tuple), names, st.none() | names),
    )
)
@settings(deadline=None, max_examples=60)
def test_any_header_survives_its_line(header: Header) -> None:
    line = header.to_line()
    assert line.count(b"\n") == 1
    assert Header.parse(line) == header


def test_a_message_is_one_line_that_grep_finds_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    write(path, [Record(1_767_623_400_000_123_456, Kind.TEXT, TRADE)])
    lines = path.read_bytes().splitlines()
    assert json.loads(lines[0])["tradebal-recording"] == 1
    assert lines[1:] == [b"1767623400000123456 text %d %s" % (len(TRADE), TRADE)]


def test_the_header_keeps_no_secret_of_the_url() -> None:
    header = Header("custom", "wss://me:hunter2@feed.example:9443/v1?apiKey=hunter2#hunter2", "now")
    assert b"hunter2" not in header.to_line()
    assert Header.parse(header.to_line()).url == "wss://feed.example:9443/v1"


@shared_directory
@given(records, st.data())
def test_a_file_cut_anywhere_is_read_up_to_the_last_whole_message(
    tmp_path: Path, given_records: list[Record], data: st.DataObject
) -> None:
    path = tmp_path / "recording"
    write(path, [])
    start = path.stat().st_size
    ends = [start]
    for record in given_records:
        line = b"%d %s %d %s\n" % (record.time_ns, record.kind.value.encode(), len(record.data), record.data)
        ends.append(ends[-1] + len(line))
    write(path, given_records)
    assert path.stat().st_size == ends[-1]
    cut = data.draw(st.integers(start, ends[-1]))
    path.write_bytes(path.read_bytes()[:cut])
    whole = sum(end <= cut for end in ends[1:])
    found, warning = read(path)
    assert found == given_records[:whole]
    if cut == ends[whole]:
        assert warning == ""
    else:
        assert f"byte {ends[whole]}" in warning
        assert str(path) in warning


@shared_directory
@given(records, st.sampled_from([".gz", ".zst"]), st.data())
def test_a_compressed_file_cut_anywhere_gives_a_beginning_of_what_was_written_and_a_warning(
    tmp_path: Path, given_records: list[Record], suffix: str, data: st.DataObject
) -> None:
    path = tmp_path / f"recording{suffix}"
    write(path, given_records)
    raw = path.read_bytes()
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    found, warning = try_read(path)
    assert str(path) in warning
    if found is not None:
        assert found == given_records[: len(found)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_what_was_flushed_survives_a_kill(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"recording{suffix}"
    program = """
import os, signal, sys
from pathlib import Path
from tradebal.recordings.format import Header, Kind, Writer
writer = Writer(Path(sys.argv[1]), Header("massive", "ws://x/", "now"))
for n in range(3):
    writer.write(n, Kind.TEXT, b"kept")
writer.flush()
writer.write(3, Kind.TEXT, b"lost")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    found, warning = read(path)
    assert found == [Record(n, Kind.TEXT, b"kept") for n in range(3)]
    assert bool(warning) == bool(suffix)


def test_a_quiet_tick_adds_nothing_to_a_compressed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "FLUSH_INTERVAL", 0.0)
    with Writer(tmp_path / "recording.zst", HEADER) as writer:
        writer.write(1, Kind.TEXT, TRADE)
        writer.tick()
        size = writer.size
        for _ in range(10):
            writer.tick()
        assert writer.size == size


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (b"1 text 5 abcde", "no newline behind a payload of 5 bytes"),
        (b"1 text 4 abcde\n" + bytes(60), "no newline behind a payload of 4 bytes"),
        (b"1 test 4 abcd\n", "unknown kind of record 'test'"),
        (b"1 text 2000000000 abcd\n", "a length of 2000000000 bytes"),
        (b"hello\n", "expected a record"),
        (b"\n", "expected a record"),
        (bytes(100), "expected a record"),
        (b"-1 text 1 a\n" + bytes(60), "expected a record"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damage_names_file_and_byte(tmp_path: Path, damage: bytes, complaint: str, suffix: str) -> None:
    path = tmp_path / f"recording{suffix}"
    good = b"1 text 3 abc\n"
    whole = HEADER.to_line() + good + damage
    if damage == b"1 text 5 abcde":
        whole += good
    path.write_bytes(gzip.compress(whole) if suffix else whole)
    with Reader(path) as reader:
        iterator = iter(reader)
        assert next(iterator) == Record(1, Kind.TEXT, b"abc")
        with pytest.raises(RecordingError, match=re.escape(complaint)) as failure:
            next(iterator)
    assert f"{path}: damaged at byte {len(HEADER.to_line()) + len(good)}" in failure.value.message
    assert ("uncompressed" in failure.value.message) == bool(suffix)


@shared_directory
@given(st.binary(max_size=300))
def test_any_bytes_behind_a_header_give_records_or_a_clear_error(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "recording"
    path.write_bytes(HEADER.to_line() + junk)
    found, complaint = try_read(path)
    assert found is not None or f"{path}: damaged at byte " in complaint


@shared_directory
@given(st.sampled_from([".gz", ".zst"]), st.data())
def test_a_flipped_byte_in_a_compressed_file_is_an_error_line_at_most(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path / f"recording{suffix}"
    write(path, [Record(n, Kind.TEXT, TRADE) for n in range(20)])
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    found, complaint = try_read(path)
    assert found is not None or str(path) in complaint


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"", "not a tradebal recording"),
        (b"epoch,price\n", "not a tradebal recording"),
        (b'{"tradebal-recording":1', "ends inside its first line"),
        (b'{"tradebal-recording":1,"profile":\n', "not a JSON object"),
        (b'{"tradebal-recording":2}\n', "version 2"),
        (b'{"tradebal-recording":"1"}\n', "version as '1'"),
        (b'{"tradebal-recording":1,"profile":"massive"}\n', "lacks a field"),
        (b'{"tradebal-recording":1,"profile":1,"url":"","started":""}\n', "wrong type"),
        (b'{"tradebal-recording":' + b"[" * 60000 + b"\n", "not a JSON object"),
        (b'{"tradebal-recording":' + b" " * 70000, "ends inside its first line"),
    ],
)
def test_a_file_without_a_usable_header_is_refused_by_name(tmp_path: Path, line: bytes, complaint: str) -> None:
    path = tmp_path / "recording"
    path.write_bytes(line)
    with pytest.raises(RecordingError, match=complaint) as failure:
        Reader(path)
    assert str(path) in failure.value.message
    assert failure.value.code == 2


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        Reader(tmp_path / "nothing")


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(b"mine")
    with pytest.raises(RecordingError, match="exists already") as failure:
        Writer(path, HEADER)
    assert "--append" in failure.value.hint
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_appending_goes_on_behind_the_last_message(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"recording{suffix}"
    write(path, [Record(1, Kind.TEXT, b"one")])
    with Writer(path, HEADER, append=True) as writer:
        writer.write(2, Kind.BINARY, b"two")
        assert writer.notice == ""
    assert read(path) == ([Record(1, Kind.TEXT, b"one"), Record(2, Kind.BINARY, b"two")], "")


def test_appending_to_a_torn_plain_file_cuts_off_the_torn_message_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    write(path, [Record(1, Kind.TEXT, b"one")])
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"2 text 100 tor")
    with Writer(path, HEADER, append=True) as writer:
        assert f"byte {whole}" in writer.notice
        writer.write(3, Kind.TEXT, b"three")
    assert read(path) == ([Record(1, Kind.TEXT, b"one"), Record(3, Kind.TEXT, b"three")], "")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_appending_to_a_torn_compressed_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"recording{suffix}"
    write(path, [Record(1, Kind.TEXT, TRADE)])
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    with pytest.raises(RecordingError, match="compression was not finished"):
        Writer(path, HEADER, append=True)
    assert path.read_bytes() == raw[:-1]


def test_appending_another_feed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    write(path, [])
    with pytest.raises(RecordingError, match=r"holds massive from wss://socket\.massive\.com/stocks, not coinbase"):
        Writer(path, Header("coinbase", "wss://ws-feed.exchange.coinbase.com", "now"), append=True)


@pytest.mark.parametrize("compress", [gzip.compress, lambda data: zstandard.ZstdCompressor().compress(data)])
def test_files_compressed_by_other_tools_read_whatever_their_names_say(tmp_path: Path, compress) -> None:
    path = tmp_path / "recording.txt"
    write(path, [Record(1, Kind.TEXT, TRADE)])
    raw = path.read_bytes()
    path.write_bytes(compress(raw[:50]) + compress(raw[50:]))
    assert read(path) == ([Record(1, Kind.TEXT, TRADE)], "")


def test_a_forged_zstd_file_cannot_inflate_to_more_than_memory_bears(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zst"
    # RFC 8878: a frame with a window of 128 KiB, and blocks of 4 bytes that each stand for 128 KiB of one byte.
    block = ((1 << 17) << 3 | 1 << 1).to_bytes(3, "little") + b"x"
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00\x38" + block * 8192)
    contents = Contents(path)
    assert max(len(chunk) for chunk, _ in zip(contents, range(4), strict=False)) <= 160 << 20
    contents.close()


def test_a_large_message_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    given_records = [Record(1, Kind.TEXT, b"\n1 text 3 " * 300_000), Record(2, Kind.TEXT, b"")]
    write(path, given_records)
    assert read(path) == (given_records, "")


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_file_that_can_grow_no_more_is_a_clear_error_and_keeps_what_it_has(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"recording{suffix}"
    program = """
import random, resource, sys
from pathlib import Path
from tradebal.recordings.format import Header, Kind, RecordingError, Writer
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    with Writer(Path(sys.argv[1]), Header("massive", "ws://x/", "now")) as writer:
        for n in range(100):
            writer.write(n, Kind.BINARY, random.randbytes(1000))
            writer.flush()
except RecordingError as error:
    sys.exit(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.stderr == f"{path}: File too large; what was written before is kept\n"
    found, warning = read(path)
    assert [record.time_ns for record in found] == list(range(len(found)))
    assert len(found) >= 6
    assert "as after a crash" in warning


def test_the_documentations_example_is_a_recording(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "recordings.md").read_text()
    example = next(block for block in page.split("```") if '\n{"tradebal-recording"' in block)
    path = tmp_path / "example"
    path.write_text(example.removeprefix("\n"))
    found, warning = read(path)
    assert [record.kind for record in found] == [Kind.NOTE, Kind.LOGIN_TEXT, Kind.TEXT]
    assert warning == ""
