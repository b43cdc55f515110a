"""What must hold for any input: the two routers agree, no split changes anything, and orjson sees the same objects."""

import itertools
import json
import re
from dataclasses import replace
from random import Random

import orjson
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from tests import frames as server
from tests.json_texts import message_texts
from tests.routing import KRAKEN, STOCKS, drive, feed
from tradebal.router.interface import EventKind, Rule, Status
from tradebal.stream.framing import records

RULES = {
    "stocks": STOCKS,
    "kraken": KRAKEN,
    "coinbase": Rule(b"type", (b"match", b"last_match"), b"product_id"),
    "stocks-skipping": replace(STOCKS, notice_values=(b"status",)),
    "kraken-skipping": replace(KRAKEN, notice_values=()),
}
SHARDS = 4

bounded = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def fnv_1a(data):
    """FNV-1a by its definition, apart from the router's own."""
    value = 14695981039346656037
    for byte in data:
        value = ((value ^ byte) * 1099511628211) % 2**64
    return value


class OrjsonView:
    """What a router has to do with a message, told by Python's JSON decoders instead of by its bytes' structure.

    orjson says whether it is JSON at all. Python's own decoder gives each object's members as pairs, so that the
    first of several members with one name can be found, and each element's place in the text.
    """

    _pairs = json.JSONDecoder(object_pairs_hook=lambda pairs: ("object", pairs))

    def __init__(self, text, rule, framing):
        orjson.loads(text)
        self.framing = framing
        self.rule = rule
        self.shards = [[] for _ in range(SHARDS)]
        self.events = []
        self.skipped = 0
        self.message(text)

    def message(self, text):
        start = self.skip(text, 0)
        if text[start] == "{":
            self.element(text[start:].rstrip(" \t\r\n"))
        elif text[start] == "[":
            for element in self.elements(text, start):
                self.element(element)
        else:
            self.events.append((EventKind.MESSAGE, text.encode(), ""))

    @staticmethod
    def skip(text, pos):
        return re.compile(r"[ \t\r\n]*").match(text, pos).end()

    def elements(self, text, start):
        pos = self.skip(text, start + 1)
        while text[pos] != "]":
            _, end = self._pairs.raw_decode(text, pos)
            yield text[pos:end]
            pos = self.skip(text, end)
            if text[pos] == ",":
                pos = self.skip(text, pos + 1)

    @staticmethod
    def first(pairs, key):
        return next((value for name, value in pairs if name == key.decode()), None)

    def element(self, text):
        value = self._pairs.decode(text)
        marked = False
        if isinstance(value, tuple):
            marker = self.first(value[1], self.rule.marker_key)
            marked = isinstance(marker, str) and marker.encode() in self.rule.marker_values
            notices = self.rule.notice_values
            if not marked and isinstance(marker, str) and notices is not None and marker.encode() not in notices:
                self.skipped += 1
                return
        if not marked:
            self.events.append((EventKind.MESSAGE, text.encode(), ""))
        elif self.rule.container is None:
            self.trade(text, value[1])
        else:
            self.envelope(text, value[1])

    def envelope(self, text, pairs):
        if not isinstance(self.first(pairs, self.rule.container), list):
            self.events.append((EventKind.MESSAGE, text.encode(), ""))
            return
        for element in self.elements(text, self.place_of_container(text)):
            value = self._pairs.decode(element)
            if isinstance(value, tuple):
                self.trade(element, value[1])
            else:
                self.events.append((EventKind.REJECT, element.encode(), "malformed object"))

    def place_of_container(self, text):
        pos = self.skip(text, 1)
        while True:
            key, pos = self._pairs.raw_decode(text, pos)
            pos = self.skip(text, self.skip(text, pos) + 1)
            if key == self.rule.container.decode():
                return pos
            _, pos = self._pairs.raw_decode(text, pos)
            pos = self.skip(text, self.skip(text, pos) + 1)

    def trade(self, text, pairs):
        symbol = self.first(pairs, self.rule.symbol_key)
        if not isinstance(symbol, str) or not symbol:
            self.events.append((EventKind.REJECT, text.encode(), "no usable symbol"))
            return
        names = [name for name, _ in pairs]
        if names.count(self.rule.symbol_key.decode()) == 1:
            assert orjson.loads(text)[self.rule.symbol_key.decode()] == symbol
        if self.framing == "ndjson":
            text = text.replace("\n", " ")
        self.shards[(fnv_1a(symbol.encode()) >> 32) % SHARDS].append(text.encode())


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("framing", ["ndjson", "length32"])
def test_any_json_that_orjson_parses_gives_orjsons_view_of_objects_and_symbols(makers, name, framing):
    rule = RULES[name]

    @bounded
    @given(message_texts(rule))
    @example('{"a":"\\"}","ev":"T","sym":"\\u0041"}')
    def check(text):
        view = OrjsonView(text, rule, framing)
        event(f"trades: {min(3, sum(map(len, view.shards)))}")
        for make in makers:
            outcome = drive(make(SHARDS, rule, framing=framing), [server.text(text.encode())])
            assert [list(records(data, framing)) for data in outcome.shards] == view.shards
            assert [(one.kind, one.data, one.reason) for one in outcome.events] == view.events
            assert outcome.counters.skipped == view.skipped

    check()


@st.composite
def cuts(draw, length):
    """Return a few offsets inside `length`, in order."""
    return sorted(draw(st.lists(st.integers(0, length), max_size=8)))


def split(data, offsets):
    edges = [0, *offsets, len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


CONTROL = st.one_of(
    st.binary(max_size=125).map(lambda payload: server.frame(server.PING, payload)),
    st.binary(max_size=125).map(lambda payload: server.frame(server.PONG, payload)),
)


@st.composite
def message_frames(draw, texts):
    """Return a message's frames: whole or fragmented, with control frames anywhere between."""
    payload = draw(texts).encode()
    opcode = draw(st.sampled_from([server.TEXT, server.TEXT, server.BINARY]))
    if draw(st.booleans()):
        return [server.frame(opcode, payload, length_size=draw(st.sampled_from([None, 8])))]
    out = []
    for fragment in server.fragments(payload, draw(cuts(len(payload))), opcode):
        out += [*draw(st.lists(CONTROL, max_size=1)), fragment]
    return out


def streams(rule):
    """Return a strategy for the frames of a valid connection, perhaps with a close frame at its end."""
    end = st.sampled_from([[], [], [server.close(1000, b"bye")], [server.frame(server.CLOSE)]])
    messages = st.lists(st.one_of(message_frames(message_texts(rule)), CONTROL.map(lambda one: [one])), max_size=5)
    return st.tuples(messages, end).map(lambda pair: [one for frames in pair[0] for one in frames] + pair[1])


def essence(outcome):
    """Return all of an outcome that doesn't depend on how often bytes were received."""
    return outcome.shards, outcome.events, outcome.counters._replace(reads=0), outcome.shard_counters


@pytest.mark.parametrize("name", ["stocks", "kraken"])
def test_no_split_of_the_bytes_changes_what_comes_out(makers, name):
    rule = RULES[name]

    @bounded
    @given(streams(rule), st.sampled_from([1, 2, 3, 7, 100]), st.data())
    def check(frames, size, data):
        stream = b"".join(frames)
        splits = [
            [stream[at : at + size] for at in range(0, len(stream), size)],
            split(stream, data.draw(cuts(len(stream)))),
        ]
        for make in makers:
            whole = essence(drive(make(SHARDS, rule), [stream]))
            for chunks in splits:
                assert essence(drive(make(SHARDS, rule), chunks)) == whole

    check()


def test_each_single_split_of_a_stream_changes_nothing(make):
    trade = '{"ev":"T","sym":"Ä\\u0042","x":"}\\"😀"}'
    payload = f'[{trade}, {{"ev":"status"}},\n{trade}]'.encode()
    stream = b"".join(
        [
            server.text(payload),
            server.frame(server.PING, b"ping"),
            *server.fragments(payload, [1, 30, 31]),
            server.frame(server.TEXT, payload, length_size=8),
            server.text(b"[" + payload),
            server.close(1000, b"bye"),
        ]
    )
    whole = essence(drive(make(SHARDS, STOCKS), [stream]))
    for at in range(len(stream)):
        assert essence(drive(make(SHARDS, STOCKS), [stream[:at], stream[at:]])) == whole


def test_a_fragmented_message_with_control_frames_between_equals_an_unfragmented_one(makers):
    @bounded
    @given(message_texts(STOCKS), st.data())
    def check(text, data):
        payload = text.encode()
        between = []
        stream = b""
        for fragment in server.fragments(payload, data.draw(cuts(len(payload)))):
            controls = data.draw(st.lists(CONTROL, max_size=2))
            between += controls
            stream += b"".join(controls) + fragment
        for make in makers:
            whole = drive(make(SHARDS, STOCKS), [server.text(payload)])
            joined = drive(make(SHARDS, STOCKS), [stream])
            assert joined.shards == whole.shards
            assert joined.events[len(between) :] == whole.events
            assert joined.events[: len(between)] == drive(make(SHARDS, STOCKS), between).events
            assert joined.shard_counters == whole.shard_counters
            assert (joined.counters.messages, joined.counters.trades) == (1, whole.counters.trades)

    check()


def test_both_framings_decode_to_the_same_records(makers):
    @bounded
    @given(message_texts(STOCKS))
    def check(text):
        message = server.text(text.encode())
        for make in makers:
            lines = drive(make(SHARDS, STOCKS, framing="ndjson"), [message])
            lengths = drive(make(SHARDS, STOCKS, framing="length32"), [message])
            assert lines.trades("ndjson") == [
                [record.replace(b"\n", b" ") for record in shard] for shard in lengths.trades("length32")
            ]
            assert lines.events == lengths.events

    check()


# Bytes that decide something: JSON's structure, first and second bytes of frames, edges of UTF-8.
TELLING = [
    bytes([byte])
    for byte in b'{}[]",:\\ \n\r\ttu0eE-\x00\x01\x02\x08\x09\x7e\x7f\x80\x81\x82\x88\x89\x8a\xc0\xc3\xed\xf4\xff'
]


@st.composite
def mutated(draw, streams_of):
    """Return a valid connection's bytes with a few changes, and how they are cut into chunks."""
    data = bytearray(b"".join(draw(streams_of)))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["insert", "replace", "delete", "repeat", "cut", "garbage"])):
            case "insert":
                data[at:at] = draw(st.sampled_from(TELLING))
            case "replace":
                data[at : at + 1] = draw(st.sampled_from(TELLING))
            case "delete":
                del data[at : at + draw(st.integers(1, 4))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case "cut":
                del data[at:]
            case "garbage":
                data[at:at] = draw(st.binary(max_size=20))
    return bytes(data)


@st.composite
def mutated_messages(draw, rule):
    """Return valid frames of messages whose text was changed, so that the changes get as far as the JSON."""
    texts = message_texts(rule).map(lambda text: [text.encode()])
    payloads = draw(st.lists(mutated(texts), min_size=1, max_size=4))
    return b"".join(server.frame(server.BINARY, payload) for payload in payloads)


def inputs(rule):
    return st.one_of(mutated(streams(rule)), mutated_messages(rule), mutated_messages(rule), st.binary(max_size=200))


@pytest.mark.parametrize("name", ["stocks", "kraken"])
def test_all_routers_agree_on_any_bytes(makers, name):
    rule = RULES[name]

    @bounded
    @given(inputs(rule), st.sampled_from([64 << 20, 200]), st.sampled_from(["ndjson", "length32"]), st.data())
    def check(stream, max_message, framing, data):
        chunks = split(stream, data.draw(cuts(len(stream))))
        assert_all_agree(makers, rule, chunks, framing=framing, max_message=max_message)

    check()


SHORT = {
    "stocks": [
        b'{"ev":"T","sym":"A"}',
        b'{"sym":"A","ev":"T" ',
        b'{"a" 1}',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b" ",
        b'"x"',
        b"1",
    ],
    "kraken": [b'{"channel":"trade","data":[', b'{"symbol":"A"}', b"]}", b"{", b"}", b"[", b"]", b",", b'"x"', b"\n"],
}


@pytest.mark.parametrize("name", SHORT)
def test_all_routers_agree_on_each_short_message(makers, name):
    for length in range(4):
        for pieces in itertools.product(SHORT[name], repeat=length):
            for begin in (b"", b"["):
                assert_all_agree(makers, RULES[name], [server.text(begin + b"".join(pieces))], framing="ndjson")


PIECES = [
    *(b'{"ev":"T","sym":"A"}', b'{"sym":"BB","ev":"T"}', b'"ev":"T"', b'"sym":"A"', b'"ev"', b'"sym"', b'"T"', b'""'),
    *(b'{"channel":"trade","data":[', b'{"symbol":"A"}', b'"data":[', b'"channel":"trade"', b'"symbol"', b"]}", b"[1]"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b'\\"',
        b" ",
        b"\n",
        b"\r\t",
        b"{}",
        b"[]",
        b"null",
        b"-1.5",
        b"x",
    ),
    *(
        b"\\u0041",
        b"\\u",
        b"\\ud83d\\ude00",
        b"\\ud83d",
        "é😀".encode(),
        b"\xff",
        b"\xc3",
        b"\x00",
        b" " * 33,
        b"y" * 70,
    ),
]


def soup(random, rule):
    """Return a frame whose text is made of telling pieces: cheap, so that thousands of them can be tried."""
    pieces = random.choices(PIECES, k=random.choice([1, 3, 8, 20]))
    if random.random() < 0.5:
        trade = b'{"%s":"%s","%s":"A"}' % (rule.marker_key, rule.marker_values[0], rule.symbol_key)
        members = b",".join(b'"%s":%s' % (b"k" * random.randrange(40), piece) for piece in pieces[:4])
        pieces = [b"[", trade, b",{", members, b",", trade[1:], b",", *pieces, b"]"]
    if random.random() < 0.3:
        pieces.insert(0, b"[")
    payload = b"".join(pieces)
    opcode = random.choice([server.TEXT, server.BINARY, server.BINARY])
    if random.random() < 0.2:
        return b"".join(server.fragments(payload, [random.randrange(len(payload) + 1)], opcode))
    return server.frame(opcode, payload)


@pytest.mark.parametrize("name", ["stocks", "kraken"])
def test_all_routers_agree_on_thousands_of_soups(makers, name):
    rule = RULES[name]
    random = Random(name)
    for _ in range(1500):
        stream = bytearray(b"".join(soup(random, rule) for _ in range(random.randrange(1, 4))))
        if random.random() < 0.2:
            stream[random.randrange(len(stream))] = random.randrange(256)
        chunks = split(bytes(stream), sorted(random.randrange(len(stream) + 1) for _ in range(random.randrange(4))))
        assert_all_agree(makers, rule, chunks, framing=random.choice(["ndjson", "length32"]))


def assert_all_agree(makers, rule, chunks, *, framing, **options):
    outcomes = [drive(make(SHARDS, rule, framing=framing, **options), chunks) for make in makers]
    for outcome in outcomes[1:]:
        assert outcome == outcomes[0]
    assert_nothing_lost_or_made_up(b"".join(chunks), outcomes[0], framing)


def assert_nothing_lost_or_made_up(stream, outcome, framing):
    trades = [record for shard in outcome.trades(framing) for record in shard]
    assert len(trades) == outcome.counters.trades == sum(shard.trades for shard in outcome.shard_counters)
    assert sum(map(len, trades)) == outcome.counters.trade_bytes
    assert outcome.counters.rejects == len(outcome.of_kind(EventKind.REJECT))
    assert outcome.counters.bytes == len(stream)


def test_all_routers_agree_without_a_rule(makers):
    @bounded
    @given(inputs(STOCKS))
    def check(stream):
        outcomes = [drive(make(1, None), [stream]) for make in makers]
        assert outcomes == [outcomes[0]] * len(makers)

    check()


def test_whatever_comes_out_of_a_message_stood_in_it(makers):
    @bounded
    @given(mutated_messages(STOCKS))
    def check(stream):
        for make in makers:
            outcome = drive(make(SHARDS, STOCKS, framing="length32"), [stream])
            assert all(record in stream for shard in outcome.trades("length32") for record in shard)
            assert all(one.data in stream for one in outcome.events)

    check()


def state(router):
    """Return all that a caller can see of a router without changing it."""
    shards = range(SHARDS)
    return (
        [bytes(router.pending(shard)) for shard in shards],
        [router.torn(shard) for shard in shards],
        router.counters(),
        router.shard_counters(),
    )


def same(results):
    """Return what all routers returned; fail if they differ."""
    first, *others = results
    for other in others:
        assert other == first
    return first


@pytest.mark.parametrize("framing", ["ndjson", "length32"])
def test_all_routers_agree_on_any_sequence_of_calls(makers, framing):
    random = Random(framing)
    for _ in range(60):
        routers = [make(SHARDS, STOCKS, framing=framing) for make in makers]
        stream = b"".join(soup(random, STOCKS) for _ in range(10))
        while stream:
            match random.randrange(8):
                case 0 | 1 | 2:
                    size = random.randrange(1, 200)
                    for router in routers:
                        assert feed(router, stream[:size]) == len(stream[:size])
                    stream = stream[size:]
                case 3 | 4:
                    status = same([router.process() for router in routers])
                    if status is Status.EVENT and random.random() < 0.9:
                        same([router.event() for router in routers])
                case 5:
                    shard = random.randrange(SHARDS)
                    count = random.randrange(len(routers[0].pending(shard)) + 1)
                    for router in routers:
                        router.sent(shard, count)
                case 6:
                    shard, record = random.randrange(SHARDS), b'{"gap":%d}' % random.randrange(10**9)
                    assert same([router.inject(shard, record) for router in routers])
                case 7:
                    assert same([router.pump(-1, 0) for router in routers]) in (Status.INPUT, Status.EVENT)
                    if random.random() < 0.1:
                        for router in routers:
                            router.reset()
            same([state(router) for router in routers])
