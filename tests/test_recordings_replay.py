"""Replay: every message of the playback, in its order, at the moment that the playback says."""

import contextlib
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from datetime import date, time
from pathlib import Path

import pytest
import websocket
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebal.market.connection import Manners
from tradebal.market.dialogue import AlpacaDialogue, Dialogue, KrakenDialogue, MassiveDialogue
from tradebal.market.server import Provider
from tradebal.recordings.format import Contents, Header, Kind, Record, Writer
from tradebal.recordings.importers import CSV_HEADER, open_source
from tradebal.recordings.replay import Between, RecordingPlayback, dialogue_of, rule_of
from tradebal.recordings.sift import Sift
from tradebal.router.frames import server_frame
from tradebal.router.interface import EventKind, Rule, Status
from tradebal.router.pure import Router
from tradebal.upstream.profiles import COINBASE, KRAKEN, MASSIVE

DAY = date(2013, 10, 7)
SECOND = 1_000_000_000
NINE_THIRTY = 1_381_152_600 * SECOND
HEADER = Header("massive", "wss://socket.massive.com/stocks", "now")


def trade(number: int, symbol: str = "SPY") -> bytes:
    return b'{"ev":"T","sym":"%s","q":%d}' % (symbol.encode(), number)


def recording(path: Path, times_ns: list[int], header: Header = HEADER) -> Path:
    """One message of one trade for each time, and login and notes in between."""
    with Writer(path, header) as writer:
        writer.write(0, Kind.LOGIN_TEXT, b'[{"ev":"status","status":"connected"}]')
        for number, time_ns in enumerate(times_ns):
            writer.write(time_ns, Kind.TEXT, b"[" + trade(number) + b"]")
            writer.note(time_ns, event="nothing")
    return path


def csv(path: Path, milliseconds: list[int]) -> Path:
    rows = [b"%d,%s,1674100,100,P,0,0" % (ms, [b"SPY", b"IBM", b"BAC"][n % 3]) for n, ms in enumerate(milliseconds)]
    path.write_bytes(b"\n".join([CSV_HEADER, *rows, b""]))
    return path


def messages_of(frames: bytes) -> list[bytes]:
    router = Router(1, None)
    found = []
    rest = memoryview(frames)
    while rest:
        space = router.space()
        count = min(len(space), len(rest))
        space[:count] = rest[:count]
        router.received(count)
        rest = rest[count:]
        while router.process() is Status.EVENT:
            event = router.event()
            assert event.kind is EventKind.MESSAGE
            found.append(event.data)
    return found


def played(playback: RecordingPlayback) -> list[tuple[float, list[bytes]]]:
    chunks = []
    for chunk in playback.chunks():
        block = chunk.render(None, 0)
        messages = messages_of(block.data)
        assert block.frames == len(messages)
        chunks.append((chunk.at, messages))
    return chunks


def numbers(messages: list[bytes]) -> list[int]:
    return [element["q"] for message in messages for element in json.loads(message)]


# Pace


def test_messages_fall_due_at_the_playbacks_own_pace(tmp_path: Path) -> None:
    times = [NINE_THIRTY + offset * SECOND // 1000 for offset in (0, 0, 250, 1500, 60_000)]
    playback = RecordingPlayback(recording(tmp_path / "recording", times), MASSIVE.rule)
    assert playback.paced
    assert [(at, numbers(messages)) for at, messages in played(playback)] == [
        (0.0, [0, 1]),
        (0.25, [2]),
        (1.5, [3]),
        (60.0, [4]),
    ]


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=30).map(sorted), st.sampled_from([0.5, 1.0, 3.0, 1000.0]))
@settings(deadline=None, max_examples=50)
def test_a_faster_pace_divides_the_times_and_keeps_all_in_order(
    tmp_path_factory: pytest.TempPathFactory, offsets: list[int], speed: float
) -> None:
    path = recording(tmp_path_factory.mktemp("pace") / "recording", [NINE_THIRTY + offset for offset in offsets])
    due = {}
    for at, messages in played(RecordingPlayback(path, MASSIVE.rule, speed)):
        due.update(dict.fromkeys(numbers(messages), at))
    assert list(due) == list(range(len(offsets)))
    assert list(due.values()) == sorted(due.values())
    for number, offset in enumerate(offsets):
        exact = (offset - offsets[0]) / SECOND / speed
        assert exact - 0.0011 <= due[number] <= exact + 1e-6


def test_a_clock_that_was_set_back_while_recording_keeps_the_order_and_stops_nothing(tmp_path: Path) -> None:
    times = [NINE_THIRTY + offset * SECOND for offset in (0, 10, 3, 4, 11)]
    chunks = played(RecordingPlayback(recording(tmp_path / "recording", times), MASSIVE.rule))
    assert [(at, numbers(messages)) for at, messages in chunks] == [(0.0, [0]), (10.0, [1, 2, 3]), (11.0, [4])]


def test_at_full_speed_nothing_is_timed(tmp_path: Path) -> None:
    playback = RecordingPlayback(
        recording(tmp_path / "recording", [NINE_THIRTY + n * SECOND for n in range(2000)]), MASSIVE.rule, None
    )
    assert not playback.paced
    chunks = played(playback)
    assert {at for at, _ in chunks} == {0.0}
    assert numbers([message for _, messages in chunks for message in messages]) == list(range(2000))


@pytest.mark.parametrize("per_frame", [1, 7, 128, 1000, 5000])
def test_single_trades_fill_frames_at_full_speed(tmp_path: Path, per_frame: int) -> None:
    path = csv(tmp_path / "t-2013-10-07.csv", [34_200_000 + n // 10 for n in range(3000)])
    chunks = played(RecordingPlayback(path, MASSIVE.rule, None, per_frame))
    sizes = [len(json.loads(message)) for _, messages in chunks for message in messages]
    assert sizes == [per_frame] * (3000 // per_frame) + ([3000 % per_frame] if 3000 % per_frame else [])
    assert numbers([message for _, messages in chunks for message in messages]) == list(range(1, 3001))


def test_at_the_playbacks_pace_single_trades_share_a_frame_only_with_those_due_at_the_same_time(tmp_path: Path) -> None:
    path = csv(tmp_path / "t-2013-10-07.csv", [34_200_000] * 5 + [34_200_001] + [34_200_500] * 2)
    chunks = played(RecordingPlayback(path, MASSIVE.rule, 1.0, 3))
    assert [(at, [numbers([message]) for message in messages]) for at, messages in chunks] == [
        (0.0, [[1, 2, 3], [4, 5]]),
        (0.001, [[6]]),
        (0.5, [[7, 8]]),
    ]


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, [1, 2, 3, 4]),
        (time(9, 30), None, [2, 3, 4]),
        (time(9, 30), time(16), [2, 3]),
        (None, time(9, 30), [1]),
        (time(9, 30, 1), time(15), []),
    ],
)
def test_a_part_of_the_day_is_chosen_by_new_yorks_clocks(
    tmp_path: Path, since: time | None, until: time | None, expected: list[int]
) -> None:
    clocks = [34_199_999, 34_200_000, 57_599_999, 57_600_000]
    path = csv(tmp_path / "t.csv", clocks)
    playback = RecordingPlayback(path, MASSIVE.rule, day=DAY, between=Between(since, until))
    chunks = played(playback)
    assert numbers([message for _, messages in chunks for message in messages]) == expected
    assert not chunks or chunks[0][0] == 0.0


def test_a_part_of_the_day_is_played_once_even_if_the_recording_goes_on_for_days(tmp_path: Path) -> None:
    day = 24 * 3600 * SECOND
    times = [NINE_THIRTY - day // 2, NINE_THIRTY, NINE_THIRTY + SECOND, NINE_THIRTY + day, NINE_THIRTY + 2 * day]
    path = recording(tmp_path / "recording", times)
    for between, expected in (
        (Between(time(9, 30), time(9, 31)), [1, 2]),
        (Between(time(9, 30)), [0]),
        (Between(None, time(9, 31)), [1, 2]),
        (Between(), [0, 1, 2, 3, 4]),
    ):
        chunks = played(RecordingPlayback(path, MASSIVE.rule, between=between))
        assert numbers([message for _, messages in chunks for message in messages]) == expected


# What a trade is


@pytest.mark.parametrize(
    ("rule", "message", "trades"),
    [
        (MASSIVE.rule, b'[{"ev":"T","sym":"A"},{"ev":"Q","sym":"A"},{"ev":"T","sym":"B"}]', 2),
        (COINBASE.rule, b'{"type":"match","product_id":"A-B"}', 1),
        (COINBASE.rule, b'{"type":"ticker","product_id":"A-B"}', 0),
        (KRAKEN.rule, b'{"channel":"trade","data":[{"symbol":"A"},{"symbol":"B"}]}', 2),
        (MASSIVE.rule, b"[" + b",".join(trade(n) for n in range(40_000)) + b"]", 40_000),
        (MASSIVE.rule, b"not JSON", 0),
    ],
)
def test_trades_are_counted_as_the_balancer_counts_them(rule: Rule, message: bytes, trades: int) -> None:
    sift = Sift(rule)
    sift.feed(server_frame(message))
    assert sift.trades == trades
    sift.feed(server_frame(message) * 2)
    assert sift.trades == 3 * trades


def test_a_recording_of_a_custom_feed_says_itself_what_its_trades_are(tmp_path: Path) -> None:
    rule = Rule(b"kind", (b"print",), b"ticker")
    path = recording(tmp_path / "recording", [], Header("custom", "wss://feed.example/x", "now", (), rule))
    with open_source(path) as source:
        assert rule_of(source) == rule


def test_the_provider_plays_the_part_that_the_recording_came_from() -> None:
    massive = dialogue_of("massive", "wss://delayed.massive.com/crypto", Rule(b"ev", (b"XT",), b"pair"))()
    assert isinstance(massive, MassiveDialogue)
    assert massive.paths == ("/crypto",)
    massive.received('{"action":"auth","params":"any"}')
    assert "subscribed to: XT.*" in massive.received('{"action":"subscribe","params":"XT.*"}')[0]
    futures = dialogue_of("massive", "wss://socket.massive.com/futures/cme", MASSIVE.rule)()
    assert futures.paths == ("/futures/cme",)
    alpaca = dialogue_of("alpaca", "wss://stream.data.alpaca.markets/v2/iex", MASSIVE.rule)()
    assert isinstance(alpaca, AlpacaDialogue)
    assert alpaca.paths == ("/v2/iex",)
    assert isinstance(dialogue_of("kraken", "wss://ws.kraken.com/v2", KRAKEN.rule)(), KrakenDialogue)
    custom = dialogue_of("custom", "wss://feed.example/x", MASSIVE.rule)()
    assert type(custom) is Dialogue


def test_damage_in_the_middle_plays_what_comes_before_and_is_kept_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recording(tmp_path / "recording", [NINE_THIRTY, NINE_THIRTY + SECOND])
    with path.open("ab") as file:
        file.write(b"damage\n" * 20)
    playback = RecordingPlayback(path, MASSIVE.rule)
    assert len(played(playback)) == 2
    assert playback.damage is not None
    assert "damaged at byte" in playback.damage.message
    assert "playback ended early" in caplog.text


# To real clients


def massive_login(client: websocket.WebSocket) -> None:
    assert json.loads(client.recv())[0]["status"] == "connected"
    client.send('{"action":"auth","params":"any"}')
    assert json.loads(client.recv())[0]["status"] == "auth_success"
    client.send('{"action":"subscribe","params":"T.*"}')
    assert json.loads(client.recv())[0]["message"] == "subscribed to: T.*"


def test_two_clients_each_get_the_whole_playback_in_order(tmp_path: Path) -> None:
    path = recording(tmp_path / "recording", [NINE_THIRTY + n for n in range(500)])
    with Provider(
        RecordingPlayback(path, MASSIVE.rule, None), dialogue_of("massive", HEADER.url, MASSIVE.rule)
    ) as provider:
        for key in ("one", "two"):
            client = websocket.create_connection(provider.url, timeout=30)
            assert json.loads(client.recv())[0]["status"] == "connected"
            client.send(json.dumps({"action": "auth", "params": key}))
            client.recv()
            client.send('{"action":"subscribe","params":"T.*"}')
            client.recv()
            assert [client.recv().encode() for _ in range(500)] == [b"[" + trade(n) + b"]" for n in range(500)]
            client.shutdown()
    assert provider.report().trades == 1000


def test_a_playback_reaches_the_shards_of_a_router_with_its_symbols_apart_and_its_bytes_kept(tmp_path: Path) -> None:
    symbols = [f"SYM{n}" for n in range(50)]
    expected = [trade(n, symbols[n * 7 % 50]) for n in range(20_000)]
    path = tmp_path / "recording.zst"
    with Writer(path, HEADER) as writer:
        for at in range(0, len(expected), 13):
            writer.write(NINE_THIRTY + at, Kind.TEXT, b"[" + b", ".join(expected[at : at + 13]) + b"]")
    router = Router(4, MASSIVE.rule)
    shards = [bytearray() for _ in range(4)]

    def take() -> None:
        for shard, taken in enumerate(shards):
            with router.pending(shard) as staged:
                taken += staged
                count = len(staged)
            router.sent(shard, count)

    manners = Manners(close_at_end=True)
    with Provider(RecordingPlayback(path, MASSIVE.rule, None), Dialogue, manners=manners) as provider:
        client = websocket.create_connection(provider.url, timeout=30)
        closed = False
        while not closed:
            with router.space() as space:
                count = client.sock.recv_into(space)
            assert count
            router.received(count)
            while (status := router.process()) is not Status.INPUT:
                take()
                if status is Status.EVENT:
                    event = router.event()
                    assert (event.kind, event.code) == (EventKind.CLOSE, 1000)
                    closed = True
            take()
        client.shutdown()
        assert provider.finished.wait(30)
    assert router.counters().trades == provider.report().trades == len(expected)
    lines = [bytes(shard).splitlines() for shard in shards]
    assert sorted(line for shard in lines for line in shard) == sorted(expected)
    found = [{re.search(rb'"sym":"(\w+)"', line)[1].decode() for line in shard} for shard in lines]
    assert sum(map(len, found)) == len(set.union(*found)) == len(symbols)
    for shard, here in zip(lines, found, strict=True):
        assert shard == [line for line in expected if re.search(rb'"sym":"(\w+)"', line)[1].decode() in here]


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start `tradebal replay` and return it with the URL that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tradebal", "replay", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    if not line.startswith("listening: url="):
        raise AssertionError(line + process.communicate()[1])
    return process, line.strip().removeprefix("listening: url=")


def test_the_command_plays_a_csv_to_one_client_over_tls_reports_and_exits(tmp_path: Path) -> None:
    path = csv(tmp_path / "t-2013-10-07.csv", [34_200_000 + n for n in range(1000)])
    ca, report = tmp_path / "ca.pem", tmp_path / "report.json"
    process, url = start(str(path), "--speed", "max", "--once", "--tls", "--ca-out", str(ca), "--report", str(report))
    with process:
        client = websocket.create_connection(url, timeout=30, sslopt={"ca_certs": str(ca)})
        assert isinstance(client.sock, ssl.SSLSocket)
        massive_login(client)
        got = []
        while len(got) < 1000:
            got += json.loads(client.recv())
        assert [element["q"] for element in got] == list(range(1, 1001))
        opcode, data = client.recv_data()
        assert (opcode, data[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1000).to_bytes(2))
        client.shutdown()
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.startswith("sent: trades=1000 frames=8 ")
    assert "playback ended: " in err
    assert json.loads(report.read_text())["trades"] == 1000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stays_after_the_playbacks_end_until_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    process, url = start(str(recording(tmp_path / "recording", [NINE_THIRTY])), "--profile", "plain")
    with process:
        client = websocket.create_connection(url, timeout=30)
        assert client.recv().encode() == b"[" + trade(0) + b"]"
        client.ping("still there?")
        assert client.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"still there?")
        process.send_signal(number)
        assert client.recv_data()[1][:2] == (1001).to_bytes(2)
        client.shutdown()
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.startswith("sent: trades=1 frames=1 ")


def test_the_command_fails_if_the_playback_was_damaged(tmp_path: Path) -> None:
    path = recording(tmp_path / "recording", [NINE_THIRTY])
    with path.open("ab") as file:
        file.write(b"damage\n" * 20)
    process, url = start(str(path), "--profile", "plain", "--once")
    with process:
        client = websocket.create_connection(url, timeout=30)
        client.recv()
        client.recv_data()
        client.shutdown()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"{path}: damaged at byte" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from", "10:00", "--until", "09:30"], "--until must be later"),
        (["--ca-out", "ca.pem"], "--tls and --ca-out go together"),
        (["--speed", "0"], "greater than 0"),
        (["--speed", "nan"], "greater than 0"),
        (["--from", "25:00"], "invalid time of day value: '25:00'"),
        (["--port", "70000"], "0 to 65535"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    path = recording(tmp_path / "recording", [NINE_THIRTY])
    command = [sys.executable, "-m", "tradebal", "replay", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    path = recording(tmp_path / "recording", [NINE_THIRTY])
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        command = [sys.executable, "-m", "tradebal", "replay", str(path), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert str(port) in done.stderr


def test_no_record_is_lost_between_two_formats(tmp_path: Path) -> None:
    source, copy = csv(tmp_path / "t-2013-10-07.csv", list(range(0, 86_400_000, 60_000))), tmp_path / "copy.zst"
    with open_source(source) as playback, Writer(copy, HEADER) as writer:
        written = [Record(message.time_ns, Kind.TEXT, message.data) for message in playback.messages()]
        for record in written:
            writer.write(*record)
    with open_source(copy) as playback:
        assert [(m.time_ns, m.data) for m in playback.messages()] == [(r.time_ns, r.data) for r in written]


def test_a_small_file_that_decompresses_to_gigabytes_is_refused_within_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zst"
    length = 1_000_000_000
    compressor = zstandard.ZstdCompressor().compressobj()
    with path.open("wb") as file:
        file.write(compressor.compress(HEADER.to_line() + b"1 text %d " % length))
        zeros = bytes(1 << 20)
        for _ in range(length >> 20):
            file.write(compressor.compress(zeros))
        file.write(compressor.flush())
    assert path.stat().st_size < 1 << 20
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29)); "
        "from tradebal.recordings.importers import open_source; from pathlib import Path\n"
        "list(open_source(Path(sys.argv[1])).messages())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert f"the record at byte {len(HEADER.to_line())} has {length} bytes, more than --max-message" in done.stderr
    assert "MemoryError" not in done.stderr
    with open_source(path, max_message=1 << 30) as source:
        assert source.profile == "massive"


@pytest.mark.parametrize("size", [16 << 20, 256 << 20])
def test_contents_are_decompressed_in_pieces_of_bounded_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "zeros.zst"
    compressor = zstandard.ZstdCompressor().compressobj()
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(compressor.compress(bytes(1 << 20)))
        file.write(compressor.flush())
    with contextlib.closing(Contents(path)) as contents:
        sizes = [len(chunk) for chunk in contents]
    assert sum(sizes) == size
    assert max(sizes) <= 33 << 20
