"""Both framings, and the gap record that travels in them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal.stream import framing, gap
from tradebal.stream.framing import MAX_RECORD
from tradebal.stream.gap import Gap

FRAMINGS = ("ndjson", "length32")

record_bytes = st.binary(min_size=1, max_size=40).filter(lambda data: b"\n" not in data)
gaps = st.builds(
    Gap,
    st.sampled_from(gap.REASONS),
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    st.none() | st.integers(0, 2**63),
)


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(max_examples=60, deadline=None)
@given(st.lists(record_bytes, max_size=8), st.data())
def test_any_prefix_of_a_stream_gives_exactly_its_whole_records(kind, records, data):
    frames = [framing.encode(record, kind) for record in records]
    stream = b"".join(frames)
    cut = data.draw(st.integers(0, len(stream)))
    whole = 0
    while len(b"".join(frames[: whole + 1])) <= cut and whole < len(frames):
        whole += 1
    end, count = framing.split(stream[:cut], kind)
    assert (end, count) == (len(b"".join(frames[:whole])), whole)
    assert framing.records(stream[:cut], kind) == records[:whole]


def test_empty_lines_are_no_records():
    data = b"\n\n{}\n\n[]\n\n"
    assert framing.split(data, "ndjson") == (len(data), 2)
    assert framing.records(data, "ndjson") == [b"{}", b"[]"]


@pytest.mark.parametrize("length", [0, MAX_RECORD + 1, 0x7B7B7B7B])
def test_impossible_length_names_its_offset(length):
    data = framing.encode(b"{}", "length32") + length.to_bytes(4, "little") + b"..."
    for function in (framing.split, framing.records):
        with pytest.raises(framing.FramingError) as caught:
            function(data, "length32")
        assert caught.value.offset == 6


@pytest.mark.parametrize("record", [b"", b"x" * (MAX_RECORD + 1)])
@pytest.mark.parametrize("kind", FRAMINGS)
def test_record_that_no_reader_would_take_is_not_encoded(kind, record):
    with pytest.raises(ValueError, match="bytes"):
        framing.encode(record, kind)


def test_ndjson_refuses_a_line_feed_inside_a_record():
    with pytest.raises(ValueError, match="line feed"):
        framing.encode(b"{\n}", "ndjson")
    assert framing.encode(b"{\n}", "length32") == b"\x03\x00\x00\x00{\n}"


@settings(max_examples=60, deadline=None)
@given(gaps)
def test_gap_record_is_one_json_line_and_reads_back(value):
    record = value.to_record()
    assert gap.parse(record) == value
    assert b"\n" not in record
    assert record.startswith(gap.PREFIX)
    assert json.loads(record)["trades"] == value.trades


@pytest.mark.parametrize(
    "record",
    [
        b'{"ev":"T","sym":"A"}',
        b' {"tradebal":"gap","reason":"restart","from_ns":1,"until_ns":2,"trades":null}',
        b'{"tradebal":"gap"',
        b'{"tradebal":"gap"}',
        b'{"tradebal":"gap","reason":"boredom","from_ns":1,"until_ns":2,"trades":null}',
        b'{"tradebal":"gap","reason":["restart"],"from_ns":1,"until_ns":2,"trades":null}',
        b'{"tradebal":"gap","reason":"restart","from_ns":1.5,"until_ns":2,"trades":null}',
        b'{"tradebal":"gap","reason":"restart","from_ns":1,"until_ns":2,"trades":"3"}',
        b'{"tradebal":"gap\xff"}',
        b"",
    ],
)
def test_other_records_are_no_gaps(record):
    assert gap.parse(record) is None
