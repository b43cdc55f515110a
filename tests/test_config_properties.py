"""Whatever a file holds: a configuration that survives dump and load, or one line of error."""

import datetime
import string
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal import config
from tradebal.config import Config, ConfigError, CustomFeed, Feed, LoginStep, Metrics, Overflow, Shards, Worker, kinds

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
printable = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12)
path = printable.map(lambda name: Path("/" + name))
size = st.one_of(st.integers(1 << 12, 1 << 30), st.sampled_from([1 << 12, 1 << 20, 1 << 30]))
seconds = st.floats(0.1, 60)
number = st.integers(-(2**63), 2**63 - 1)
zone = st.one_of(st.none(), st.integers(-1439, 1439).map(lambda m: datetime.timezone(datetime.timedelta(minutes=m))))
anything = st.recursive(
    st.one_of(
        st.booleans(),
        number,
        st.floats(allow_nan=False),
        st.text(st.characters(codec="utf-8"), max_size=12),
        zone.flatmap(lambda z: st.datetimes(timezones=st.just(z))),
        st.dates(),
        st.times(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)

steps = st.builds(
    LoginStep,
    expect=st.dictionaries(text, st.one_of(text, number, st.booleans()), max_size=3),
    send=st.one_of(st.just(""), text),
)
custom_feeds = st.builds(
    CustomFeed,
    trade_key=text,
    trade_values=st.lists(text, min_size=1, max_size=3).map(tuple),
    symbol_key=text,
    trades_in=st.none() | text,
    login=st.lists(steps, max_size=3).map(tuple),
)


@st.composite
def configurations(draw):
    custom = draw(st.none() | custom_feeds)
    count = draw(st.integers(1, 1024))
    return Config(
        feed=Feed(
            profile="custom" if custom else draw(st.sampled_from(["massive", "alpaca", "coinbase", "kraken"])),
            url=draw(st.sampled_from(["wss://a.example/b?c=d", "ws://[::1]:80"] + ([] if custom else [""]))),
            subscribe=draw(st.lists(text, max_size=3).map(tuple)),
            headers=draw(
                st.dictionaries(
                    st.text(string.ascii_letters, min_size=1, max_size=5), st.text(string.printable[:95], max_size=9)
                )
            ),
            ca_file=draw(st.none() | path),
            max_message=draw(size),
            connect_timeout=draw(seconds),
            login_timeout=draw(seconds),
            ping_interval=draw(seconds),
            ping_timeout=draw(seconds),
            custom=custom,
        ),
        shards=Shards(
            count=count,
            directory=draw(path),
            pipe_size=draw(size),
            framing=draw(st.sampled_from(["ndjson", "length32"])),
            pin=draw(st.dictionaries(text, st.integers(0, count - 1), max_size=4)),
            gap_records=draw(st.booleans()),
        ),
        overflow=Overflow(directory=draw(path), limit=draw(size), when_full=draw(st.sampled_from(["drop", "block"]))),
        worker=Worker(
            handler=draw(st.sampled_from(["a:B", "a.b_c:D9"])),
            options=draw(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=9), anything, max_size=4)),
            on_error=draw(st.sampled_from(["continue", "stop"])),
            read_size=draw(size),
        ),
        metrics=Metrics(address=draw(st.sampled_from(["[::]:0", "a.example:9570"])), interval=draw(seconds)),
    )


@given(configurations())
@settings(deadline=None, max_examples=60)
def test_what_is_dumped_loads_to_an_equal_configuration(made):
    assert config.parse(config.dump(made).encode(), "dumped") == made


@given(configurations())
@settings(deadline=None, max_examples=30)
def test_a_concealed_dump_is_still_a_usable_configuration(made):
    config.parse(config.dump(made, conceal=True).encode(), "dumped")


def only_a_clear_error(data):
    try:
        config.parse(data, "t.toml")
    except ConfigError as error:
        message = error.message
    else:
        return
    assert message.isprintable()
    assert message.startswith("t.toml: ")
    assert len(message) < 1000


names = [info.path.split(".") for info in config.declared_keys() if "[]" not in info.path]


@given(st.lists(st.tuples(st.sampled_from(names), anything), max_size=4, unique_by=lambda pair: tuple(pair[0])))
@settings(deadline=None, max_examples=150)
def test_a_known_key_with_any_value_gives_a_configuration_or_a_clear_error(pairs):
    tree = {}
    for keys, value in pairs:
        table = tree
        for key in keys[:-1]:
            table = table.setdefault(key, {})
        table[keys[-1]] = value
    lines = [f"{kinds.write_key(key)} = {kinds.write_value(value)}" for key, value in tree.items()]
    only_a_clear_error("\n".join(lines).encode())


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), anything, max_size=4))
@settings(deadline=None, max_examples=60)
def test_any_table_gives_a_configuration_or_a_clear_error(tree):
    lines = [f"{kinds.write_key(key)} = {kinds.write_value(value)}" for key, value in tree.items()]
    only_a_clear_error("\n".join(lines).encode())


@given(st.binary(max_size=60) | st.text("[]{}=.,\"'#\\ \n\r\tab01-:u", max_size=60).map(str.encode))
@settings(deadline=None, max_examples=200)
def test_any_bytes_give_a_configuration_or_a_clear_error(data):
    only_a_clear_error(data)
