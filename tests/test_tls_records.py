"""Records and messages: whole ones are told, of too long ones nothing is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tls_peers import ticket
from tradebal.tls import records
from tradebal.tls.records import Messages, Record, TlsError


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"\x16\x03\x01\x02\x00", 512),
        (b"\x17\x03\x03\x00\x00", 0),
        (b"\x17\x03\x03\x48\x00", 18432),
        (b"\x17\x03\x03\x48\x01", None),
        (b"\x13\x03\x03\x00\x10", None),
        (b"\x18\x03\x03\x00\x10", None),
        (b"\x17\x02\x03\x00\x10", None),
        (b"HTTP/", None),
    ],
)
def test_header_tells_the_size_or_is_none(header, size):
    assert records.payload_size(header) == size


@given(st.lists(st.tuples(st.integers(20, 23), st.binary(max_size=300)), max_size=5))
def test_flight_splits_into_its_records(made):
    flight = b"".join(bytes([kind, 3, 3]) + len(data).to_bytes(2, "big") + data for kind, data in made)
    assert list(records.split(flight)) == [Record(*record) for record in made]


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=5), st.integers(1, 100))
def test_messages_are_the_same_in_records_of_any_size(made, step):
    stream = b"".join(bytes([kind]) + len(body).to_bytes(3, "big") + body for kind, body in made)
    messages = Messages()
    assert [m for at in range(0, len(stream), step) for m in messages.feed(stream[at : at + step])] == made


def test_message_without_end_is_refused_before_it_is_kept():
    messages = Messages()
    assert list(messages.feed(ticket(60_000)[:1000])) == []
    with pytest.raises(TlsError, match="of 16777219 bytes"):
        list(Messages().feed(b"\x04\xff\xff\xff"))


def test_alerts_have_names():
    assert records.alert(b"\x01\x00") == (1, "close_notify")
    assert records.alert(b"\x02\x30") == (2, "unknown_ca")
    assert records.alert(b"\x02\xfa") == (2, "alert 250")
    with pytest.raises(TlsError):
        records.alert(b"\x02")
