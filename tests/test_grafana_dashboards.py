"""The dashboards are what their code says, complete, and have data from a real system in a real Prometheus."""

import contextlib
import json
import math
import re
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.dashboards import EMPTY_UNTIL_LOSS, FOLDER, asked, dashboards, families, metrics, panels, queries
from tests.prometheus import free_port, needs_prometheus, prometheus
from tests.system import KEY, System
from tests.waiting import until

SECONDS = 12
SHARDS = 3


def each_panel():
    return [(name, panel) for name, dashboard in dashboards().items() for panel in panels(dashboard)]


def test_the_committed_json_is_what_the_code_builds():
    pytest.importorskip("grafana_foundation_sdk")
    program = "import json, build; print(json.dumps(build.built()))"
    built = subprocess.run([sys.executable, "-c", program], cwd=FOLDER, capture_output=True, text=True, check=True)
    committed = {path.name: path.read_text() for path in (FOLDER / "dashboards").iterdir()}
    assert json.loads(built.stdout) == committed, "run: python grafana/build.py"


def test_each_panel_has_a_title_a_description_a_unit_and_legends():
    for name, panel in each_panel():
        where = f"{name}: {panel['title']}"
        assert len(panel["description"]) > 20, where
        assert panel["fieldConfig"]["defaults"]["unit"], where
        assert all(target["legendFormat"] for target in panel["targets"]), where


def test_each_query_asks_the_chosen_data_source_about_the_chosen_machines():
    for name, panel in each_panel():
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            selectors = re.findall(r"tradebal_\w+(\{[^}]*\})?", target["expr"])
            assert all('instance=~"$instance"' in selector for selector in selectors), f"{name}: {target['expr']}"


def test_panels_fill_rows_of_24_columns_without_overlap():
    for name, dashboard in dashboards().items():
        taken = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not cells & taken, f"{name}: {panel['title']}"
            assert max(x for x, _ in cells) < 24
            taken |= cells


@contextlib.contextmanager
def simulator(directory):
    """The market open in a few seconds, small enough for any machine."""
    port_file = directory / "port"
    command = [sys.executable, "-m", "tradebal", "simulate", "--session", "open", "--duration", str(SECONDS)]
    options = ["--rate", "60000", "--no-tls", "--port", "0", "--key", KEY, "--buffer", "0", "--port-file", port_file]
    with (directory / "simulate.log").open("wb") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
    try:
        until(port_file.exists, "the simulator to listen")
        yield f"ws://127.0.0.1:{port_file.read_text().strip()}/stocks"
    finally:
        process.terminate()
        process.wait(timeout=30)


@needs_prometheus
def test_every_panel_has_data_and_every_metric_a_panel_when_the_market_opens(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    with (
        simulator(tmp_path) as url,
        prometheus(tmp_path, address) as server,
        System(tmp_path, url, workers=SHARDS, metrics=f'address = "{address}"') as system,
    ):
        system.start("exporter")
        for shard in range(SHARDS):
            system.start("worker", shard)
        # The first scrape sees the start, so that every rate has a beginning.
        until(lambda: server.instant(f'sum(tradebal_up{{unit=~"worker.*"}}) == {SHARDS}'), "workers to be scraped")
        started = time.time()
        system.start("balancer")
        until(lambda: server.instant("tradebal_trades_total > 0"), "trades in Prometheus")
        until(lambda: time.time() > started + SECONDS + 2, "the session's end", timeout=SECONDS + 30)
        ended = time.time()
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            scrape = answer.read().decode()
        empty, lossy = [], []
        for name, panel in each_panel():
            found = [ask(server, target, started, ended) for target in panel["targets"]]
            where = f"{name}: {panel['title']}: {queries(panel)}"
            if panel["description"].startswith(EMPTY_UNTIL_LOSS):
                lossy += [where] if any(found) else []
            elif not all(found) or not any(map(finite, found)):
                empty.append(where)
        unhealthy = [
            (rule["name"], rule["lastError"])
            for group in server.get("rules")["groups"]
            for rule in group["rules"]
            if rule["health"] == "err"
        ]
        annotations = [query["expr"] for made in dashboards().values() for query in made["annotations"]["list"]]
        for expression in annotations:
            server.range(asked(expression, SECONDS), started, ended, 1)
        system.stop_all()
    assert empty == []
    assert lossy == []
    assert unhealthy == []
    shown = set().union(*(metrics(query) for _, panel in each_panel() for query in queries(panel)))
    shown = {re.sub(r"_bucket$", "", metric) for metric in shown}
    ours = {name for name in families(scrape) if name.startswith("tradebal_")}
    assert len(ours) > 40
    assert sorted(ours - shown) == []
    assert sorted(shown - ours) == []


def ask(server, target, started, ended):
    expression = asked(target["expr"], math.ceil(ended - started))
    if target.get("instant"):
        return server.instant(expression, time=ended)
    return server.range(expression, started, ended, 1)


def finite(result):
    values = [value for series in result for _, value in series.get("values") or [series["value"]]]
    return any(math.isfinite(float(value)) for value in values)
