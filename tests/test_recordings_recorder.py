"""Record: everything that a provider sends, in its order, through reconnects, and never a secret."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.waiting import until
from tradebal.config import Feed, Secret
from tradebal.market.certificate import ThrowAwayAuthority
from tradebal.market.connection import Manners
from tradebal.market.server import Provider
from tradebal.recordings.format import Kind, Reader, Record, RecordingError
from tradebal.recordings.importers import open_source
from tradebal.recordings.recorder import Recorder
from tradebal.recordings.replay import RecordingPlayback, dialogue_of, rule_of

KEY = "k3y-never-to-be-seen"
LOGIN = [
    b'[{"ev":"status","status":"connected","message":"Connected Successfully"}]',
    b'[{"ev":"status","status":"auth_success","message":"authenticated"}]',
    b'[{"ev":"status","status":"success","message":"subscribed to: T.*"}]',
]


def trades(*numbers: int) -> str:
    return "[" + ",".join(f'{{"ev":"T", "sym":"S{n % 7}","p":1.50,"q":{n}}}' for n in numbers) + "]"


def massive_login(connection: ServerConnection) -> None:
    connection.send(LOGIN[0].decode())
    assert json.loads(connection.recv()) == {"action": "auth", "params": KEY}
    connection.send(LOGIN[1].decode())
    assert json.loads(connection.recv())["action"] == "subscribe"
    connection.send(LOGIN[2].decode())


@contextmanager
def provider(*parts: Callable[[ServerConnection], None]) -> Iterator[str]:
    """Serve one part a connection, in turn; the last one for all that come after. Yields the URL."""
    count = iter(range(1_000_000))

    def handle(connection: ServerConnection) -> None:
        # A recorder that has enough says goodbye whenever it likes.
        with suppress(ConnectionClosed):
            parts[min(next(count), len(parts) - 1)](connection)

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/stocks"
        finally:
            server.shutdown()
            thread.join()


def feed(url: str) -> Feed:
    return Feed(url=url)


def contents(path: Path) -> list[Record]:
    with Reader(path) as reader:
        found = list(reader)
        assert reader.truncated == ""
    return found


def of_kind(records: list[Record], *kinds: Kind) -> list[bytes]:
    return [record.data for record in records if record.kind in kinds]


def events(records: list[Record]) -> list[str]:
    return [json.loads(record.data)["event"] for record in records if record.kind is Kind.NOTE]


def stay(connection: ServerConnection) -> None:
    for _ in connection:
        pass


def test_a_message_forges_no_log_line_steers_no_terminal_and_shows_no_part_of_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The key stands across the place where the quote is cut.
    message = '[{"ev":"T","sym":5}\nlevel=error forged\x1b[2J\r\x9b' + "." * 42 + KEY + "]"

    def play(connection: ServerConnection) -> None:
        massive_login(connection)
        connection.send(message)
        until(lambda: recorder.messages, "the message")
        recorder.stop()
        stay(connection)

    with provider(play) as url:
        recorder = Recorder(feed(url), Secret(KEY), tmp_path / "recording")
        recorder.run()
    (line,) = (record.getMessage() for record in caplog.records if "not routable" in record.getMessage())
    assert line.isprintable()
    assert r"}\nlevel=error forged\x1b[2J\r\x9b" in line
    assert KEY[:4] not in line


def test_every_message_is_kept_byte_for_byte_and_the_login_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "recording.zst"
    sent = [trades(*range(n, n + 3)) for n in range(0, 900, 3)]
    strange = ['{"ev" : "T"}', "", "not JSON", '[{"ev":"Q","sym":"A"}]', '{"p":"\u00f8\\n"}', "[" * 2000]

    def play(connection: ServerConnection) -> None:
        massive_login(connection)
        for message in sent + strange:
            connection.send(message)
        connection.send(b"\x00\xff binary")
        connection.send(iter(["[", "{}", "]"]))
        assert connection.ping("alive?").wait(30)
        until(lambda: recorder.messages == len(sent + strange) + 2, "all messages")
        recorder.stop()
        stay(connection)

    with provider(play) as url:
        recorder = Recorder(feed(url), Secret(KEY), path)
        recorder.run()
    records = contents(path)
    assert of_kind(records, Kind.LOGIN_TEXT) == LOGIN
    assert of_kind(records, Kind.TEXT) == [*(message.encode() for message in sent + strange), b"[{}]"]
    assert of_kind(records, Kind.BINARY) == [b"\x00\xff binary"]
    assert events(records)[:2] == ["connected", "live"]
    times = [record.time_ns for record in records if record.kind is not Kind.NOTE]
    assert times == sorted(times)


def test_nothing_is_missing_of_what_came_before_a_clean_end(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    sent = [trades(n) for n in range(5000)]

    def play(connection: ServerConnection) -> None:
        massive_login(connection)
        for message in sent:
            connection.send(message)
        connection.close(1001, "end of day")

    def again(connection: ServerConnection) -> None:
        recorder.stop()
        stay(connection)

    with provider(play, again) as url:
        recorder = Recorder(feed(url), Secret(KEY), path)
        recorder.run()
    records = contents(path)
    assert of_kind(records, Kind.TEXT) == [message.encode() for message in sent]
    assert (recorder.messages, recorder.trades) == (5000, 5000)
    assert json.loads(of_kind(records, Kind.NOTE)[-1]) == {"event": "stopped", "messages": 5000, "trades": 5000}


def test_a_lost_connection_is_made_again_and_the_gap_noted_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "recording"

    def abort(connection: ServerConnection) -> None:
        massive_login(connection)
        connection.send(trades(1))
        connection.send(trades(2))
        connection.close(1011, "restarting")

    def rest(connection: ServerConnection) -> None:
        massive_login(connection)
        connection.send(trades(3))
        until(lambda: recorder.trades == 3, "the third trade")
        recorder.stop()
        stay(connection)

    with provider(abort, rest) as url:
        recorder = Recorder(feed(url), Secret(KEY), path)
        recorder.run()
    records = contents(path)
    assert of_kind(records, Kind.TEXT) == [trades(n).encode() for n in (1, 2, 3)]
    assert of_kind(records, Kind.LOGIN_TEXT) == LOGIN * 2
    assert events(records) == [
        "connected",
        "live",
        "disconnected",
        "connected",
        "gap",
        "live",
        "disconnected",
        "stopped",
    ]
    assert (recorder.connects, recorder.gaps) == (2, 1)
    gap = next(json.loads(record.data) for record in records if b'"gap"' in record.data)
    second, third = (record.time_ns for record in records if record.data in (trades(2).encode(), trades(3).encode()))
    assert second - 50_000_000 <= gap["from_ns"] < gap["until_ns"] <= third + 50_000_000


def test_what_announces_the_end_of_a_connection_is_no_part_of_the_market(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    taken = '[{"ev":"status","status":"max_connections","message":"Maximum number of websocket connections exceeded."}]'

    def thrown_out(connection: ServerConnection) -> None:
        massive_login(connection)
        connection.send(trades(1))
        connection.send(taken)
        stay(connection)

    def rest(connection: ServerConnection) -> None:
        recorder.stop()
        stay(connection)

    with provider(thrown_out, rest) as url:
        recorder = Recorder(feed(url), Secret(KEY), path)
        recorder.run()
    records = contents(path)
    assert of_kind(records, Kind.TEXT) == [trades(1).encode()]
    assert of_kind(records, Kind.LOGIN_TEXT) == [*LOGIN, taken.encode()]


def test_a_key_that_the_provider_repeats_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "recording"

    def refuse(connection: ServerConnection) -> None:
        connection.send(LOGIN[0].decode())
        connection.recv()
        connection.send(f'[{{"ev":"status","status":"auth_failed","message":"no such key: {KEY}"}}]')
        recorder.stop()
        stay(connection)

    with provider(refuse) as url:
        recorder = Recorder(feed(url), Secret(KEY), path)
        recorder.run()
    assert KEY.encode() not in path.read_bytes()


def test_recording_ends_by_itself_when_the_time_is_over(tmp_path: Path) -> None:
    with provider(stay) as url:
        Recorder(feed(url), Secret(KEY), tmp_path / "recording", duration=0.05).run()
    assert events(contents(tmp_path / "recording"))[-1] == "stopped"


def test_recording_ends_by_itself_at_the_given_size(tmp_path: Path) -> None:
    path = tmp_path / "recording"

    def flood(connection: ServerConnection) -> None:
        massive_login(connection)
        while True:
            connection.send(trades(*range(100)))

    with provider(flood) as url:
        recorder = Recorder(feed(url), Secret(KEY), path, max_size=1_000_000)
        recorder.run()
    assert path.stat().st_size >= 1_000_000
    assert len(of_kind(contents(path), Kind.TEXT)) == recorder.messages


def test_appending_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "recording.gz"

    def play(connection: ServerConnection) -> None:
        massive_login(connection)
        connection.send(trades(1))
        until(lambda: recorder.trades == 1, "the trade")
        recorder.stop()
        stay(connection)

    with provider(play) as url:
        recorder = Recorder(feed(url), Secret(KEY), path)
        recorder.run()
        recorder = Recorder(feed(url), Secret(KEY), path, append=True)
        recorder.run()
    records = contents(path)
    assert of_kind(records, Kind.TEXT) == [trades(1).encode()] * 2
    assert events(records).count("started") == 1


@pytest.mark.parametrize("tls", [False, True])
def test_a_record_that_was_replayed_and_recorded_again_holds_the_same_messages(tmp_path: Path, tls: bool) -> None:
    first, second = tmp_path / "first.zst", tmp_path / "second"
    sent = [trades(*range(n, n + n % 5)) for n in range(1, 400)]

    def play(connection: ServerConnection) -> None:
        massive_login(connection)
        for message in sent:
            connection.send(message)
        connection.close()

    def over(connection: ServerConnection) -> None:
        recorder.stop()
        stay(connection)

    with provider(play, over) as url:
        recorder = Recorder(feed(url), Secret(KEY), first)
        recorder.run()
    with open_source(first) as source:
        rule, dialogue = rule_of(source), dialogue_of(source.profile, source.url, rule_of(source))
    authority = ThrowAwayAuthority()
    authority.write(tmp_path / "ca.pem")
    context = authority.server_context() if tls else None
    manners = Manners(close_at_end=True)
    with Provider(RecordingPlayback(first, rule, None), dialogue, tls=context, manners=manners) as market:
        assert market.url.startswith("wss" if tls else "ws:")
        recorder = Recorder(Feed(url=market.url, ca_file=tmp_path / "ca.pem"), Secret(KEY), second)
        stopper = threading.Thread(target=lambda: (market.finished.wait(30), recorder.stop()))
        stopper.start()
        recorder.run()
        stopper.join()
    # The provider plays to whoever comes, so what the recorder has after coming back once more is the same again.
    messages = [of_kind(contents(path), Kind.TEXT)[: len(sent)] for path in (first, second)]
    assert messages[0] == messages[1] == [message.encode() for message in sent]


def test_a_file_that_can_take_no_more_ends_the_recording_with_its_reason(tmp_path: Path) -> None:
    def flood(connection: ServerConnection) -> None:
        massive_login(connection)
        while True:
            connection.send(trades(*range(1000)))

    program = f"""
import resource, sys
from tradebal.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.exit(main(["record", {str(tmp_path / "recording")!r}, "--config", {str(tmp_path / "feed.toml")!r}]))
"""
    with provider(flood) as url:
        (tmp_path / "feed.toml").write_text(f'[feed]\nurl = "{url}"\n')
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert f"tradebal: error: {tmp_path / 'recording'}: File too large; what was written before is kept" in done.stderr
    with Reader(tmp_path / "recording") as reader:
        assert sum(record.kind is Kind.TEXT for record in reader) > 2


def environment() -> dict[str, str]:
    return os.environ | {"TRADEBAL_FEED_KEY": KEY}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "recording.gz"
    closed = threading.Event()

    def play(connection: ServerConnection) -> None:
        massive_login(connection)
        connection.send(trades(1, 2, 3))
        stay(connection)
        assert connection.protocol.close_code == 1000
        closed.set()

    with provider(play) as url:
        (tmp_path / "feed.toml").write_text(f'[feed]\nurl = "{url}"\n')
        with subprocess.Popen(
            [sys.executable, "-m", "tradebal", "record", str(path), "--config", str(tmp_path / "feed.toml")],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            seen = ""
            while not re.search(r"trades=3 .*gaps=0", seen):
                seen = process.stderr.readline()
                assert seen
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        assert closed.wait(30)
    assert process.returncode == 0, err
    assert out.startswith(f"recorded: file={path} messages=1 trades=3 ")
    assert KEY not in out + err
    assert of_kind(contents(path), Kind.TEXT) == [trades(1, 2, 3).encode()]
    assert gzip.decompress(path.read_bytes())


def test_a_killed_recorder_loses_no_message_older_than_a_second(tmp_path: Path) -> None:
    path = tmp_path / "recording.zst"

    def play(connection: ServerConnection) -> None:
        massive_login(connection)
        connection.send(trades(1))
        stay(connection)

    with provider(play) as url:
        (tmp_path / "feed.toml").write_text(f'[feed]\nurl = "{url}"\n')
        with subprocess.Popen(
            [sys.executable, "-m", "tradebal", "record", str(path), "--config", str(tmp_path / "feed.toml")],
            env=environment(), stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            until(lambda: path.exists() and trades(1).encode() in texts_so_far(path), "the trade in the file")
            process.kill()
    with Reader(path) as reader:
        assert of_kind(list(reader), Kind.TEXT) == [trades(1).encode()]
        assert reader.truncated


def texts_so_far(path: Path) -> list[bytes]:
    try:
        with Reader(path) as reader:
            return of_kind(list(reader), Kind.TEXT)
    except RecordingError:
        # The file was made, but its header is not there yet.
        return []


def test_no_login_at_all_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "feed.toml").write_text('[feed]\nurl = "ws://127.0.0.1:1/stocks"\n')
    command = [sys.executable, "-m", "tradebal", "record", str(tmp_path / "recording"), "--duration", "0.1s"]
    done = subprocess.run(
        [*command, "--config", str(tmp_path / "feed.toml")],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "connects=0" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--duration", "0"], "must be a time such as"),
        (["--duration", "1 day"], "must be a time such as"),
        (["--max-size", "10GB"], "must be a size such as"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    command = [sys.executable, "-m", "tradebal", "record", str(tmp_path / "recording"), *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_an_existing_file_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "recording").write_text("mine")
    with pytest.raises(RecordingError, match="exists already"):
        Recorder(feed("ws://127.0.0.1:1/stocks"), Secret(KEY), tmp_path / "recording")
