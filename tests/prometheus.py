"""A real Prometheus (Debian's), for tests that need its own word on a rule or a query."""

import contextlib
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.waiting import until

FOLDER = Path(__file__).parent.parent / "grafana" / "prometheus"

needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus") or not shutil.which("promtool"), reason="needs Debian's package prometheus"
)


class Prometheus:
    """One that has started; its HTTP API."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path, **parameters):
        """Return the answer's data; an error of Prometheus fails the test with its text."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def instant(self, query, **parameters):
        return self.get("query", query=query, **parameters)["result"]

    def range(self, query, start, end, step):
        return self.get("query_range", query=query, start=start, end=end, step=step)["result"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def prometheus(directory, target=""):
    """Start Prometheus with our configuration, which then scrapes `target` (host:port)."""
    config = (FOLDER / "prometheus.yml").read_text()
    assert "127.0.0.1:9570" in config
    config = config.replace("127.0.0.1:9570", target or "127.0.0.1:1").replace("rules/*.yml", f"{FOLDER}/rules/*.yml")
    (directory / "prometheus.yml").write_text(config)
    port = free_port()
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/prometheus",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/-/ready"), "Prometheus to be ready")
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(timeout=30)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
