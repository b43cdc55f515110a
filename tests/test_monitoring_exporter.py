"""The exporter: one address for all units, whatever lies in the directory and whoever connects."""

import contextlib
import http.client
import math
import os
import re
import signal
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import until
from tests.workers import Process
from tradebal.config import Config, Shards
from tradebal.config import Metrics as MetricsConfig
from tradebal.errors import UserError
from tradebal.monitoring import exporter
from tradebal.monitoring.exporter import Exporter, merge
from tradebal.monitoring.publish import STALE_AFTER, Publisher
from tradebal.systemd.notify import Notifier


def publish(directory, unit, trades=1.0, **labels):
    registry = CollectorRegistry()
    Counter("tradebal_things", 'Things \\ with "quotes" and\nlines.', registry=registry).inc(trades)
    Histogram("tradebal_took_seconds", "Time.", registry=registry, buckets=(0.1, 1)).observe(0.5)
    Gauge("tradebal_odd", "Odd.", ["name"], registry=registry).labels('a"b\\c\nd}{ é\x85').set(float("nan"))
    Publisher(registry, directory, unit, labels).publish()


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def config(tmp_path):
    shards = Shards(count=2, directory=tmp_path)
    return Config(shards=shards, metrics=MetricsConfig(address="127.0.0.1:0"))


@pytest.fixture
def served(config):
    """An exporter that answers, in a thread of this process."""
    it = Exporter(config)
    stop = threading.Event()
    thread = threading.Thread(target=it.serve, args=(stop.is_set, Notifier()))
    thread.start()
    yield it
    stop.set()
    thread.join()
    it.close()
    until(lambda: not [t for t in threading.enumerate() if "process_request_thread" in t.name], "the requests' end")


def ask(served, path="/metrics", method="GET", **headers):
    host, _, port = served.address.rpartition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()


def test_all_units_are_merged_into_one_valid_text(tmp_path):
    publish(tmp_path, "balancer", 10)
    publish(tmp_path, "worker-0", 4, shard="0")
    publish(tmp_path, "worker-1", 6, shard="1")
    text = merge(tmp_path, ["balancer", "worker-0", "worker-1"])
    found = samples(text)
    assert found["tradebal_things_total", ()] == 10
    assert found["tradebal_things_total", (("shard", "0"),)] == 4
    assert found["tradebal_things_total", (("shard", "1"),)] == 6
    assert found["tradebal_took_seconds_bucket", (("le", "1.0"), ("shard", "1"))] == 1
    assert found["tradebal_up", (("unit", "worker-1"),)] == 1
    types = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(types) == len(set(types))


def test_one_units_text_passes_unchanged(tmp_path):
    publish(tmp_path, "balancer", 10)
    own = (tmp_path / "balancer.prom").read_text()
    assert merge(tmp_path, ["balancer"]).endswith(own)


def test_unit_that_writes_no_more_is_down_and_its_figures_are_gone(tmp_path):
    publish(tmp_path, "balancer", 10)
    publish(tmp_path, "worker-0", 4, shard="0")
    age(tmp_path / "balancer.prom", STALE_AFTER + 1)
    age(tmp_path / "worker-0.prom", STALE_AFTER - 5)
    found = samples(merge(tmp_path, ["balancer", "worker-0", "worker-1"]))
    assert found["tradebal_up", (("unit", "balancer"),)] == 0
    assert found["tradebal_up", (("unit", "worker-0"),)] == 1
    assert found["tradebal_up", (("unit", "worker-1"),)] == 0
    assert ("tradebal_things_total", ()) not in found
    assert found["tradebal_things_total", (("shard", "0"),)] == 4


def test_unit_that_is_not_configured_counts_while_it_is_up(tmp_path):
    publish(tmp_path, "worker-9", 4, shard="9")
    assert ("tradebal_up", (("unit", "worker-9"),)) in samples(merge(tmp_path, ["balancer"]))
    age(tmp_path / "worker-9.prom", 60)
    assert ("tradebal_up", (("unit", "worker-9"),)) not in samples(merge(tmp_path, ["balancer"]))


def test_series_that_two_units_claim_appears_once(tmp_path):
    publish(tmp_path, "balancer", 10)
    publish(tmp_path, "stray", 4)
    text = merge(tmp_path, ["balancer"])
    assert text.count("\ntradebal_things_total ") == 1
    assert samples(text)["tradebal_things_total", ()] == 10


def test_openmetrics_has_the_same_series_and_values(tmp_path):
    publish(tmp_path, "balancer", 10)
    publish(tmp_path, "worker-0", 4, shard="0")
    (tmp_path / "foreign.prom").write_text(
        '# HELP jobs Not named as counters should be, \\\\ and "quoted".\n# TYPE jobs counter\njobs 3 1600000000000\n'
        "# TYPE tradebal_things gauge\ntradebal_things 1\nplain 7\n"
    )
    expected = ["balancer", "worker-0"]
    text = merge(tmp_path, expected, openmetrics=True)
    families = {family.name: family for family in parse_openmetrics(text)}
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families.values()
        for sample in family.samples
    }
    plain = samples(merge(tmp_path, expected))
    # A gauge by a counter's name without _total can't stand beside it.
    del plain["tradebal_things", ()]
    plain["jobs", ()] = plain.pop(("jobs_total", ()))  # prometheus-client adds what the counter's name lacks
    assert found.keys() == plain.keys()
    assert all(found[series] == plain[series] or math.isnan(plain[series]) for series in plain)
    assert families["tradebal_things"].type == "counter"
    assert families["jobs"].type == "unknown"
    assert families["jobs"].documentation == 'Not named as counters should be, \\ and "quoted".'


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=2.0.0", False),
        ("text/plain;q=0.9, application/openmetrics-text;version=1.0.0;q=0.5", False),
        ("application/openmetrics-text;q=0,*/*", False),
        ("application/openmetrics-text;q=nonsense,;;=,text/plain", False),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;"
            "version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,"
            "*/*;q=0.1",
            True,
        ),
    ],
)
def test_the_format_is_what_the_client_prefers(served, accept, openmetrics):
    _, headers, text = ask(served, Accept=accept)
    assert headers["Content-Type"].startswith(
        "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain"
    )
    assert text.endswith("# EOF\n") == openmetrics


def test_ready_is_said_once_every_configured_unit_is_up(served, tmp_path):
    for unit in ("balancer", "worker-0"):
        publish(tmp_path / "metrics", unit, shard=unit)
    assert ask(served, "/-/ready")[::2] == (503, "not ready: worker-1\n")
    publish(tmp_path / "metrics", "worker-1", shard="1")
    assert ask(served, "/-/ready")[::2] == (200, "ready\n")


def test_units_that_disagree_on_a_metrics_type_do_not_break_it(tmp_path):
    (tmp_path / "a.prom").write_text("# TYPE x gauge\nx 1\n")
    (tmp_path / "b.prom").write_text('# TYPE x untyped\nx{y="1"} 2\nz 3\n')
    found = samples(merge(tmp_path, []))
    assert found["x", ()] == 1
    assert ("x", (("y", "1"),)) not in found
    assert found["z", ()] == 3


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_half_written_or_damaged_file_never_breaks_the_rest(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("metrics")
    publish(directory, "balancer", 10)
    publish(directory, "worker-0", 4, shard="0")
    path = directory / "worker-0.prom"
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    else:
        at = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:at] + data.draw(st.binary(max_size=6)) + whole[at:] + b"\n")
    text = merge(directory, ["balancer", "worker-0"])
    found = samples(text)
    assert found["tradebal_things_total", ()] == 10
    assert found["tradebal_up", (("unit", "balancer"),)] == 1
    # A line feed inside a line, whole otherwise, would be two samples to Prometheus.
    assert all(re.match(r"#|[a-zA-Z_:][^ {]*(\{.*\})? \S+( -?\d+)?$", line) for line in text.split("\n")[:-1])


def test_metrics_health_and_page_are_served(served, tmp_path):
    publish(tmp_path / "metrics", "balancer", 10)
    publish(tmp_path / "metrics", "<b>", 10)
    status, headers, text = ask(served)
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'tradebal_up{unit="balancer"} 1\n' in text
    assert 'tradebal_up{unit="worker-1"} 0\n' in text
    assert ask(served, "/metrics?x=1")[2] == text
    assert ask(served, "/-/healthy")[::2] == (200, "healthy\n")
    status, headers, page = ask(served, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<td>balancer<td>up<td>wrote 0 s ago" in page
    assert "<td>worker-0<td>down<td>never wrote" in page
    assert "<b>" not in page
    assert ask(served, "/etc/passwd")[0] == 404


def test_head_has_the_headers_only(served):
    status, headers, text = ask(served, method="HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) == len(ask(served)[2])
    assert headers["Server"] == "tradebal"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_whatever_would_change_something_is_refused(served, method):
    status, headers, _ = ask(served, method=method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_garbage_is_answered_or_dropped_and_the_next_client_is_served(served):
    host, _, port = served.address.rpartition(":")
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 70_000 + b"\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(65536):
                    pass
    assert ask(served)[0] == 200


def test_many_slow_clients_keep_nobody_else_out(served):
    host, _, port = served.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        slow = []
        for _ in range(3 * exporter._CLIENTS):
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            with contextlib.suppress(ConnectionError):
                client.sendall(b"GET /metrics HTTP/1.0\r\nX: ")
            slow.append(client)

        def answered():
            # While the crowd's threads end, a newcomer may be turned away.
            with contextlib.suppress(ConnectionError, http.client.BadStatusLine):
                return ask(served)[0] == 200

        until(answered, "an answer", timeout=exporter._CLIENT_TIMEOUT)
        assert len([t for t in threading.enumerate() if "process_request_thread" in t.name]) <= 2 * exporter._CLIENTS
        with contextlib.suppress(ConnectionResetError):
            assert slow[0].recv(1) == b""


def test_client_that_trickles_is_ended_when_its_time_is_up(config, monkeypatch):
    monkeypatch.setattr(exporter, "_CLIENT_TIMEOUT", 0.3)
    it = Exporter(config)
    done = threading.Event()
    thread = threading.Thread(target=it.serve, args=(done.is_set, Notifier()))
    thread.start()
    try:
        host, _, port = it.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=0.02) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\nX: ")

            def ended():
                try:
                    client.sendall(b"y")
                    return client.recv(1) == b""
                except TimeoutError:
                    return False
                except OSError:
                    return True

            until(ended, "the exporter to end it")
    finally:
        done.set()
        thread.join()
        it.close()
    until(lambda: not [t for t in threading.enumerate() if "process_request_thread" in t.name], "the requests' end")


def test_taken_port_is_a_clear_error_with_its_own_exit_status(config):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = Config(shards=config.shards, metrics=MetricsConfig(address=f"127.0.0.1:{port}"))
        with pytest.raises(UserError, match=f"another process listens on 127.0.0.1:{port}") as caught:
            Exporter(taken)
    assert caught.value.code == 3
    assert "ss -ltnp" in caught.value.hint


@pytest.mark.parametrize("address", ["192.0.2.1:9570", "name.invalid:9570"])
def test_address_of_another_machine_is_a_clear_error(config, address):
    with pytest.raises(UserError, match=r"\[metrics\] address"):
        Exporter(Config(shards=config.shards, metrics=MetricsConfig(address=address)))


def test_command_serves_and_stops_on_sigterm(tmp_path):
    file = tmp_path / "tradebal.toml"
    file.write_text(f"[shards]\ndirectory = '{tmp_path}'\n")
    process = Process(["exporter", "--config", str(file), "--address", "127.0.0.1:0"], tmp_path, tmp_path / "log", {})
    try:
        process.says("exporter started: address=127.0.0.1:")
        port = int(re.search(r"address=127\.0\.0\.1:(\d+)", process.log())[1])
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("GET", "/metrics")
            assert b'tradebal_up{unit="worker-6"} 0' in connection.getresponse().read()
        process.send(signal.SIGTERM)
        assert process.ends() == 0
        assert "Traceback" not in process.log()
    finally:
        process.kill()
