"""Writes the corpus that a fuzzing run begins with: valid streams, and the edges of RFC 6455, RFC 3629 and RFC 8259."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tests import frames as server
from tests.fuzz.cases import RULES, opening, trade

SEEDS = Path(__file__).parent / "seeds"

RAW, TEXT, BINARY, FRAGMENTS, REPEATED, AT_AN_EDGE, NESTED, LONG = range(8)
LARGE = 4 << 5
LENGTH32, PINS = 8, 16

TRADE = b'{"ev":"T","sym":"A"}'

MESSAGES = {
    "empty": b"",
    "white-space": b" \t\r\n",
    "neither-array-nor-object": b'"text"',
    "array": b"[" + TRADE + b"," + TRADE + b"]",
    "empty-array": b"[ ]",
    "flat": TRADE,
    "flat-and-comma": TRADE + b",{}",
    "flat-and-text": TRADE + b" x",
    "white-space-everywhere": b' [ { "ev" : "T" , "sym" : "BRK.B" } , { } ] ',
    "spaced-as-json-dumps": b'[{"ev": "T", "sym": "LONGSYMBOL"}, {"ev": "T", "sym": "A"}]',
    "line-feeds": b'[\n{"ev":"T",\n"sym":"A"\n},\n{"ev":"T","sym":"B",\n"x":1}]\n',
    "line-feed-in-a-string": b'[{"ev":"T","sym":"A","x":"\n"},' + TRADE + b"]",
    "other-order": b'[{"x":[1,{"y":[]}],"sym":"A","z":{"ev":"Q"},"ev":"T"}]',
    "second-keys": b'[{"ev":"T","ev":"Q","sym":"A","sym":"B"},{"ev":"Q","ev":"T","sym":"A"}]',
    "escaped-keys": b'[{"\\u0065v":"\\u0054","s\\u0079m":"\\u0041"}]',
    "escaped-symbols": b'[{"ev":"T","sym":"\\u00e9"},{"ev":"T","sym":"\\ud83d\\ude00"},{"ev":"T","sym":"\\"\\\\\\/"}]',
    "half-surrogates": b'[{"ev":"T","sym":"\\ud83d"},{"ev":"T","sym":"\\ude00"},{"ev":"T","sym":"\\ud83d\\u0041"}]',
    "invalid-escapes": b'[{"ev":"T","sym":"\\x"},{"ev":"T","sym":"\\u00g0"},{"ev":"\\q","sym":"A"},{"\\z":1}]',
    "zero-in-a-symbol": b'[{"ev":"T","sym":"\\u0000"},{"ev":"T","sym":"A\x00"}]',
    "structure-in-strings": b'[{"ev":"T","sym":"A","x":"}],{[\\"","y\\\\":"]"},' + TRADE + b"]",
    "symbols-of-each-length": b"[%s]"
    % b",".join(b'{"ev":"T","sym":"%s"}' % (b"ABCDEFGHIJ"[:length]) for length in range(11)),
    "symbol-not-a-string": b'[{"ev":"T","sym":1},{"ev":"T","sym":null},{"ev":"T","sym":["A"]},{"ev":"T"}]',
    "marker-not-a-string": b'[{"ev":1,"sym":"A"},{"ev":["T"]},{"ev":{"T":1}},{"ev":T}]',
    "other-elements": b'[1,"two",[3,[4]],null,{},-5e-6,tru]',
    "status": b'[{"ev":"status","message":"Connected"},' + TRADE + b"]",
    "trailing-comma": b"[" + TRADE + b",]",
    "leading-comma": b"[," + TRADE + b"]",
    "two-commas": b"[" + TRADE + b",," + TRADE + b"]",
    "no-comma": b"[" + TRADE + TRADE + b"]",
    "no-comma-between-values": b"[1 2]",
    "text-after-the-end": b"[" + TRADE + b"]]",
    "unterminated-array": b"[" + TRADE,
    "unterminated-object": b'[{"ev":"T","sym":"A"',
    "unterminated-string": b'[{"ev":"T","sym":"A',
    "backslash-at-the-end": b'[{"ev":"T","sym":"A\\',
    "backslash-outside-strings": b'[{"ev":"T","sym":"A",\\"x":1},' + TRADE + b"]",
    "mismatched": b'[{"ev":"T","sym":"A","x":[}]},' + TRADE + b"]",
    "closed-too-often": b"[" + TRADE + b"}," + TRADE + b"]",
    "member-without-colon": b'[{"ev" "T"},{"ev":"T" "sym":"A"},{"ev":"T",,"sym":"A"},{"ev":"T","x":}]',
    "member-without-key": b'[{1:2},{:1},{,},{"ev":"T",},{"x"},{"ev":"T","sym"}]',
    "malformed-behind-the-symbol": b'[{"ev":"T","sym":"A" 1 2 : }]',
    "comma-behind-the-object": b'{"ev":"T","sym":"A"},',
    "utf-8": '[{"ev":"T","sym":"é😀\u2028\U0010ffff"}]'.encode(),
    "del-and-controls": b'[{"ev":"T","sym":"\x7f\x01\x1f"}]',
    "blocks-of-backslashes": b'[{"ev":"T","x":"' + b"\\\\" * 40 + b'\\"","sym":"A"},' + TRADE + b"]",
    "long-trade": b'[{"ev":"T","sym":"A","x":"' + b"y" * 300 + b'"},' + TRADE + b"]",
    "long-line-then-line-feed": b'[{"ev":"T","sym":"A","x":"' + b"y" * 130 + b'"},\n' + TRADE + b"]",
    "symbols-that-differ-in-zeros": b"[%s]"
    % b",".join(b'{"ev":"T","sym":"A%s"}' % (b"\x00" * zeros) for zeros in (0, 1, 2, 3, 4, 5, 6, 0)),
}

ENVELOPES = {
    "trades": b'{"channel":"trade","type":"update","data":[{"symbol":"A","p":1},{"symbol":"B"}]}',
    "several": b'[{"channel":"trade","data":[{"symbol":"A"}]},{"channel":"trade","data":[]}]',
    "data-first": b'{"data":[{"symbol":"A"}],"channel":"trade"}',
    "other-channel": b'{"channel":"heartbeat","data":[{"symbol":"A"}]}',
    "no-channel": b'{"data":[{"symbol":"A"}]}',
    "data-not-an-array": b'[{"channel":"trade","data":{}},{"channel":"trade","data":"[]"},{"channel":"trade"}]',
    "other-elements": b'{"channel":"trade","data":[1,"x",[],{"symbol":"A"},{}]}',
    "syntax-error-inside": b'[{"channel":"trade","data":[{"symbol":"A"},]},{"channel":"trade","data":[]}]',
    "no-comma-inside": b'{"channel":"trade","data":[{"symbol":"A"}{"symbol":"B"}]}',
    "malformed": b'{"channel":"trade","data":[{"symbol":"A"}],}',
    "element-malformed": b'{"channel":"trade","data":[{"symbol" "A"},{"symbol":"B"},{"x":1,"symbol":"C"}]}',
    "nested-envelope": b'{"channel":"trade","data":[{"symbol":"A","channel":"trade","data":[{"symbol":"B"}]}]}',
    "second-data": b'{"channel":"trade","data":[{"symbol":"A"}],"data":[{"symbol":"B"}]}',
    "line-feed-in-a-string": b'{"channel":"trade","data":[{"symbol":"A","x":"\n"},\n{"symbol":\n"B"}]}',
}

UTF_8 = {
    "two-bytes": b"\xc2\x80\xdf\xbf",
    "three-bytes": b"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf",
    "four-bytes": b"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
    "overlong-2": b"\xc0\x80",
    "overlong-2-last": b"\xc1\xbf",
    "overlong-3": b"\xe0\x9f\xbf",
    "overlong-4": b"\xf0\x8f\xbf\xbf",
    "surrogate": b"\xed\xa0\x80",
    "beyond-the-last": b"\xf4\x90\x80\x80",
    "lead-f5": b"\xf5\x80\x80\x80",
    "continuation-alone": b"\x80",
    "cut-2": b"\xc3",
    "cut-3": b"\xe2\x82",
    "cut-4": b"\xf0\x9f\x98",
    "across-a-block": b"x" * 63 + "é".encode() + b"y" * 62 + "😀".encode(),
    "cut-at-a-block": b"x" * 62 + b"\xf0\x9f",
}

STREAMS = {
    "two-messages": server.text(b"[" + TRADE + b"]") + server.frame(server.BINARY, TRADE),
    "ping-pong": server.frame(server.PING, b"x" * 125) + server.frame(server.PONG),
    "close": server.close(1000, b"bye") + server.text(TRADE),
    "close-without-code": server.frame(server.CLOSE),
    "close-of-one-byte": server.frame(server.CLOSE, b"\x03"),
    "close-reason-not-utf-8": server.close(1000, b"\xff"),
    "fragments": b"".join(server.fragments(TRADE, [0, 1, 5, 5])),
    "fragments-with-control-between": server.frame(server.TEXT, b"[", fin=False)
    + server.frame(server.PING, b"p")
    + server.frame(server.CONTINUATION, b"{}]"),
    "character-across-fragments": b"".join(server.fragments("é😀".encode(), [1, 3])),
    "ping-before-invalid-text-ends": server.frame(server.TEXT, b"\xff", fin=False)
    + server.frame(server.PING)
    + server.frame(server.CONTINUATION),
    "close-inside-fragments": server.frame(server.TEXT, b"[", fin=False) + server.close(1001),
    "text-inside-fragments": server.frame(server.TEXT, b"[", fin=False) + server.text(b"]"),
    "continuation-without-start": server.frame(server.CONTINUATION, b"x"),
    "masked": server.frame(server.TEXT, b"x", mask=b"abcd"),
    "fragmented-ping": server.frame(server.PING, fin=False),
    "ping-of-126": server.frame(server.PING, b"x" * 126),
    "unknown-opcode": server.frame(3) + server.frame(11),
    "unknown-control-opcode": server.frame(11),
    "reserved-bit": server.frame(server.TEXT, b"x", reserved=4),
    "length-in-2": server.frame(server.TEXT, b"[]", length_size=2),
    "length-in-8": server.frame(server.BINARY, b"[]", length_size=8),
    "empty-in-8": server.frame(server.TEXT, b"", length_size=8),
    "longer-than-max-message": server.frame(server.TEXT, length=(4 << 20) - 255),
    "as-long-as-max-message": server.frame(server.TEXT, b"[", length=(4 << 20) - 256),
    "length-2-63": server.frame(server.TEXT, length=1 << 63, length_size=8),
    "length-2-63-less-1": server.frame(server.TEXT, length=(1 << 63) - 1, length_size=8),
    "sum-too-long": server.frame(server.TEXT, b"x" * 40, fin=False) + server.frame(server.CONTINUATION, b"x" * 40),
    "longer-than-the-receive-buffer": server.frame(server.BINARY, b"[" + TRADE + b",", length=300_000),
    "fewer-brackets-than-before": server.text(b'[{"x":"' + b"y" * 600 + b'","z":[1]},{"z":[1]}]')
    + server.text(b'[{"ev":"T","sym":"A"'),
}


def header(chunking: int, router: int, shape: int, *, amount: int = 0, shards: int = 0) -> bytes:
    """Return an input's first three bytes; see cases.py."""
    return bytes([chunking, router, shape | shards << 3 | amount << 6])


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yield a name and an input for each seed; how they are cut and framed takes turns."""
    cuts = [0, 1, 3, 7, 17, 18, 35, 210, 211]
    for number, (name, payload) in enumerate(MESSAGES.items()):
        router = 1 | (LENGTH32 if number & 1 else 0) | (PINS if number & 2 else 0)
        shape = (TEXT, FRAGMENTS, BINARY)[number % 3]
        yield f"message-{name}", header(cuts[number % 9], router, shape, amount=number & 3, shards=number & 7) + payload
    for number, (name, payload) in enumerate(ENVELOPES.items()):
        router = 2 | (LENGTH32 if number & 1 else 0)
        yield f"envelope-{name}", header(cuts[number % 9], router, TEXT, shards=number & 7) + payload
    for number, (name, payload) in enumerate(UTF_8.items()):
        yield f"utf-8-{name}", header(cuts[number % 9], 1, (TEXT, FRAGMENTS)[number & 1], amount=2) + payload
    for number, (name, payload) in enumerate(STREAMS.items()):
        small = 1 << 5 if name == "sum-too-long" else 0
        yield f"stream-{name}", header(cuts[number % 9], 1 | small, RAW) + payload
    for code in (0, 999, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 2999, 3000, 4999, 5000, 65535):
        yield f"close-{code}", header(0, 0, RAW) + server.close(code)
    for number, rule in enumerate(RULES):
        if rule:
            text = opening(rule) + trade(rule, 3) + b"," + trade(rule, 70) + (b"]}" if rule.container else b"]")
            yield f"rule-{number}", header(17, number | PINS, TEXT, shards=4) + text
            yield f"rule-{number}-many", header(0, number, REPEATED, amount=1) + trade(rule, 9)
    for amount in range(4):
        edge = header(1, 1, AT_AN_EDGE, amount=amount)
        yield f"edge-{amount}-string", edge + b'{"ev":"T","sym":"A","x":"\\\\\\"{}[]"},' + TRADE + b"]"
        yield f"edge-{amount}-objects", edge + b",".join([TRADE] * 9) + b"]"
        yield f"edge-{amount}-envelope", header(18, 2, AT_AN_EDGE, amount=amount) + b'{"symbol":"A"},{"x":1}]}'
        opened = (b"[", b"[ [", b'{"a":', b'{"b" :[')[amount]
        yield f"depth-{amount}", header(0, 1, NESTED, amount=amount) + opened + b"\x04]"
        yield f"repeated-{amount}", header(19, 1, REPEATED, amount=amount) + TRADE
    for middle in range(8):
        yield f"depth-of-objects-{middle}", header(2, 1, NESTED, amount=2) + b'{"a":' + bytes([middle]) + b"1}"
        yield f"depth-of-arrays-{middle}", header(0, 1, NESTED) + b"[" + bytes([middle]) + b"]"
    for amount in range(1, 4):
        yield f"long-{amount}", header(19, 1, LONG, amount=amount) + b'"x":1'
        yield f"longest-{amount}", header(0, 1 | LARGE, LONG, amount=amount) + b'"x":1'
    yield "many-messages", header(23, 1 | LARGE, REPEATED, amount=2) + b",".join([TRADE] * 5)
    for chunking in (203, 211, 219):
        yield f"taken-by-parts-{chunking}", header(chunking, 1 | LARGE, LONG, amount=1, shards=1) + b'"x":1'
    yield "many-trades", header(0, 1 | LARGE, REPEATED, amount=3) + TRADE
    # Fuzzing came upon these; they tell a core whose index goes on behind such a backslash, or past the last bracket.
    yield "stray-backslash-then-brackets", header(1, 1, FRAGMENTS, amount=3) + b'{"ev":"{"k\\"e\\\\y:"A"},{"ev":"}]'
    yield "line-feed-before-the-last-bracket", header(242, 1, LONG, amount=1, shards=6) + b"\n"
    yield "reset-in-a-frame", header(0, 1, LONG) + server.text(b"[" + TRADE + b"]") + b"\x01\x01"


def write() -> None:
    """Write each seed into a file, and remove what is no seed any more."""
    SEEDS.mkdir(exist_ok=True)
    made = dict(seeds())
    for path in SEEDS.iterdir():
        if path.name not in made:
            path.unlink()
    for name, data in made.items():
        (SEEDS / name).write_bytes(data)
    print(f"{len(made)} seeds, {sum(map(len, made.values()))} bytes", file=sys.stderr)


if __name__ == "__main__":
    write()
