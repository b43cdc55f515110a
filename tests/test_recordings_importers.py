"""Files of others as recordings: recognised by content, converted exactly, honest about what they don't say."""

import gzip
import json
import logging
import re
import time
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal.handlers import Batch, Context, Record
from tradebal.recordings import importers
from tradebal.recordings.format import Header, Kind, RecordingError, Writer
from tradebal.recordings.importers import EXCHANGES, Message, Source, open_source

DAY = date(2013, 10, 7)
HEADER = importers.CSV_HEADER.decode() + "\n"
ROWS = """\
14400464,SPY,1674100,100,P,20002000,0
34200000,BAC,138650,1200,D,40000001,0
34200001,IBM,1825000,1,Q,0,1
34200001,BRK.B,1135050,7,N,,0
"""
FRAMES = """\
wss://ws-feed.example <-> 1618677816.8434298
wss://ws-feed.example <- 1618677817.020616: {"type":"subscribe","product_ids":["A-B"],"channels":["matches"]}
1618677817.0618958: {"type":"subscriptions","channels":[{"name":"matches","product_ids":["A-B"]}]}
1618677817.08014: {"type":"match","trade_id":1,"product_id":"A-B","price":"0.1"}
1618677817: {"type":"ticker","product_id":"A-B"}

1618677818.5: {"type":"match","trade_id":2,"product_id":"A-\u00d8","price":"0.2"}
"""


def csv(tmp_path: Path, rows: str, name: str = "trades-2013-10-07.csv") -> Path:
    path = tmp_path / name
    path.write_text(HEADER + rows)
    return path


def everything(path: Path, day: date | None = None) -> tuple[list[Message], Source]:
    with open_source(path, day) as source:
        return list(source.messages()), source


def test_each_row_becomes_a_stock_trade_as_massive_sends_it(tmp_path: Path) -> None:
    messages, source = everything(csv(tmp_path, ROWS))
    assert [message.data.decode() for message in messages] == [
        '{"ev":"T","sym":"SPY","x":11,"i":"1","p":167.41,"s":100,"t":1381132800464,"q":1}',
        '{"ev":"T","sym":"BAC","x":4,"i":"2","p":13.865,"s":1200,"t":1381152600000,"q":2,"trfi":202}',
        '{"ev":"T","sym":"IBM","x":12,"i":"3","p":182.5,"s":1,"t":1381152600001,"q":3}',
        '{"ev":"T","sym":"BRK.B","x":10,"i":"4","p":113.505,"s":7,"t":1381152600001,"q":4}',
    ]
    assert [message.time_ns for message in messages] == [json.loads(m.data)["t"] * 1_000_000 for m in messages]
    assert (source.profile, source.bundled) == ("massive", True)
    assert (source.played, source.skipped, source.suspicious) == (4, 0, 1)


@given(st.integers(0, 10**15 - 1))
@settings(deadline=None)
def test_prices_are_exact_decimals(ten_thousandths: int) -> None:
    text = importers._decimal(b"%d" % ten_thousandths).decode()
    assert Decimal(text) * 10000 == ten_thousandths
    assert isinstance(json.loads(text), int | float)
    assert text == "0" or not re.search(r"\.\d*0$", text)


@pytest.mark.parametrize(
    ("day", "open_utc_ms"),
    [
        ("2024-01-05", 1_704_465_000_000),  # 14:30 UTC, winter
        ("2024-07-05", 1_720_186_200_000),  # 13:30 UTC, summer
        ("2024-03-11", 1_710_163_800_000),  # the Monday after the clocks went forward
        ("2024-03-10", 1_710_077_400_000),  # that Sunday: 09:30 by the clock, though 8.5 hours after midnight
        ("2024-11-03", 1_730_644_200_000),  # and the one on which they went back
    ],
)
def test_times_are_new_yorks_clocks_on_any_date(tmp_path: Path, day: str, open_utc_ms: int) -> None:
    path = csv(tmp_path, f"{(9 * 60 + 30) * 60_000 + 7},SPY,1,1,P,0,0\n", "a.csv")
    ((time_ns, _, data),), _ = everything(path, date.fromisoformat(day))
    assert time_ns == (open_utc_ms + 7) * 1_000_000
    assert json.loads(data)["t"] == open_utc_ms + 7


@pytest.mark.parametrize("name", ["us-trades-2013-10-07.csv", "20131007_spy.csv", "t.20131007.csv.gz"])
def test_the_date_is_taken_from_the_files_name(tmp_path: Path, name: str) -> None:
    messages, _ = everything(csv(tmp_path, ROWS, name))
    assert json.loads(messages[0].data)["t"] == 1381132800464


@pytest.mark.parametrize("name", ["trades.csv", "trades-2013-13-07.csv", "1234567890123.csv"])
def test_a_missing_date_is_asked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match="on which day") as failure:
        open_source(csv(tmp_path, ROWS, name))
    assert "--date" in failure.value.hint


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x,SPY,1674100,100,P,20002000,0", "ms_since_midnight_new_york = 'x'"),
        ("1,,1674100,100,P,20002000,0", "symbol = ''"),
        ('1,"SPY",1674100,100,P,20002000,0', "symbol = '\"SPY\"'"),
        ("1,SPY,167.41,100,P,20002000,0", "price_x10000 = '167.41'"),
        ("1,SPY,1674100,-1,P,20002000,0", "size = '-1'"),
        ("1,SPY,1674100,100,PP,20002000,0", "exchange = 'PP'"),
        ("1,SPY,1674100,100,G,20002000,0", "exchange = G: no letter of the SIPs"),
        ("1,SPY,1674100,100,P,xyz,0", "condition_flags_hex = 'xyz'"),
        ("1,SPY,1674100,100,P,0,2", "suspicious = '2'"),
        ("1,SPY,1674100,100,P,0", "6 columns instead of 7"),
        ("86400000,SPY,1674100,100,P,0,0", "ms_since_midnight_new_york = 86400000: a day has 86400000"),
    ],
)
def test_a_row_that_cannot_be_parsed_is_named_counted_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, row: str, reason: str
) -> None:
    first, rest = ROWS.split("\n", 1)
    path = csv(tmp_path, f"{first}\n{row}\n{rest}")
    messages, source = everything(path)
    assert [json.loads(message.data)["sym"] for message in messages] == ["SPY", "BAC", "IBM", "BRK.B"]
    assert [json.loads(message.data)["q"] for message in messages] == [1, 2, 3, 4]
    assert source.skipped == 1
    assert [record.getMessage() for record in caplog.records] == [f"skipped: file={path} line=3 reason={reason}"]


def test_a_flood_of_bad_rows_is_counted_but_not_logged_line_by_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, source = everything(csv(tmp_path, "bad\n" * 100))
    assert source.skipped == 100
    assert len(caplog.records) == importers.NAMED_SKIPS + 1


def test_every_letter_of_the_sips_has_its_own_exchange_except_nasdaqs_two() -> None:
    assert EXCHANGES[b"Q"] == EXCHANGES[b"T"] == 12
    assert len(set(EXCHANGES.values())) == len(EXCHANGES) - 1


def test_frames_keep_their_bytes_and_times_and_what_the_client_sent_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "frames.txt"
    path.write_text(FRAMES)
    messages, source = everything(path)
    assert messages == [
        (1_618_677_817_080_140_000, 1, b'{"type":"match","trade_id":1,"product_id":"A-B","price":"0.1"}'),
        (1_618_677_817_000_000_000, 1, b'{"type":"ticker","product_id":"A-B"}'),
        (1_618_677_818_500_000_000, 1, '{"type":"match","trade_id":2,"product_id":"A-Ø","price":"0.2"}'.encode()),
    ]
    assert (source.profile, source.bundled) == ("coinbase", False)
    assert (source.played, source.left_out, source.skipped) == (3, 3, 0)
    assert not caplog.records


def test_a_line_that_is_no_frame_is_named_counted_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "frames.txt"
    path.write_bytes(FRAMES.encode() + b'rest of a frame"}\n1618677819.0: \xff\xff\n1618677820.0: {"type":"mat')
    messages, source = everything(path)
    assert (len(messages), source.skipped) == (3, 3)
    assert [re.search(r"line=\d+", record.getMessage())[0] for record in caplog.records] == [
        "line=8",
        "line=9",
        "line=10",
    ]


def test_our_own_recording_is_played_without_login_and_notes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "recording"
    with Writer(path, Header("kraken", "wss://ws.kraken.com/v2", "now", ("BTC/USD",))) as writer:
        writer.note(1, event="opened")
        writer.write(2, Kind.LOGIN_TEXT, b'{"method":"subscribe","success":true}')
        writer.write(3, Kind.LOGIN_BINARY, b"")
        writer.write(4, Kind.TEXT, b"{}")
        writer.write(5, Kind.BINARY, b"\xff")
        writer.write(6, Kind.TEXT, b"\xff")
    messages, source = everything(path)
    assert messages == [(4, 1, b"{}"), (5, 2, b"\xff")]
    assert (source.profile, source.url, source.subscribe) == ("kraken", "wss://ws.kraken.com/v2", ("BTC/USD",))
    assert (source.played, source.left_out, source.skipped) == (2, 3, 1)
    assert "isn't UTF-8" in caplog.text


def test_a_recording_with_a_torn_end_is_played_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "recording"
    with Writer(path, Header("massive", "wss://x/", "now")) as writer:
        writer.write(4, Kind.TEXT, b"[]")
    with path.open("ab") as file:
        file.write(b"5 text 77 [")
    messages, _ = everything(path)
    assert len(messages) == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("compress", [gzip.compress, lambda data: zstandard.ZstdCompressor().compress(data)])
@pytest.mark.parametrize("text", [HEADER + ROWS, FRAMES])
def test_compressed_files_give_what_plain_ones_give(tmp_path: Path, compress, text: str) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_text(text)
    packed.write_bytes(compress(text.encode()))
    assert everything(packed, DAY)[0] == everything(plain, DAY)[0] != []


def test_a_torn_compressed_csv_is_played_as_far_as_it_goes_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path, "".join(f"{n},SPY,{n * 7919 % 10007},100,P,0,0\n" for n in range(3000)))
    whole, _ = everything(path)
    raw = gzip.compress(path.read_bytes())
    path.write_bytes(raw[: len(raw) // 2])
    messages, _ = everything(path)
    assert 100 < len(messages) < 3000
    assert messages[:-1] == whole[: len(messages) - 1]
    assert "its end may be missing" in caplog.text


def test_lines_longer_than_a_chunk_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "frames.txt"
    frame = json.dumps({"type": "snapshot", "asks": list(range(100_000))}).encode()
    path.write_bytes(b"1.0: " + frame + b'\n2.0: {"type":"match"}\n')
    messages, _ = everything(path)
    assert [message.data for message in messages] == [frame, b'{"type":"match"}']


def test_a_line_that_never_ends_is_an_error_that_names_file_and_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "frames.txt"
    path.write_bytes(b"1.0: {}\n2.0: " + b"x" * 300_000)
    longer = f"{re.escape(str(path))}: line 2 is longer than 100000 bytes"
    with open_source(path, max_message=100_000) as source, pytest.raises(RecordingError, match=longer):
        list(source.messages())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"time,price\n1,2\n", "begins with 'time,price', which isn't how a recording begins"),
        (b"\x00" * 200_000, "isn't how a recording begins"),
        (b"{}\n", "isn't how a recording begins"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_what_would_be_one(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=re.escape(complaint)) as failure:
        open_source(path)
    assert str(path) in failure.value.message
    assert "CSV of US trades" in failure.value.message


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**10),
            st.integers(0, 10**9 - 1),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=30),
        ),
        max_size=10,
    )
)
@settings(deadline=None, max_examples=50)
def test_any_frame_survives_its_line(
    tmp_path_factory: pytest.TempPathFactory, frames: list[tuple[int, int, str]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "frames.txt"
    lines = [f"{seconds % 10**10}.{fraction:09}: {text}\n" for seconds, fraction, text in frames]
    path.write_bytes("".join(["wss://x <-> 1.0\n", *lines]).encode())
    messages, source = everything(path)
    assert [message.data.decode() for message in messages] == [text for *_, text in frames]
    assert [message.time_ns for message in messages] == [s % 10**10 * 10**9 + f for s, f, _ in frames]
    assert source.skipped == 0


def test_a_binary_frame_in_cryptofeeds_file_is_played_as_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_bytes(b"1.5: b'\\x00\\xff[]'\n2.5: b\"it's\"\n3.5: b'\\x0\n4.5: b'' + b''\n")
    messages, source = everything(path)
    assert messages == [Message(1_500_000_000, 2, b"\x00\xff[]"), Message(2_500_000_000, 2, b"it's")]
    assert source.skipped == 2


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_what_the_handler_record_kept_is_played_with_its_times(tmp_path: Path, compression: str) -> None:
    record = Record(Context(shard=3, shards=8), directory=str(tmp_path), compression=compression)
    trade = b'{"ev":"T","sym":"A","p":1,"q":%d}'
    now_ns = time.time_ns()
    record.on_trades(Batch(b"".join(trade % n + b"\n" for n in (1, 2)), "ndjson", now_ns))
    record.close()
    (path,) = (file for file in tmp_path.rglob("shard-3*") if file.is_file())
    messages, source = everything(path)
    assert [message.data for message in messages] == [trade % 1, trade % 2]
    assert {message.time_ns for message in messages} == {now_ns}
    assert (source.profile, source.bundled, source.skipped) == ("massive", True, 0)


def test_gaps_and_torn_lines_of_the_handler_record_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "shard-0.ndjson"
    path.write_bytes(
        b'{"received_ns":1,"trade":{"T":"t","S":"A","i":1}}\n{"received_ns":2,"gap":{"tradebal":"gap"}}\n'
        b'{"received_ns":3,"trade":{"T":"t","S":"B","i":2}}\n{"received_ns":4,"trade":{"T":"t",'
    )
    messages, source = everything(path)
    assert [message.data for message in messages] == [b'{"T":"t","S":"A","i":1}', b'{"T":"t","S":"B","i":2}']
    assert (source.profile, source.left_out, source.skipped) == ("alpaca", 1, 1)
