"""The whole product as its users run it: real processes, real FIFOs, and a provider to connect to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.waiting import until
from tradebal.monitoring import publish

KEY = "the-feed-key-that-nobody-may-see"


class System:
    """A balancer and its workers in a directory of their own; `logs` holds what each process wrote.

    Keyword arguments are further lines for the configuration's tables: overflow='limit = "1MiB"'.
    """

    def __init__(self, directory: Path, url: str, *, workers: int = 2, **settings: str):
        self.directory = directory
        self.run = directory / "run"
        self.overflow = directory / "overflow"
        self.reports = directory / "reports"
        self.logs = directory / "logs"
        self.reports.mkdir()
        self.logs.mkdir()
        self.workers = workers
        self.config = directory / "tradebal.toml"
        tables = {
            "feed": f'url = "{url}"',
            "shards": f'count = {workers}\ndirectory = "{self.run}"\npipe_size = "64KiB"',
            "overflow": f'directory = "{self.overflow}"',
            "worker": f'handler = "tradebal.handlers.audit:Audit"\noptions = {{ report_directory = "{self.reports}" }}',
            "metrics": "interval = 0.1",
        }
        self.config.write_text(
            "".join(f"[{table}]\n{keys}\n{settings.get(table, '')}\n" for table, keys in tables.items())
        )
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()

    def start(self, *arguments: str | int) -> subprocess.Popen[bytes]:
        """Start one command with this system's configuration; its output goes to logs/<arguments>."""
        name = "-".join(map(str, arguments))
        command = [sys.executable, "-X", "dev", "-W", "ignore", "-m", "tradebal", *map(str, arguments)]
        with (self.logs / name).open("ab") as log:
            process = subprocess.Popen(
                [*command, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TRADEBAL_FEED_KEY": KEY},
            )
        self.processes[name] = process
        return process

    def start_all(self) -> None:
        self.start("balancer")
        for shard in range(self.workers):
            self.start("worker", shard)

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """Stop one process and return its exit status."""
        process = self.processes[name]
        process.send_signal(number)
        return process.wait(timeout=30)

    def stop_all(self) -> None:
        """Stop in order, as `tradebal run` does; every process must end well."""
        assert self.stop("balancer") == 0, self.log("balancer")
        for shard in range(self.workers):
            assert self.stop(f"worker-{shard}") == 0, self.log(f"worker-{shard}")

    def log(self, name: str) -> str:
        return (self.logs / name).read_text()

    def value(self, name: str, **labels: str) -> float:
        """One figure, summed over all units and labels that aren't named."""
        return sum(publish.value(unit, name, **labels) for unit in publish.read(self.run / "metrics").values())

    def wait_for(self, name: str, at_least: float, *, timeout: float = 30.0, **labels: str) -> None:
        until(lambda: self.value(name, **labels) >= at_least, f"{name}{labels} to reach {at_least}", timeout)

    def audit(self, shard: int) -> dict:
        return json.loads((self.reports / f"audit-{shard}.json").read_bytes())

    def audits(self) -> list[dict]:
        return [self.audit(shard) for shard in range(self.workers)]
