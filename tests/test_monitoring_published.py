"""What a running system publishes: complete from the start, valid for Prometheus, and as docs/metrics.md says."""

import importlib.util
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from tests.system import System
from tests.test_system import Numbered, provider
from tests.waiting import until
from tradebal.monitoring import publish

SCRIPT = Path(__file__).parent.parent / "docs" / "build_metrics.py"

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is missing")


@pytest.fixture(scope="module")
def documentation():
    spec = importlib.util.spec_from_file_location("build_metrics", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up there.
    sys.modules["build_metrics"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["build_metrics"]


def promtool(text):
    return subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)


def scrape(system, accept="text/plain"):
    port = re.search(r"address=127\.0\.0\.1:(\d+)", system.log("exporter-address-127.0.0.1:0"))[1]
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def start_exporter(system):
    system.start("exporter", "--address", "127.0.0.1:0")
    name = "exporter---address-127.0.0.1:0"
    until(lambda: "exporter started" in system.log(name), "the exporter")
    (system.logs / name).rename(system.logs / "exporter-address-127.0.0.1:0")


def names(text):
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"^(tradebal_\w+)", text, re.MULTILINE)}


def test_the_documentation_is_what_the_code_publishes(documentation):
    assert documentation.PAGE.read_text() == documentation.page(), "run python docs/build_metrics.py"


@needs_promtool
def test_every_series_is_there_before_anything_was_connected(tmp_path, documentation):
    documented = {family.name for family in documentation.families()}
    with System(tmp_path, "ws://127.0.0.1:9/stocks") as system:
        system.start_all()
        start_exporter(system)
        until(lambda: system.value("tradebal_disconnects_total", reason="refused") > 0, "a failed try")
        until(lambda: (system.run / "metrics" / "worker-1.prom").exists(), "the workers")
        until(lambda: (system.run / "metrics" / "worker-0.prom").exists(), "the workers")
        text = scrape(system)
        checked = promtool(text)
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
        assert names(text) == documented - {"tradebal_top_symbol_trades"}
        assert 'tradebal_connection_state{state="live"} 0.0\n' in text
        assert 'tradebal_rejects_total{reason="trade too long"} 0.0\n' in text
        assert 'tradebal_shard_unread_age_seconds{shard="1"} 0.0\n' in text


@needs_promtool
def test_what_went_through_is_told_to_the_last_trade(tmp_path, documentation):
    documented = {family.name for family in documentation.families()}
    with provider(Numbered(20_000)) as serving, System(tmp_path, serving.url) as system:
        before = time.time()
        system.start_all()
        start_exporter(system)
        system.wait_for("tradebal_worker_trades_total", 20_000)
        system.wait_for("tradebal_top_symbol_trades", 19_900)
        text = scrape(system)
        checked = promtool(text)
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
        assert names(text) == documented
        families = {family.name: family for family in parse_openmetrics(scrape(system, "application/openmetrics-text"))}
        assert families["tradebal_batch_rate"].type == "histogram"

        def value(name, **labels):
            return publish.value(families.values(), name, **labels)

        assert value("tradebal_trades_total") == value("tradebal_shard_trades_total") == 20_000
        assert value("tradebal_batch_rate_count") == value("tradebal_batch_bytes_count") == 20_000 // 8192
        assert value("tradebal_batch_rate_lowest") <= value("tradebal_batch_rate_last")
        assert value("tradebal_batch_rate_last") <= value("tradebal_batch_rate_highest")
        assert value("tradebal_batch_rate_highest_minute") == value("tradebal_batch_rate_highest")
        assert value("tradebal_messages_total", kind="data") == 400 + value("tradebal_notices_total")
        assert value("tradebal_notices_total") == 3  # connected, authenticated, subscribed
        assert value("tradebal_connected") == value("tradebal_connection_state", state="live") == 1
        assert value("tradebal_connection_state") == 1
        assert value("tradebal_tcp_round_trip_seconds") > 0
        for name in ("connected", "last_data", "last_trade"):
            assert before <= value(f"tradebal_{name}_timestamp_seconds") <= time.time()
        assert value("tradebal_provider_lag_seconds_count") >= 1
        assert value("tradebal_worker_provider_latency_seconds_count") >= 2
        assert value("tradebal_top_symbol_trades") == pytest.approx(20_000, rel=0.01)
        assert value("tradebal_shard_unread_age_seconds") == 0
        assert value("tradebal_up") == 3
        assert value("tradebal_unit_resident_memory_bytes", unit="balancer") > 1 << 20
        assert value("tradebal_build_info", tls="none") == 1
        system.stop_all()
