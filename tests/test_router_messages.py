"""Trades are found by JSON's structure, whatever their order, spacing and nesting; what isn't a trade is never lost."""

import itertools

import pytest

from tests.frames import BINARY, text
from tests.frames import frame as make_frame
from tests.routing import KRAKEN, STOCKS, drive
from tradebal.router.interface import MAX_DEPTH, Event, EventKind, Rule
from tradebal.stream.framing import MAX_RECORD

TRADE = b'{"ev":"T","sym":"A"}'
STATUS = b'{"ev":"status","message":"hello"}'


def route(make, message, rule=STOCKS, **options):
    return drive(make(1, rule, **options), [text(message)])


def assert_routed(make, message, *trades, rule=STOCKS, **options):
    """Assert that the message holds these trades and nothing else."""
    outcome = route(make, message, rule, **options)
    assert (outcome.trades(options.get("framing", "ndjson")), outcome.events) == ([list(trades)], [])


def assert_message(make, message, rule=STOCKS):
    """Assert that the message goes to Python whole."""
    outcome = route(make, message, rule)
    assert (outcome.trades(), outcome.events) == ([[]], [Event(EventKind.MESSAGE, message, 1)])


def assert_rejected(make, message, reason, data=None, *, rule=STOCKS, **options):
    """Assert that the message gives this one reject (of all of it if `data` is None) and nothing else."""
    outcome = route(make, message, rule, **options)
    assert (outcome.trades(options.get("framing", "ndjson")), outcome.rejects) == (
        [[]],
        [(reason, message if data is None else data)],
    )
    assert len(outcome.events) == 1
    assert outcome.counters.rejects == 1


@pytest.mark.parametrize(
    "trade",
    [
        TRADE,
        b'{"sym":"A","ev":"T"}',
        b'{"p":1.5,"sym":"A","c":[0,12],"ev":"T","s":100}',
        b' { "ev" : "T" , "sym" : "A" } '.strip(),
        b'{\t"ev"\r:\t"T",\r"sym":"A"\t}',
        b'{"ev":"T","sym":"A","nested":{"sym":"B","ev":"x"},"list":[{"sym":"C"},[[]],{}]}',
        b'{"nested":{"sym":"B","ev":"x"},"list":[{"ev":"y"},[[]],{}],"ev":"T","sym":"A"}',
        b'{"text":"}{][,:","ev":"T","sym":"A"}',
        rb'{"text":"\"},{\"","ev":"T","sym":"A","last":"\\"}',
        b'{"ev":"T","ev":"x","sym":"A","sym":5}',
        rb'{"\u0065v":"\u0054","\u0073\u0079m":"\u0041"}',
        '{"ev":"T","sym":"Ä","名":"値"}'.encode(),
        b'{"ev":"T","sym":"A","n":null,"t":true,"f":false,"x":-1.5e+3}',
        b'{"":"","ev":"T","sym":"A"}',
    ],
)
def test_a_trade_passes_untouched_alone_and_in_an_array(make, trade):
    assert_routed(make, trade, trade)
    assert_routed(make, b"[" + trade + b"]", trade)
    assert_routed(make, b" \t\r\n[ " + trade + b" ,\n" + trade + b" ] \r\n", trade, trade)


def test_a_trade_is_found_wherever_it_stands_in_the_buffer(make):
    objects = [rb'{"x":"\\","y":"\"}{","ev":"T","sym":"A","z":[{"\"":"]"}]}', b'{"ev":"T","n":-1,"sym":"A"}', STATUS]
    for space in range(140):
        spaces = b" " * space
        outcome = route(make, b"[" + spaces + (b"," + spaces).join(objects) + b"]")
        assert (outcome.trades(), outcome.messages) == ([objects[:2]], objects[2:])
        longer = objects[0][:-1] + b',"' + b"k" * space + b'":"' + b'\\"' * space + b'"}'
        assert route(make, b"[" + longer + b"," + objects[1] + b"]").trades() == [[longer, objects[1]]]


def test_the_longest_run_of_trades_keeps_its_order_per_shard(make):
    trades = [b'{"ev":"T","sym":"S%d","q":%d}' % (number % 7, number) for number in range(5000)]
    outcome = drive(make(4, STOCKS), [text(b"[" + b",".join(trades) + b"]")])
    numbers = [[int(trade[:-1].rsplit(b":", 1)[1]) for trade in shard] for shard in outcome.trades()]
    assert all(shard == sorted(shard) for shard in numbers)
    assert sorted(itertools.chain.from_iterable(numbers)) == list(range(5000))
    assert [counters.trades for counters in outcome.shard_counters] == [len(shard) for shard in numbers]
    assert sum(counters.bytes for counters in outcome.shard_counters) == sum(map(len, trades))
    assert (outcome.counters.trades, outcome.counters.trade_bytes) == (5000, sum(map(len, trades)))


def test_binary_messages_are_routed_without_a_look_at_their_utf8(make):
    trade = b'{"ev":"T","sym":"\xff"}'
    outcome = drive(make(1, STOCKS), [make_frame(BINARY, b"[" + trade + b",{}]")])
    assert outcome.trades() == [[trade]]
    assert outcome.events == [Event(EventKind.MESSAGE, b"{}", 2)]


def test_without_a_rule_no_message_is_looked_into(make):
    for message in (TRADE, b"", b"[", b"[1,2]"):
        assert_message(make, message, rule=None)


@pytest.mark.parametrize("message", [b"", b" \n", b"hello", b'"text"', b"17", b"null", b"\xef\xbb\xbf[]", b",", b"]"])
def test_a_message_that_is_neither_object_nor_array_goes_to_python_whole(make, message):
    assert_message(make, message)


@pytest.mark.parametrize(
    "message",
    [
        STATUS,
        b"{}",
        b"{ }",
        b'{"sym":"A"}',
        b'{"ev":"t","sym":"A"}',
        b'{"ev":"TT","sym":"A"}',
        b'{"ev":"","sym":"A"}',
        b'{"ev":null,"sym":"A"}',
        b'{"ev":84,"sym":"A"}',
        b'{"ev":["T"],"sym":"A"}',
        b'{"ev":{"T":"T"},"sym":"A"}',
        b'{"EV":"T","sym":"A"}',
        b'{"ev ":"T","sym":"A"}',
        b'{"x":{"ev":"T"},"sym":"A"}',
        b'{"ev":"x","ev":"T","sym":"A"}',
        rb'{"ev":"\T","sym":"A"}',
        rb'{"ev":"T\ud800","sym":"A"}',
        rb'{"\ev":"T","sym":"A"}',
    ],
)
def test_an_object_without_the_marker_goes_to_python_whole(make, message):
    assert_message(make, message)
    assert route(make, b"[" + message + b"]").messages == [message]


def test_events_come_in_their_place_among_the_trades(make):
    router = make(1, STOCKS)
    outcome = drive(router, [text(b"[" + TRADE + b"," + STATUS + b"," + TRADE + b',7,"x",[1,{}],null]')])
    assert outcome.messages == [STATUS, b"7", b'"x"', b"[1,{}]", b"null"]
    assert outcome.trades() == [[TRADE, TRADE]]


def test_trades_before_an_event_are_staged_when_it_comes_and_those_behind_it_are_not(make):
    router = make(1, STOCKS)
    message = text(b"[" + TRADE + b"," + STATUS + b"," + TRADE + b"]")
    router.space()[: len(message)] = message
    router.received(len(message))
    router.process()
    assert bytes(router.pending(0)) == TRADE + b"\n"
    assert router.event().data == STATUS
    router.process()
    assert bytes(router.pending(0)) == (TRADE + b"\n") * 2


def test_an_empty_array_holds_nothing(make):
    for message in (b"[]", b" [ \n ] "):
        assert_routed(make, message)


@pytest.mark.parametrize("value", [b'""', b"5", b"null", b"true", b'["A"]', b'{"sym":"A"}'])
def test_a_trade_without_a_symbol_string_is_rejected(make, value):
    assert_rejected(make, b'{"ev":"T","sym":' + value + b"}", "no usable symbol")
    assert_rejected(make, b'{"sym":' + value + b',"ev":"T"}', "no usable symbol")
    assert_rejected(make, b'{"ev":"T","sym":' + value + b',"sym":"A"}', "no usable symbol")


def test_a_trade_without_the_symbol_key_is_rejected(make):
    assert_rejected(make, b'{"ev":"T","symbol":"A","x":{"sym":"A"}}', "no usable symbol")


@pytest.mark.parametrize(
    "symbol",
    [
        rb"\x",
        rb"A\u12",
        rb"A\u12g4",
        rb"\u",
        rb"\ud800",
        rb"\udc00",
        rb"\ud800A",
        rb"\ud800\n",
        rb"\ud800\ud800",
        rb"\udc00\ud800",
        rb"\ud83d\ude00\ud83d",
        rb"A\'",
        rb"\U0041",
        rb"\u+041",
        rb"\u 041",
    ],
)
def test_a_symbol_with_an_invalid_escape_is_rejected(make, symbol):
    assert_rejected(make, b'{"ev":"T","sym":"%s"}' % symbol, "no usable symbol")
    assert_rejected(make, b'{"sym":"%s","ev":"T"}' % symbol, "no usable symbol")


@pytest.mark.parametrize("symbol", [rb"\"", rb"\\", rb"\/", rb"\b\f\n\r\t", rb"\u0000", rb"\uD83D\uDE00", rb"\uffff"])
def test_a_symbol_with_valid_escapes_is_routed(make, symbol):
    trade = b'{"ev":"T","sym":"%s"}' % symbol
    assert_routed(make, trade, trade)


def test_an_invalid_escape_elsewhere_is_passed_on(make):
    trade = rb'{"\q":"\ud800","ev":"T","sym":"A","x":"\z"}'
    assert_routed(make, trade, trade)


@pytest.mark.parametrize(
    "malformed",
    [
        b"{,}",
        b'{"ev"}',
        b'{"ev":}',
        b'{"ev":,"sym":"A"}',
        b'{"ev" "T","sym":"A"}',
        b'{"ev"::"T"}',
        b'{ev:"T","sym":"A"}',
        b'{5:1,"ev":"T"}',
        b'{["a"]:1,"ev":"T"}',
        b'{"a":1 2,"ev":"T","sym":"A"}',
        b'{"a":1"b","ev":"T","sym":"A"}',
        b'{"a":"b""c":1,"ev":"T","sym":"A"}',
        b'{"a":1:2,"ev":"T","sym":"A"}',
        b'{"a":1,,"ev":"T","sym":"A"}',
        b'{"a":[]{},"ev":"T","sym":"A"}',
        b'{"a":1,}',
        b'{"ev":"T",}',
        b'{"ev":"T" "sym":"A"}',
        b'{"ev":"T";"sym":"A"}',
        b'{"sym":"A"x,"ev":"T"}',
        b'{"a":1,"b"}',
        b'{"a":1,:}',
        b'{"a"}',
        b'{"a":}',
        b'{""}',
        b'{\x0b"ev":"T","sym":"A"}',
    ],
)
def test_an_object_malformed_before_the_outcome_is_sure_is_rejected_and_what_follows_is_routed(make, malformed):
    assert_rejected(make, malformed, "malformed object")
    outcome = route(make, b"[" + TRADE + b"," + malformed + b"," + TRADE + b"]")
    assert (outcome.trades(), outcome.rejects) == ([[TRADE, TRADE]], [("malformed object", malformed)])
    assert len(outcome.events) == 1


@pytest.mark.parametrize("rest", [b" 5}", b',"x"}', b",}", b'"x"}', b":}", b",,,}", b',"a":1 2}', b'"ev":"x"}'])
def test_what_stands_behind_the_sure_outcome_is_passed_on(make, rest):
    trade = b'{"ev":"T","sym":"A"' + rest
    assert_routed(make, trade, trade)
    assert_message(make, b'{"ev":"status"' + rest)
    assert_rejected(make, b'{"ev":"T","sym":""' + rest, "no usable symbol")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b'{"ev":"T","sym":"A"', "unterminated value"),
        (b'{"ev":"T","sym":"A', "unterminated value"),
        (b'{"ev":"T","sym":"A\\', "unterminated value"),
        (b'{"ev":"T","sym":"A\\"}', "unterminated value"),
        (b"{", "unterminated value"),
        (b'{"a":[1,2}', "mismatched bracket"),
        (b'{"a":{"b":1]}', "mismatched bracket"),
        (b'{"ev":"T","sym":"A"]', "mismatched bracket"),
        (b"[{]", "mismatched bracket"),
        (b'"text', "unterminated value"),
        (b'"text\\"', "unterminated value"),
        (b'"\\', "unterminated value"),
        (b"[[1,2", "unterminated value"),
        (b'{"a":' * (MAX_DEPTH + 1), "nested too deeply"),
        (b"[" * (MAX_DEPTH + 1), "nested too deeply"),
        (b"[" * (MAX_DEPTH + 1) + b"}", "nested too deeply"),
        (b"[" * MAX_DEPTH + b"}", "mismatched bracket"),
        (b"[" * MAX_DEPTH, "unterminated value"),
    ],
)
def test_an_element_without_an_end_is_rejected_with_all_that_follows(make, broken, reason):
    behind = b' , {"ev":"x"}'
    outcome = route(make, b"[" + TRADE + b", " + broken)
    assert (outcome.trades(), outcome.rejects) == ([[TRADE]], [(reason, broken)])
    if reason == "mismatched bracket":
        outcome = route(make, b"[" + TRADE + b", " + broken + behind)
        assert (outcome.trades(), outcome.rejects) == ([[TRADE]], [(reason, broken + behind)])
    if broken.startswith(b"{"):
        assert_rejected(make, broken, reason)


def test_nesting_is_followed_to_its_limit(make):
    inner = MAX_DEPTH - 1
    trade = b'{"ev":"T","x":' + b"[" * inner + b"]" * inner + b',"sym":"A"}'
    assert_routed(make, b"[" + trade + b"]", trade)
    array = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert route(make, b"[" + array + b"]").messages == [array]


def test_many_values_side_by_side_are_not_deep(make):
    trade = b'{"ev":"T","x":[' + b"[],{}," * 5000 + b'0],"sym":"A"}'
    assert_routed(make, trade, trade)


@pytest.mark.parametrize("rest", [b"", b"]", b",", b":", b"}", b" ]", b"} ]", b",]"])
def test_where_a_value_is_missing_the_rest_is_rejected(make, rest):
    outcome = route(make, b"[" + TRADE + b"," + rest)
    assert (outcome.trades(), outcome.rejects) == ([[TRADE]], [("expected a value", rest.lstrip())])


@pytest.mark.parametrize("rest", [b",", b":", b"}", b""])
def test_where_the_first_value_is_missing_the_rest_is_rejected(make, rest):
    assert_rejected(make, b"[ " + rest, "expected a value", rest)


@pytest.mark.parametrize("rest", [b"", b"}", b":", b"5]", b'"x"]', TRADE + b"]", b";]"])
def test_where_a_comma_is_missing_the_rest_is_rejected(make, rest):
    outcome = route(make, b"[" + TRADE + b" " + rest)
    assert (outcome.trades(), outcome.rejects) == (
        [[TRADE]],
        [("expected a comma or the end of the array", rest)],
    )


@pytest.mark.parametrize("rest", [b"]", b",", b"x", TRADE, b"," + TRADE, b",{}", b"[]", b"\x00"])
def test_text_after_the_end_is_rejected(make, rest):
    for message in (b"[" + TRADE + b"]", TRADE):
        outcome = route(make, message + b" \n" + rest)
        assert (outcome.trades(), outcome.rejects) == ([[TRADE]], [("text after the end", rest)])
        outcome = route(make, message + rest)
        assert (outcome.trades(), outcome.rejects) == ([[TRADE]], [("text after the end", rest)])
    outcome = route(make, STATUS + rest)
    assert (outcome.messages, outcome.rejects) == ([STATUS], [("text after the end", rest)])


@pytest.mark.parametrize("token", [b"7", b"-1.5e3", b"nul", b"garbage", b"\xc3\xa4", b"'", b"\x00", b"\\", b"."])
def test_scalar_tokens_go_to_python(make, token):
    assert route(make, b"[" + token + b" ," + token + b"]").messages == [token, token]


def test_a_scalar_token_ends_before_a_bracket_or_quote(make):
    for rest in (b"[1]]", b'"x"]', b"{}]"):
        outcome = route(make, b"[12" + rest)
        assert outcome.messages == [b"12"]
        assert outcome.rejects == [("expected a comma or the end of the array", rest)]


def padded(size):
    trade = b'{"ev":"T","sym":"A","x":""}'
    return trade[:-2] + b"x" * (size - len(trade)) + trade[-2:]


def test_a_trade_of_the_greatest_length_is_routed_and_a_longer_one_rejected(make):
    longest, too_long = padded(MAX_RECORD), padded(MAX_RECORD + 1)
    for framing in ("ndjson", "length32"):
        outcome = route(make, b"[" + longest + b"," + too_long + b"," + TRADE + b"]", framing=framing)
        assert (outcome.trades(framing), outcome.rejects) == ([[longest, TRADE]], [("trade too long", too_long)])


def test_a_long_object_that_is_no_trade_goes_to_python(make):
    message = padded(MAX_RECORD + 1).replace(b'"T"', b'"x"')
    assert_message(make, message)


def test_a_symbol_may_be_long(make):
    trade = b'{"ev":"T","sym":"%s"}' % (b"A" * 100_000)
    assert_routed(make, trade, trade)


def test_ndjson_keeps_a_trade_on_one_line(make):
    message = b'{\n  "ev": "T",\n  "sym": "A",\n  "c": [\n0,\r\n12]\n}'
    assert_routed(make, message, message.replace(b"\n", b" "))
    assert_routed(make, message, message, framing="length32")


def test_ndjson_rejects_a_raw_newline_inside_a_string(make):
    for trade in (b'{"ev":"T","sym":"A","x":"1\n2"}', b'{\n"ev":"T","sym":"A","x\n":1}', b'{"ev":"T","sym":"A\n"}'):
        assert_rejected(make, trade, "raw newline in a string")
        assert_routed(make, trade, trade, framing="length32")


def test_a_newline_behind_an_escaped_quote_is_inside_the_string(make):
    assert_rejected(make, b'{"ev":"T","sym":"A","x":"\\"\n"}', "raw newline in a string")
    trade = b'{"ev":"T","sym":"A","x":"\\\\"\n}'
    assert_routed(make, trade, trade.replace(b"\n", b" "))


def test_an_escaped_newline_is_passed_on(make):
    trade = rb'{"ev":"T","sym":"A\n","x":"\n"}'
    assert_routed(make, trade, trade)


def test_what_else_is_wrong_with_a_trade_is_said_before_its_newlines(make):
    assert_rejected(make, b'{"ev":"T","sym":"","x":"\n"}', "no usable symbol")
    assert_rejected(make, padded(MAX_RECORD).replace(b'"x":', b'"\n":') + b"", "raw newline in a string")
    assert_rejected(make, padded(MAX_RECORD + 1).replace(b'"x":', b'"\n":'), "trade too long")


def test_length32_gives_the_length_in_little_endian_before_each_trade(make):
    outcome = route(make, b"[" + TRADE + b"]", framing="length32")
    assert outcome.shards == [len(TRADE).to_bytes(4, "little") + TRADE]
    assert outcome.counters.trade_bytes == len(TRADE)


def test_several_marker_values_mark_trades(make):
    rule = Rule(b"type", (b"match", b"last_match"), b"product_id")
    trades = [b'{"type":"match","product_id":"BTC-USD"}', b'{"type":"last_match","product_id":"ETH-USD"}']
    for trade in trades:
        assert_routed(make, trade, trade, rule=rule)
    assert_message(make, b'{"type":"subscriptions","product_id":"BTC-USD"}', rule=rule)


def test_marker_and_symbol_may_be_the_same_key(make):
    rule = Rule(b"k", (b"A", b"B"), b"k")
    assert_routed(make, b'[{"k":"A"},{"x":1,"k":"B"}]', b'{"k":"A"}', b'{"x":1,"k":"B"}', rule=rule)
    assert_message(make, b'{"k":"C"}', rule=rule)


def envelope(data):
    return b'{"channel":"trade","type":"update","data":' + data + b"}"


def test_the_trades_in_a_container_are_routed_one_by_one(make):
    trades = [b'{"symbol":"BTC/USD","price":1}', b'{"x":{"symbol":5},"symbol":"ETH/USD"}']
    array = b"[ " + b" , ".join(trades) + b" ]"
    for message in (
        envelope(array),
        b"[" + envelope(array) + b"]",
        b'{"data":%s,"channel":"trade"}' % array,
        b'{"data":%s,"channel":"trade","data":5,"channel":"x"}' % array,
        rb'{"d\u0061ta":%s,"\u0063hannel":"trad\u0065"}' % array,
    ):
        assert_routed(make, message, *trades, rule=KRAKEN)


def test_an_empty_container_holds_nothing(make):
    assert_routed(make, envelope(b"[]"), rule=KRAKEN)
    assert_routed(make, envelope(b"[ ]"), rule=KRAKEN)


@pytest.mark.parametrize(
    "message",
    [
        b'{"channel":"heartbeat"}',
        b'{"channel":"heartbeat","data":[{"symbol":"A"}]}',
        b'{"data":[{"symbol":"A"}]}',
        b'{"channel":5,"data":[{"symbol":"A"}]}',
        b'{"channel":"trade"}',
        b'{"channel":"trade","data":{"symbol":"A"}}',
        b'{"channel":"trade","data":"[]"}',
        b'{"channel":"trade","data":null,"data":[{"symbol":"A"}]}',
        b'{"data":1,"channel":"trade"}',
        b'{"method":"pong"}',
        b"{}",
        b'{"channel":"x" malformed}',
    ],
)
def test_an_envelope_that_holds_no_trades_goes_to_python_whole(make, message):
    assert_message(make, message, rule=KRAKEN)


@pytest.mark.parametrize(
    "message",
    [
        b'{"channel":"trade","data":[{"symbol":"A"}],}',
        b'{"channel":"trade","data":[{"symbol":"A"}] 5}',
        b'{"channel" "trade","data":[{"symbol":"A"}]}',
        b'{"data":[{"symbol":"A"}],"channel":"trade","x"}',
        b'{"data":5,"x":}',
    ],
)
def test_a_malformed_envelope_is_rejected_whole(make, message):
    assert_rejected(make, message, "malformed object", rule=KRAKEN)


def test_what_is_no_trade_in_a_container_is_rejected_and_the_rest_routed(make):
    good = b'{"symbol":"A"}'
    bad = [b"5", b'"x"', b"[{}]", b"null", b'{"symbol" 5}', b'{"a":1,}']
    without_symbol = [
        b"{}",
        b'{"symbol":""}',
        b'{"symbol":5,"symbol":"A"}',
        b'{"x":{"symbol":"A"}}',
        rb'{"symbol":"\x"}',
    ]
    outcome = route(make, envelope(b"[" + b",".join([good, *bad, good, *without_symbol, good]) + b"]"), KRAKEN)
    assert outcome.trades() == [[good] * 3]
    assert outcome.rejects == [
        *[("malformed object", data) for data in bad],
        *[("no usable symbol", data) for data in without_symbol],
    ]


@pytest.mark.parametrize(
    ("array", "reason", "rest"),
    [
        (b'[{"symbol":"A"},]', "expected a value", b"]"),
        (b'[{"symbol":"A"},:1]', "expected a value", b":1]"),
        (b'[{"symbol":"A"} {"symbol":"B"}]', "expected a comma or the end of the array", b'{"symbol":"B"}]'),
    ],
)
def test_a_syntax_error_in_a_container_rejects_the_rest_of_its_envelope_only(make, array, reason, rest):
    message = b"[" + envelope(array) + b"," + envelope(b'[{"symbol":"C"}]') + b"]"
    outcome = route(make, message, KRAKEN)
    assert outcome.trades() == [[b'{"symbol":"A"}', b'{"symbol":"C"}']]
    assert outcome.rejects == [(reason, rest + b"}")]


def test_trades_in_a_container_have_the_same_limits(make):
    too_long = b'{"symbol":"A","x":"%s"}' % (b"x" * MAX_RECORD)
    newline = b'{"symbol":"A\n"}'
    spread = b'{\n"symbol":"A"}'
    outcome = route(make, envelope(b"[" + b",".join([too_long, newline, spread]) + b"]"), KRAKEN)
    assert outcome.trades() == [[spread.replace(b"\n", b" ")]]
    assert outcome.rejects == [("trade too long", too_long), ("raw newline in a string", newline)]
