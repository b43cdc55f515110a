"""The router keeps RFC 6455 as a client must: what is valid passes, each violation ends with the right close code."""

import itertools

import pytest

from tests.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, fragments, frame, text
from tests.routing import STOCKS, drive, feed
from tradebal.router.interface import Event, EventKind, Status

TRADE = b'{"ev":"T","sym":"A","p":1}'


def message(data, opcode=TEXT):
    return Event(EventKind.MESSAGE, data, opcode)


def violation(code, reason):
    return Event(EventKind.VIOLATION, b"", code, reason)


def raw(make, *frames, **options):
    """Return the events of a router that looks into no message."""
    return drive(make(1, None, **options), [b"".join(frames)]).events


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 300_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_of_any_length_come_whole(make, size, opcode):
    assert raw(make, frame(opcode, b"x" * size), text(b"next")) == [message(b"x" * size, opcode), message(b"next")]


@pytest.mark.parametrize("length_size", [2, 8])
def test_lengths_longer_than_needed_are_accepted(make, length_size):
    assert raw(make, frame(TEXT, b"short", length_size=length_size)) == [message(b"short")]


@pytest.mark.parametrize("size", [0, 1, 33, 125])
def test_pings_and_pongs_come_with_their_payload(make, size):
    payload = bytes(range(size))
    assert raw(make, frame(PING, payload), frame(PONG, payload)) == [
        Event(EventKind.PING, payload),
        Event(EventKind.PONG, payload),
    ]


def test_fragments_are_joined(make):
    assert raw(make, *fragments(b"one message", [0, 4, 4, 11])) == [message(b"one message")]
    assert raw(make, *fragments(b"\xff\xfe", [1], BINARY)) == [message(b"\xff\xfe", BINARY)]


def test_control_frames_between_fragments_come_at_once(make):
    first, second, third = fragments(b"one message", [3, 6])
    assert raw(make, first, frame(PING, b"1"), second, frame(PONG, b"2"), third) == [
        Event(EventKind.PING, b"1"),
        Event(EventKind.PONG, b"2"),
        message(b"one message"),
    ]


def test_a_ping_is_given_out_before_the_message_around_it_is_complete(make):
    router = make(1, STOCKS)
    first, _ = fragments(TRADE, [3])
    feed(router, first + frame(PING, b"now"))
    assert router.process() is Status.EVENT
    assert router.event() == Event(EventKind.PING, b"now")
    assert router.process() is Status.INPUT


def test_a_character_may_be_split_over_fragments(make):
    data = "κόσμε 😀".encode()
    for cut in range(len(data)):
        assert raw(make, *fragments(data, [cut])) == [message(data)]


@pytest.mark.parametrize("reserved", [1, 2, 4, 7])
def test_reserved_bits_are_a_violation(make, reserved):
    assert raw(make, frame(TEXT, b"x", reserved=reserved)) == [violation(1002, "reserved bits set")]
    assert raw(make, frame(PING, reserved=reserved)) == [violation(1002, "reserved bits set")]


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_are_a_violation(make, opcode):
    assert raw(make, frame(opcode, b"x")) == [violation(1002, "unknown opcode")]


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_a_masked_frame_is_a_violation(make, opcode):
    assert raw(make, frame(opcode, b"x", mask=b"abcd")) == [violation(1002, "masked frame")]


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_fragmented_control_frame_is_a_violation(make, opcode):
    assert raw(make, frame(opcode, b"", fin=False)) == [violation(1002, "fragmented control frame")]


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("length_size", [2, 8])
def test_a_control_frame_over_125_bytes_is_a_violation(make, opcode, length_size):
    assert raw(make, frame(opcode, b"x" * 126, length_size=length_size)) == [violation(1002, "control frame too long")]


def test_a_continuation_without_a_start_is_a_violation(make):
    for final in (False, True):
        assert raw(make, frame(CONTINUATION, b"x", fin=final)) == [violation(1002, "continuation without a start")]
    ended = fragments(b"xy", [1])
    assert raw(make, *ended, frame(CONTINUATION)) == [message(b"xy"), violation(1002, "continuation without a start")]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("final", [False, True])
def test_a_new_message_inside_a_fragmented_one_is_a_violation(make, opcode, final):
    assert raw(make, frame(TEXT, fin=False), frame(opcode, b"x", fin=final)) == [
        violation(1002, "data frame inside a fragmented message")
    ]


INVALID_UTF8 = [
    b"\x80",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xc3",
    b"\xc3(",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xfe",
    b"\xff",
]


@pytest.mark.parametrize("bad", INVALID_UTF8)
def test_invalid_utf8_in_a_text_message_is_a_violation_wherever_it_stands(make, bad):
    for before, after in itertools.product((0, 1, 15, 31, 63, 64, 200), (0, 1, 16, 64, 200)):
        data = b"x" * before + bad + b"y" * after
        assert raw(make, text(data)) == [violation(1007, "invalid UTF-8")]
        assert raw(make, frame(BINARY, data)) == [message(data, BINARY)]


@pytest.mark.parametrize(
    "char", [" ", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]
)
def test_the_edges_of_utf8_are_valid(make, char):
    for before in (0, 1, 15, 31, 63):
        data = ("x" * before + char * 3).encode()
        assert raw(make, text(data)) == [message(data)]


def test_nothing_of_a_message_with_invalid_utf8_is_routed(make):
    outcome = drive(make(1, STOCKS), [text(b"[" + TRADE + b',"\xff"]')])
    assert outcome.events == [violation(1007, "invalid UTF-8")]
    assert outcome.shards == [b""]
    assert (outcome.counters.frames, outcome.counters.messages) == (1, 0)


def test_invalid_utf8_is_judged_when_the_message_is_complete(make):
    first, second = fragments(b"\xff.", [1])
    assert raw(make, first, frame(PING), second) == [Event(EventKind.PING, b""), violation(1007, "invalid UTF-8")]


def test_a_message_as_long_as_allowed_passes_and_a_longer_one_is_refused_by_its_header(make):
    assert raw(make, text(b"x" * 300), max_message=300) == [message(b"x" * 300)]
    too_long = [violation(1009, "message too long")]
    assert raw(make, frame(TEXT, length=301, length_size=2), max_message=300) == too_long
    assert raw(make, frame(TEXT, length=2**63 - 1, length_size=8), max_message=300) == too_long
    assert raw(make, frame(TEXT, length=2**63 - 1, length_size=8)) == too_long


def test_the_limit_holds_for_the_sum_of_the_fragments(make):
    fits = fragments(b"x" * 300, [100, 200])
    assert raw(make, *fits, max_message=300) == [message(b"x" * 300)]
    assert raw(make, *fits[:2], frame(CONTINUATION, length=101, length_size=1), max_message=300) == [
        violation(1009, "message too long")
    ]


def test_control_frames_do_not_count_towards_the_limit(make):
    assert raw(make, frame(TEXT, b"x", fin=False), frame(PING, b"y" * 125), frame(CONTINUATION), max_message=1) == [
        Event(EventKind.PING, b"y" * 125),
        message(b"x"),
    ]


def test_a_length_with_its_top_bit_set_is_a_violation(make):
    for length in (2**63, 2**64 - 1):
        assert raw(make, frame(BINARY, length=length, length_size=8)) == [violation(1002, "length out of range")]


def test_a_close_frame_gives_its_code_and_reason(make):
    assert raw(make, close(1008, "früh".encode())) == [Event(EventKind.CLOSE, "früh".encode(), 1008)]
    assert raw(make, close(1000)) == [Event(EventKind.CLOSE, b"", 1000)]
    assert raw(make, frame(CLOSE)) == [Event(EventKind.CLOSE, b"", 1005)]
    assert raw(make, close(1000, b"x" * 123)) == [Event(EventKind.CLOSE, b"x" * 123, 1000)]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1011, 1014, 3000, 3999, 4000, 4999])
def test_close_codes_in_use_are_valid(make, code):
    assert raw(make, close(code)) == [Event(EventKind.CLOSE, b"", code)]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_codes_that_must_not_be_sent_are_a_violation(make, code):
    assert raw(make, close(code)) == [violation(1002, "invalid close code")]


def test_a_malformed_close_payload_is_a_violation(make):
    assert raw(make, frame(CLOSE, b"\x03")) == [violation(1002, "malformed close payload")]
    assert raw(make, close(1000, b"\xc3")) == [violation(1007, "invalid UTF-8")]


@pytest.mark.parametrize("end", [close(1000), frame(TEXT, reserved=4), text(b"\xff")])
def test_nothing_is_read_after_the_end_until_reset(make, end):
    router = make(1, STOCKS)
    outcome = drive(router, [text(TRADE) + end + text(TRADE), text(TRADE), frame(PING)])
    assert outcome.trades() == [[TRADE]]
    assert len(outcome.events) == 1
    sent = 3 * len(text(TRADE)) + len(end) + len(frame(PING))
    assert (outcome.counters.bytes, outcome.counters.reads) == (sent, 3)
    router.reset()
    assert drive(router, [text(TRADE)]).trades() == [[TRADE]]


def test_reset_forgets_half_a_frame_and_half_a_message(make):
    router = make(1, STOCKS)
    half_message = frame(TEXT, b"[" + TRADE, fin=False)
    drive(router, [half_message + frame(PING, b"half a frame")[:-3]])
    router.reset()
    outcome = drive(router, [text(TRADE)])
    assert (outcome.trades(), outcome.events) == ([[TRADE]], [])


def test_frames_and_messages_are_counted_when_they_are_complete(make):
    router = make(1, STOCKS)
    first, second = fragments(TRADE, [5])
    stream = first + frame(PING) + second + text(TRADE)
    seen = []
    for byte in stream:
        drive(router, [bytes([byte])])
        counters = router.counters()
        seen.append((counters.frames, counters.messages, counters.trades))
    assert seen == [
        *[(0, 0, 0)] * (len(first) - 1),
        *[(1, 0, 0)] * 2,
        *[(2, 0, 0)] * len(second),
        *[(3, 1, 1)] * len(text(TRADE)),
        (4, 2, 2),
    ]
    assert router.counters().reads == router.counters().bytes == len(stream)


def test_two_bytes_of_a_frame_are_enough_to_refuse_it(make):
    router = make(1, STOCKS)
    feed(router, frame(TEXT, b"x", reserved=4)[:1])
    assert router.process() is Status.INPUT
    feed(router, frame(TEXT, b"x", reserved=4)[1:2])
    assert router.process() is Status.EVENT
