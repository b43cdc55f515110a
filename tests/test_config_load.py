"""What a configuration file may say, and the one line that tells its author what it may not."""

from pathlib import Path

import pytest

from tradebal import config
from tradebal.config import Config, ConfigError, LoginStep


def error_of(text):
    with pytest.raises(ConfigError) as caught:
        config.parse(text.encode() if isinstance(text, str) else text, "t.toml")
    assert caught.value.code == 2
    assert "\n" not in caught.value.message
    return caught.value.message


def test_an_empty_file_gives_the_defaults():
    assert config.parse(b"", "t.toml") == Config() == config.load(None)


def test_the_defaults_are_those_that_the_units_and_the_package_rely_on():
    defaults = Config()
    assert defaults.shards.count == 7
    assert defaults.fifo(3) == Path("/run/tradebal/shard-3.fifo")
    assert defaults.metrics_directory == Path("/run/tradebal/metrics")
    assert defaults.overflow.directory == Path("/var/lib/tradebal/overflow")
    assert (defaults.metrics.host, defaults.metrics.port) == ("127.0.0.1", 9570)


def test_every_key_can_be_set():
    text = """
        [feed]
        profile = "custom"
        url = "ws://[::1]:8080/x?y=z"
        subscribe = ["A", "B"]
        headers = { User-Agent = "desk 7" }
        ca_file = "/etc/ssl/my ca.pem"
        max_message = 4096
        connect_timeout = 1
        login_timeout = 2.5
        ping_interval = 3
        ping_timeout = 4
        [feed.custom]
        trade_key = "type"
        trade_values = ["match", "last_match"]
        symbol_key = "product_id"
        trades_in = "data"
        [[feed.custom.login]]
        expect = { status = "connected", code = 1, ok = true }
        send = '{"auth":"{key}","p":"{secret}"}'
        [[feed.custom.login]]
        send = "{subscribe}"
        [shards]
        count = 2
        directory = "/x"
        pipe_size = "1 MiB"
        framing = "length32"
        pin = { SPY = 0, "BRK.B" = 1 }
        gap_records = false
        [overflow]
        directory = "/y"
        limit = 0
        when_full = "block"
        [worker]
        handler = "my.own_module:Handler"
        options = { a = [1, 2.5, "x", 2020-11-27T09:30:00Z], b = { c = true } }
        on_error = "stop"
        read_size = "64KiB"
        [metrics]
        address = "[::1]:0"
        interval = 0.5
    """
    loaded = config.parse(text.encode(), "t.toml")
    assert loaded.feed.custom is not None
    assert loaded.feed.custom.login == (
        LoginStep({"status": "connected", "code": 1, "ok": True}, '{"auth":"{key}","p":"{secret}"}'),
        LoginStep({}, "{subscribe}"),
    )
    assert loaded.feed.max_message == 4096
    assert loaded.shards.pipe_size == 1 << 20
    assert loaded.shards.pin == {"SPY": 0, "BRK.B": 1}
    assert loaded.worker.read_size == 64 << 10
    assert (loaded.metrics.host, loaded.metrics.port) == ("::1", 0)
    assert config.parse(config.dump(loaded).encode(), "t.toml") == loaded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[shards]\ncuont = 3", "t.toml: shards.cuont: unknown key; did you mean shards.count?"),
        ("[shards]\nlimit = 3", "t.toml: shards.limit: unknown key; did you mean overflow.limit?"),
        (
            "[metrics]\nport = 3",
            "t.toml: metrics.port: unknown key; [metrics] can hold address, interval",
        ),
        ("[shrads]\ncount = 3", "t.toml: shrads: unknown table; did you mean shards?"),
        ("count = 3", "t.toml: count: unknown key; did you mean shards.count?"),
        ("shards = 3", "t.toml: shards = 3: must be a table"),
        (
            "zzz = 3",
            "t.toml: zzz: unknown key; the file can hold feed, shards, overflow, worker, metrics",
        ),
        ('"a\\nb" = 3', 't.toml: "a\\nb": unknown key; the file can hold feed, shards, overflow, worker, metrics'),
        ("[shards]\ncount = 0", "t.toml: shards.count = 0: must be a whole number from 1 to 1024"),
        ("[shards]\ncount = true", "t.toml: shards.count = true: must be a whole number from 1 to 1024"),
        ("[shards]\ncount = 8.0", "t.toml: shards.count = 8.0: must be a whole number from 1 to 1024"),
        ('[shards]\ncount = "8"', 't.toml: shards.count = "8": must be a whole number from 1 to 1024'),
        ("[shards]\ngap_records = 1", "t.toml: shards.gap_records = 1: must be true or false"),
        ('[shards]\nframing = "csv"', 't.toml: shards.framing = "csv": must be one of "ndjson", "length32"'),
        (
            '[shards]\npipe_size = "64MB"',
            't.toml: shards.pipe_size = "64MB": must be a size such as "64MiB" (KiB, MiB, GiB, TiB) '
            "or a number of bytes, from 4KiB to 2GiB",
        ),
        (
            "[shards]\ncount = 2\npin = { SPY = 2 }",
            "t.toml: shards.pin.SPY = 2: must be a shard number from 0 to 1, as shards.count = 2",
        ),
        ("[shards]\npin = { SPY = -1 }", "t.toml: shards.pin.SPY = -1: must be a shard number, 0 or more"),
        (
            "[shards.pin]\nBRK.B = 1",
            "t.toml: shards.pin.BRK = { B = 1 }: must be a shard number (a symbol with a dot needs quotes: "
            'a table of symbols and shard numbers, such as { SPY = 0, "BRK.B" = 1 })',
        ),
        ('[shards]\ndirectory = "run"', 't.toml: shards.directory = "run": must be the absolute path of a directory'),
        ("[feed]\nconnect_timeout = nan", "t.toml: feed.connect_timeout = nan: must be a number of seconds "),
        ("[feed]\nping_interval = inf", "t.toml: feed.ping_interval = inf: must be a number of seconds "),
        ('[feed]\nprofile = "finnhub"', 't.toml: feed.profile = "finnhub": must be one of "massive", '),
        ('[feed]\nsubscribe = "T.*"', 't.toml: feed.subscribe = "T.*": must be a list of non-empty strings, '),
        ("[feed]\nsubscribe = ['a', 1]", "t.toml: feed.subscribe[1] = 1: must be a non-empty string"),
        ('[worker]\nhandler = "Count"', 't.toml: worker.handler = "Count": must be package.module:Class, '),
        ('[worker]\nhandler = "a.class:B"', 't.toml: worker.handler = "a.class:B": must be package.module:Class, '),
        ('[metrics]\naddress = "9570"', 't.toml: metrics.address = "9570": must be host:port, '),
        ('[metrics]\naddress = "a:65536"', 't.toml: metrics.address = "a:65536": must be host:port, '),
        ('[metrics]\naddress = "::1:80"', 't.toml: metrics.address = "::1:80": must be host:port, '),
        ("[worker]\noptions = { a = { b = [99999999999999999999] } }", "t.toml: worker.options.a.b[0] = …: must be "),
        ('[feed]\nprofile = "custom"', "t.toml: feed.custom: missing; with feed.profile = "),
        (
            '[feed.custom]\ntrade_key = "T"\ntrade_values = ["t"]\nsymbol_key = "S"',
            't.toml: feed.custom: must be left out, or feed.profile = "custom" be set',
        ),
        (
            '[feed]\nprofile = "custom"\n[feed.custom]\ntrade_key = "T"\ntrade_values = ["t"]\nsymbol_key = "S"',
            't.toml: feed.url: missing; with feed.profile = "custom" it must be a ws:// or wss:// URL',
        ),
        ('[feed.custom]\ntrade_key = "T"', "t.toml: feed.custom.trade_values: missing; must be a list of one or more "),
        ("[feed.custom]\ntrade_values = []", "t.toml: feed.custom.trade_values = []: must be a list of one or more "),
        (
            "[feed.custom]\nlogin = [{ expect = { a = [] } }]",
            "t.toml: feed.custom.login[0].expect.a = []: must be a string, a whole number, or true/false",
        ),
        (
            "[feed.custom]\nlogin = [{ sned = '' }]",
            "t.toml: feed.custom.login[0].sned: unknown key; did you mean feed.custom.login[0].send?",
        ),
        ("[feed.custom.login]", "t.toml: feed.custom.login = {}: must be a list of tables, written as [[feed.cus"),
    ],
)
def test_what_cannot_be_used_is_named_with_key_value_and_what_is_allowed(text, message):
    assert error_of(text).startswith(message)


@pytest.mark.parametrize(
    "url", ["http://x", "wss://", "x.com/stocks", "wss://x:0", "wss://x:99999", "ws://x/#f", "ws://[x", "ws://a b"]
)
def test_a_url_that_no_websocket_can_have_is_refused(url):
    assert f't.toml: feed.url = "{url}": must be a ws:// or wss:// URL' in error_of(f'[feed]\nurl = "{url}"')


@pytest.mark.parametrize("url", ["wss://me:hunter2@x", "http://me:hunter2@x", "wss://x /?t=hunter2", "ws://x#?hunter2"])
def test_a_password_in_a_refused_url_is_not_shown(url):
    assert "hunter2" not in error_of(f'[feed]\nurl = "{url}"')


@pytest.mark.parametrize("key", ["key", "api_key", "secret", "token"])
def test_a_feed_key_in_the_file_is_told_its_place_and_not_shown(key):
    message = error_of(f'[feed]\n{key} = "hunter2"')
    assert message.startswith(f"t.toml: feed.{key}: unknown key; the provider's key goes into ")
    assert "TRADEBAL_FEED_KEY" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "field", ['Host = "a\\nhunter2"', '"a b" = "hunter2"', 'Upgrade = "hunter2"', "X = ['hunter2']"]
)
def test_the_content_of_a_refused_header_field_is_not_shown(field):
    message = error_of(f"[feed]\nheaders = {{ {field} }}")
    assert message.startswith("t.toml: feed.headers.")
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("[shards]\ncount = ", "t.toml: line 2, column 9: not valid TOML: "),
        ("[shards]\ncount = 1 2\n", "t.toml: line 2, column 11: not valid TOML: "),
        ("[shards\n", "t.toml: line 1, column 8: not valid TOML: "),
        ('a = "\n', "t.toml: line 1, column 6: not valid TOML: "),
        (b"[shards]\n# \xff\n", "t.toml: line 2: not UTF-8 text"),
        ("a = " + "[" * 5000, "t.toml: arrays or tables are nested too deeply"),
        ("a = " + "1" * 5000, "t.toml: not valid TOML: "),
        ("[shards]\ncount = 0x" + "f" * 5000, "t.toml: shards.count = …: must be "),
    ],
)
def test_text_that_is_not_toml_is_told_with_its_place(text, start):
    message = error_of(text)
    # Where the text ends too early, Python versions differ between a place and "end of document".
    assert message.startswith((start, "t.toml: end of document: not valid TOML: "))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, reason in [
        (tmp_path, "is a directory"),
        (tmp_path / "none.toml", "No such file or directory"),
        (tmp_path / "none.toml" / "x", "No such file or directory"),
        (Path("/dev/null/x"), "Not a directory"),
        (tmp_path / ("n" * 300), "File name too long"),
        (Path("a\0b"), "can't be read"),
    ]:
        with pytest.raises(ConfigError, match=reason) as caught:
            config.load(path)
        assert str(path).replace("\0", "�") in caught.value.message


def test_a_file_without_permission_is_named(ordinary_user):
    path = ordinary_user / "t.toml"
    path.touch(0o000)
    with pytest.raises(ConfigError, match=r"t\.toml: can't be read: Permission denied"):
        config.load(path)


def test_the_source_is_remembered_and_does_not_count_in_comparisons(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text("")
    assert config.load(path).source == path
    assert config.load(path) == Config()


def test_an_override_is_checked_like_a_file_and_named_by_its_option():
    changed = config.override(Config(), "shards.count", 3, "--shards")
    assert changed.shards.count == 3
    with pytest.raises(ConfigError, match=r"^--shards: shards\.count = 0: must be a whole number"):
        config.override(Config(), "shards.count", 0, "--shards")
    pinned = config.parse(b"[shards]\npin = { SPY = 6 }", "t.toml")
    with pytest.raises(ConfigError, match=r"^--shards: shards\.pin\.SPY = 6: must be a shard number from 0 to 3"):
        config.override(pinned, "shards.count", 4, "--shards")


def test_a_concealed_dump_shows_no_secret_and_still_loads():
    text = """
        [feed]
        url = "wss://x/y?token=hunter2"
        headers = { Authorization = "hunter2" }
        [worker]
        options = { db_password = "hunter2", list = [{ api_key = "hunter2" }], host = "db" }
    """
    shown = config.dump(config.parse(text.encode(), "t.toml"), conceal=True)
    assert "hunter2" not in shown
    assert 'host = "db"' in shown
    config.parse(shown.encode(), "shown")


def test_the_feed_key_comes_from_the_credential_before_the_environment(tmp_path):
    assert config.feed_key({}) is None
    assert config.feed_key({"TRADEBAL_FEED_KEY": " "}) is None
    both = {"TRADEBAL_FEED_KEY": "from-env\n", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    key = config.feed_key(both)
    assert key is not None
    assert key.reveal() == "from-env"
    (tmp_path / "feed-key").write_text("from-file\n")
    key = config.feed_key(both)
    assert key is not None
    assert key.reveal() == "from-file"


def test_a_secret_does_not_show_itself():
    secret = config.Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert secret == config.Secret("hunter2") != config.Secret("other")


@pytest.mark.parametrize("key", ["hunter2\nhunter2", "hunter2é", "hunter2\0"])
def test_a_feed_key_that_cannot_be_one_is_refused_and_not_shown(tmp_path, key):
    (tmp_path / "feed-key").write_text(key)
    for env in ({"TRADEBAL_FEED_KEY": key}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}):
        with pytest.raises(ConfigError, match="must be one line of printable ASCII") as caught:
            config.feed_key(env)
        assert "hunter2" not in caught.value.message


def test_a_feed_key_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "feed-key").mkdir()
    with pytest.raises(ConfigError, match="feed-key: the feed's key can't be read: Is a directory"):
        config.feed_key({"CREDENTIALS_DIRECTORY": str(tmp_path)})
