"""Rejected pieces are kept where someone can look at them, bounded on disk and in the log."""

import resource

import orjson

from tradebal.balancer import rejects
from tradebal.balancer.rejects import Rejects
from tradebal.router.interface import Event, EventKind


def reject(data, reason="malformed object"):
    return Event(EventKind.REJECT, data, 1, reason)


def test_a_reject_is_kept_with_time_reason_length_and_text(tmp_path):
    kept = Rejects(tmp_path)
    kept.add(reject(b'{"ev":"T","sym":1}', "no usable symbol"))
    kept.close()
    (line,) = (tmp_path / "rejects.ndjson").read_bytes().splitlines()
    record = orjson.loads(line)
    assert record.pop("time_ns") > 1_600_000_000_000_000_000
    assert record == {"reason": "no usable symbol", "bytes": 18, "data": '{"ev":"T","sym":1}'}


def test_bytes_that_are_no_text_are_escaped_and_long_ones_cut(tmp_path):
    kept = Rejects(tmp_path)
    kept.add(reject(b"\xff" + b"a" * 1_000_000))
    kept.close()
    record = orjson.loads((tmp_path / "rejects.ndjson").read_bytes())
    assert record["bytes"] == 1_000_001
    assert record["data"] == "\\xff" + "a" * (65536 - 1)


def test_the_log_shows_the_first_bytes_and_then_stays_quiet(tmp_path, caplog):
    kept = Rejects(tmp_path)
    for _ in range(1000):
        kept.add(reject(b'{"broken' * 100))
    kept.close()
    assert '{"broken' in caplog.messages[0]
    assert len(caplog.messages) < 20


def test_two_files_bound_what_lies_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(rejects, "_FILE_LIMIT", 10_000)
    kept = Rejects(tmp_path)
    for number in range(1000):
        kept.add(reject(b"%d" % number))
    kept.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["rejects.ndjson", "rejects.ndjson.1"]
    assert all(path.stat().st_size <= 10_000 for path in tmp_path.iterdir())
    assert orjson.loads((tmp_path / "rejects.ndjson").read_bytes().splitlines()[-1])["data"] == "999"


def test_a_disk_that_refuses_is_logged_once_and_stops_nothing(tmp_path, caplog):
    (tmp_path / "rejects.ndjson").mkdir()
    kept = Rejects(tmp_path)
    for _ in range(3):
        kept.add(reject(b"x"))
    kept.close()
    assert sum("can't be written" in message for message in caplog.messages) == 1


def test_a_file_that_was_deleted_is_begun_anew_and_that_is_logged(tmp_path, caplog):
    kept = Rejects(tmp_path)
    kept.add(reject(b"first"))
    kept.path.unlink()
    kept.add(reject(b"second"))
    kept.close()
    (line,) = kept.path.read_bytes().splitlines()
    assert orjson.loads(line)["data"] == "second"
    assert any("was deleted" in message for message in caplog.messages)


def test_a_line_that_the_disk_took_in_part_does_not_join_the_next(tmp_path, caplog):
    kept = Rejects(tmp_path)
    kept.add(reject(b"first"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kept.path.stat().st_size + 20, before[1]))
    try:
        kept.add(reject(b"second"))
        kept.add(reject(b"third"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept.add(reject(b"fourth"))
    kept.close()
    lines = kept.path.read_bytes().splitlines()
    assert [orjson.loads(lines[0])["data"], orjson.loads(lines[-1])["data"]] == ["first", "fourth"]
    assert len(lines) == 3
    assert sum("can't be written" in message for message in caplog.messages) == 1
