"""Record: what was received can be read back, whatever happened in between."""

import datetime
import gzip
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.waiting import until
from tests.workers import Bench, trade
from tradebal.errors import UserError
from tradebal.handlers import Batch, Context, Record
from tradebal.stream import framing
from tradebal.stream.gap import Gap

COMPRESSIONS = {"zstd": ".zst", "gzip": ".gz", "none": ""}
ROOT = Path(__file__).parents[1]
NEW_YORK = ZoneInfo("America/New_York")


def nanoseconds(year, month, day, hour=0, minute=0, second=0):
    moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=NEW_YORK)
    return int(moment.timestamp()) * 10**9


def batch(records, time_ns, kind="ndjson"):
    return Batch(b"".join(framing.encode(record, kind) for record in records), kind, time_ns)


def record(directory, compression="zstd", **options):
    return Record(Context(shard=3, shards=8), directory=str(directory), compression=compression, **options)


def today(directory, compression="zstd"):
    date = datetime.datetime.now(NEW_YORK).date().isoformat()
    return directory / date / f"shard-3.ndjson{COMPRESSIONS[compression]}"


def content(path):
    if path.suffix == ".zst":
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as it:
            return it.read()
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    return path.read_bytes()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=5) | st.just("tick") | st.just("restart"), max_size=8)
)
def test_everything_reads_back_with_its_time_over_flushes_and_restarts(tmp_path_factory, compression, steps):
    directory = tmp_path_factory.mktemp("recordings")
    handler = record(directory, compression)
    base = time.time_ns()
    expected = b""
    for step, number in zip(steps, itertools.count(base)):
        if step == "tick":
            handler.on_tick(0.0)
        elif step == "restart":
            handler.close()
            handler = record(directory, compression)
        else:
            handler.on_trades(batch([trade(n) for n in step], number))
            for n in step:
                expected += b'{"received_ns":%d,"trade":%s}\n' % (number, trade(n))
    handler.close()
    [path] = directory.glob("*/*")
    assert path.name == f"shard-3.ndjson{COMPRESSIONS[compression]}"
    assert content(path) == expected


@pytest.mark.parametrize(("compression", "command"), [("zstd", "zstdcat"), ("gzip", "zcat")])
def test_the_usual_tools_read_it(tmp_path, compression, command):
    handler = record(tmp_path, compression)
    for number in range(3):
        handler.on_trades(batch([trade(number)], time.time_ns()))
        handler.on_tick(0.0)
    handler.close()
    try:
        result = subprocess.run([command, today(tmp_path, compression)], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip(f"{command} isn't installed")
    assert [orjson.loads(line)["trade"]["q"] for line in result.stdout.splitlines()] == [0, 1, 2]


def test_trades_of_either_framing_and_gaps_stand_in_their_order(tmp_path):
    handler = Record(Context(shard=3, shards=8, framing="length32"), directory=str(tmp_path), compression="none")
    handler.on_trades(batch([trade(1), trade(2)], time.time_ns(), "length32"))
    handler.on_gap(Gap("overflow", 5, 6, 7))
    handler.on_trades(batch([trade(3)], time.time_ns(), "length32"))
    handler.close()
    lines = [orjson.loads(line) for line in content(today(tmp_path, "none")).splitlines()]
    assert [line["trade"]["q"] if "trade" in line else line["gap"]["trades"] for line in lines] == [1, 2, 7, 3]


def test_a_tick_makes_it_readable(tmp_path):
    handler = record(tmp_path)
    handler.on_trades(batch([trade(1)], time.time_ns()))
    handler.on_tick(0.0)
    assert b'"q":1}' in content(today(tmp_path))
    handler.close()


def test_new_yorks_midnight_begins_a_new_file(tmp_path):
    handler = record(tmp_path, "none")
    # The days around the end of daylight saving time, of 24 and 25 hours.
    times = [
        nanoseconds(2026, 10, 31, 23, 59, 59) + 999_999_999,
        nanoseconds(2026, 11, 1),
        nanoseconds(2026, 11, 1, 23, 59, 59),
        nanoseconds(2026, 11, 2),
    ]
    for number, time_ns in enumerate(times):
        handler.on_trades(batch([trade(number)], time_ns))
    handler.close()
    numbers = {
        path.parent.name: [orjson.loads(line)["trade"]["q"] for line in content(path).splitlines()]
        for path in tmp_path.glob("2026-1?-*/*")
        if path.stat().st_size
    }
    assert numbers == {"2026-10-31": [0], "2026-11-01": [1, 2], "2026-11-02": [3]}


def test_another_time_zone_can_be_chosen(tmp_path):
    handler = record(tmp_path, "none", timezone="Asia/Tokyo")
    handler.on_trades(batch([trade(0)], nanoseconds(2026, 6, 1, 12)))
    handler.close()
    assert content(tmp_path / "2026-06-02" / "shard-3.ndjson").count(b"\n") == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_torn_end_is_cut_off_and_recording_goes_on_behind_the_last_whole_piece(tmp_path, compression, caplog):
    path = today(tmp_path, compression)
    for number in range(2):
        handler = record(tmp_path, compression)
        handler.on_trades(batch([trade(number)] * 50, time.time_ns()))
        handler.close()
    whole = content(path)
    size = path.stat().st_size
    handler = record(tmp_path, compression)
    handler.on_trades(batch([trade(2)] * 50, time.time_ns()))
    handler.close()
    os.truncate(path, size + (path.stat().st_size - size) // 2 + 3)
    handler = record(tmp_path, compression)
    handler.on_trades(batch([trade(3)], time.time_ns()))
    handler.close()
    got = content(path)
    assert got.startswith(whole)
    assert orjson.loads(got.splitlines()[-1])["trade"]["q"] == 3
    assert "torn end cut off" in caplog.text


def test_file_that_is_none_of_ours_is_set_aside_unharmed(tmp_path, caplog):
    path = today(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"somebody else's")
    handler = record(tmp_path)
    handler.on_trades(batch([trade(1)], time.time_ns()))
    handler.close()
    assert content(path).count(b"\n") == 1
    [aside] = path.parent.glob("*.torn-*")
    assert aside.read_bytes() == b"somebody else's"
    assert str(aside) in caplog.text


FULL_DISK = """
import resource, signal, sys, time
from tests.test_handlers_record import batch, record, today, content
from tests.workers import trade
from pathlib import Path

directory = Path(sys.argv[1])
handler = record(directory, "none")
handler.on_trades(batch([trade(1)], time.time_ns()))
handler.on_tick(0.0)
written = today(directory, "none").stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (written + 30, resource.RLIM_INFINITY))
handler.on_trades(batch([trade(2), trade(3)], time.time_ns()))
try:
    handler.on_tick(0.0)
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
handler.on_trades(batch([trade(4)], time.time_ns()))
handler.close()
print(handler.context.registry.get_sample_value("tradebal_record_lost_lines_total"))
"""


def test_write_that_fails_halfway_leaves_a_readable_file_and_an_exact_count(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == ["File too large", "2.0"]
    lines = content(today(tmp_path, "none")).splitlines()
    assert [orjson.loads(line)["trade"]["q"] for line in lines] == [1, 4]


def test_killed_worker_leaves_what_was_flushed_and_its_successor_appends(tmp_path):
    bench = Bench(tmp_path)
    try:
        bench.configure(f"directory = '{tmp_path}/recordings'", handler="tradebal.handlers:Record")
        balancer = bench.balancer()
        path = today(tmp_path / "recordings").with_name("shard-0.ndjson.zst")
        for number in range(2):
            worker = bench.worker()
            balancer.write(trade(number) + b"\n")
            until(lambda: path.exists() and content(path).count(b"\n") == number + 1, "the trade in the file")  # noqa: B023
            worker.kill()
        assert [orjson.loads(line)["trade"]["q"] for line in content(path).splitlines()] == [0, 1]
    finally:
        bench.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directory": "recordings"}, "must be an absolute path"),
        ({"directory": "/x", "compression": "lzma"}, 'must be "zstd", "gzip" or "none"'),
        ({"directory": "/x", "compression": "gzip", "level": 10}, "must be 1 to 9"),
        ({"directory": "/x", "compression": "none", "level": 1}, "without compression there is none"),
        ({"directory": "/x", "timezone": "Mars/Olympus"}, "this system doesn't know it"),
    ],
)
def test_bad_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Record(Context(shard=0, shards=1), **options)


def test_directory_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"recordings can't be written: .*file.*: Not a directory"):
        record(tmp_path / "file")


def test_missing_zstd_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match="zstandard") as caught:
        record(tmp_path)
    assert "tradebal[record]" in caught.value.hint
    assert 'compression = "gzip"' in caught.value.hint
