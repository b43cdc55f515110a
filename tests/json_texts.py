"""Hypothesis strategies for JSON texts in all their spellings, and for messages that look like trades."""

from hypothesis import strategies as st

WHITE_SPACE = st.sampled_from(["", "", "", "", " ", "\n", "\t", "\r", " \r\n\t ", " " * 40])
SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
CHARACTERS = st.one_of(
    st.sampled_from('{}[]",:\\/ \n\tTev\x7f\x00😀é値\u2028'),
    st.characters(exclude_categories=["Cs"]),
)


def escaped(char, style):
    """Spell one character of a string in one of the ways that JSON allows (RFC 8259, section 7)."""
    if style == 0 and char not in '"\\' and char >= " ":
        return char
    if style <= 1 and char in SHORT_ESCAPES:
        return SHORT_ESCAPES[char]
    units = char.encode("utf-16-be")
    digits = "%04X" if style == 2 else "%04x"
    return "".join("\\u" + digits % int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))


@st.composite
def spelled(draw, value):
    """Return a string's JSON text, each character spelled as it comes."""
    if draw(st.booleans()):
        styles = [0] * len(value)
    else:
        styles = draw(st.lists(st.integers(0, 3), min_size=len(value), max_size=len(value)))
    return '"' + "".join(map(escaped, value, styles)) + '"'


STRINGS = st.text(CHARACTERS, max_size=12).flatmap(spelled)
NUMBERS = st.one_of(
    st.integers(-(2**53), 2**53).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["0", "-0", "1E5", "1e-07", "114.125", "-0.0", "18446744073709551615"]),
)
SCALARS = st.one_of(STRINGS, NUMBERS, st.sampled_from(["true", "false", "null"]))


@st.composite
def array_text(draw, elements):
    """Return an array's text, given a strategy for its elements' texts; white space anywhere that it may stand."""
    parts = [draw(WHITE_SPACE) + element + draw(WHITE_SPACE) for element in draw(elements)]
    return "[" + (",".join(parts) if parts else draw(WHITE_SPACE)) + "]"


@st.composite
def object_text(draw, members):
    """Return an object's text, given a strategy for a list of (key's text, value's text)."""
    parts = [
        draw(WHITE_SPACE) + key + draw(WHITE_SPACE) + ":" + draw(WHITE_SPACE) + value + draw(WHITE_SPACE)
        for key, value in draw(members)
    ]
    return "{" + (",".join(parts) if parts else draw(WHITE_SPACE)) + "}"


VALUES = st.recursive(
    SCALARS,
    lambda values: st.one_of(
        array_text(st.lists(values, max_size=4)),
        object_text(st.lists(st.tuples(STRINGS, values), max_size=4)),
    ),
    max_leaves=12,
)


def trade_like(rule):
    """Return a strategy for objects in which the rule's keys and markers come often, and often more than once."""
    keys = [rule.marker_key, rule.symbol_key] + ([rule.container] if rule.container else [])
    key = st.one_of(st.sampled_from([key.decode() for key in keys]).flatmap(spelled), STRINGS)
    marker = st.sampled_from([value.decode() for value in rule.marker_values]).flatmap(spelled)
    symbol = st.sampled_from(["A", "AAPL", "BRK.B", "Müller", "😀", ""]).flatmap(spelled)
    plain = st.lists(st.tuples(key, st.one_of(marker, marker, symbol, VALUES)), max_size=6)

    @st.composite
    def members(draw):
        found = [
            (draw(spelled(rule.marker_key.decode())), draw(marker)),
            (draw(spelled(rule.symbol_key.decode())), draw(symbol)),
        ]
        return draw(st.permutations(found + draw(plain)))

    objects = object_text(st.one_of(members(), members(), plain))
    if rule.container is None:
        return objects

    @st.composite
    def envelope_members(draw):
        found = [
            (draw(spelled(rule.marker_key.decode())), draw(marker)),
            (
                draw(spelled(rule.container.decode())),
                draw(st.one_of(array_text(st.lists(st.one_of(objects, objects, VALUES), max_size=4)), VALUES)),
            ),
        ]
        return draw(st.permutations(found + draw(plain)))

    return st.one_of(object_text(envelope_members()), objects)


def message_texts(rule):
    """Return a strategy for whole messages: mostly arrays of what looks like trades, among any JSON."""
    objects = trade_like(rule)
    arrays = array_text(st.lists(st.one_of(objects, objects, objects, VALUES), max_size=6))
    padded = st.tuples(WHITE_SPACE, st.one_of(arrays, arrays, objects, VALUES), WHITE_SPACE)
    return padded.map("".join)
