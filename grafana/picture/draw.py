"""Draws docs/images/market-open*.png from a real run: simulator, balancer, workers, exporter and Prometheus.

Needs Debian's packages prometheus and chromium, npm, and the project installed with its test extra. In this folder:

    npm install --legacy-peer-deps && npm run bundle && python draw.py
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from tests.dashboards import asked, dashboards, panels  # noqa: E402
from tests.prometheus import free_port, prometheus  # noqa: E402
from tests.waiting import until  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SECONDS = 20
_PAGE = "<!doctype html><meta charset=utf-8><div id=root></div><script>{data}</script><script src=picture.js></script>"


def main() -> None:
    """Run the open, ask Prometheus what the dashboard asks, and have Chromium draw it."""
    made = dashboards()["market-open.json"]
    with tempfile.TemporaryDirectory() as directory:
        answers, span = _played(Path(directory), made)
    data = f"window.DASHBOARD={json.dumps(made)};window.ANSWERS={json.dumps(answers)};window.RANGE={json.dumps(span)}"
    page = HERE / "out" / "page.html"
    page.write_text(_PAGE.format(data=data.replace("</", "<\\/").replace("NaN", "null")))
    ends = [panel["gridPos"]["y"] for panel in made["panels"] if panel["type"] == "row"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in made["panels"])
    IMAGES.mkdir(exist_ok=True)
    # The first two rows are what someone sees first: for the README.
    for name, end in (("market-open.png", ends[2]), ("market-open-whole.png", bottom)):
        _shoot(page, IMAGES / name, end * 38 + 4)


def _shoot(page: Path, picture: Path, height: int) -> None:
    chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    size = [f"--window-size=1600,{height}", "--virtual-time-budget=8000", f"--screenshot={picture}"]
    subprocess.run([*chromium, *size, page.as_uri()], check=True, stderr=subprocess.DEVNULL)


def _played(directory: Path, made: dict) -> tuple[dict, tuple[float, float]]:
    address = f"127.0.0.1:{free_port()}"
    port_file = directory / "port"
    tradebal = [sys.executable, "-m", "tradebal"]
    options = ["--duration", str(SECONDS), "--no-tls", "--port", "0", "--key", "demo", "--buffer", "0"]
    env = {**os.environ, "TRADEBAL_FEED_KEY": "demo"}
    simulator = subprocess.Popen([*tradebal, "simulate", "--session", "open", *options, "--port-file", port_file])
    try:
        until(port_file.exists, "the simulator")
        config = directory / "tradebal.toml"
        config.write_text(
            f'[feed]\nurl = "ws://127.0.0.1:{port_file.read_text().strip()}/stocks"\n'
            f'[shards]\ncount = 5\ndirectory = "{directory}/run"\n[overflow]\ndirectory = "{directory}/overflow"\n'
            f'[metrics]\naddress = "{address}"\n'
        )
        with prometheus(directory, address) as server:
            started = time.time()
            system = subprocess.Popen([*tradebal, "run", "--config", config], env=env)
            try:
                until(lambda: time.time() > started + SECONDS + 4, "the session's end", timeout=SECONDS + 30)
                ended = time.time()
                found = {panel["id"]: _answers(server, panel, started, ended) for panel in panels(made)}
            finally:
                system.terminate()
                system.wait(timeout=60)
    finally:
        simulator.terminate()
        simulator.wait(timeout=30)
    return found, (started, ended)


def _answers(server: object, panel: dict, started: float, ended: float) -> list[dict]:
    found = []
    for target in panel["targets"]:
        expression = asked(target["expr"], math.ceil(ended - started))
        if target.get("instant"):
            result = server.instant(expression, time=ended)
        else:
            result = server.range(expression, started, ended, 1)
        for series in result:
            points = series.get("values") or [series["value"]]
            labels = series["metric"]
            legend = re.sub(r"{{(\w+)}}", lambda name, labels=labels: labels.get(name[1], ""), target["legendFormat"])
            times, values = zip(*((at, float(value)) for at, value in points), strict=True)
            found.append({"legend": legend, "labels": labels, "times": times, "values": values})
    return found


if __name__ == "__main__":
    main()
