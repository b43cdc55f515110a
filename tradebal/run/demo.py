"""The whole product against a simulated market open, with a proof at the end that nothing was lost."""

from __future__ import annotations

import bisect
import csv
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tradebal.config import Config, Feed, Metrics, Overflow, Shards, Worker
from tradebal.errors import UserError
from tradebal.monitoring import figures
from tradebal.monitoring.view import View
from tradebal.run.processes import units, written
from tradebal.run.supervisor import Supervisor, Unit

KEY = "demo"
"""What the simulated provider takes for a key; it is no secret."""

_REFRESH = 0.25
_START_TIMEOUT = 30.0
_CATCH_UP_TIMEOUT = 60.0


@dataclass(frozen=True)
class Outcome:
    """What was sent, and what became of it."""

    sent: int
    received_bytes: int
    routed: int
    handled: int
    disordered: int
    """Trades that came twice or out of order."""
    highest: float
    """Highest rate of 8192 trades, per second."""
    latencies: tuple[float, float, float]
    """Seconds from the provider's send to the handler: median, 99th percentile, and longest."""
    seconds: float

    @property
    def lost(self) -> int:
        """Trades sent and not handled."""
        return self.sent - self.handled

    @property
    def good(self) -> bool:
        """Whether every trade was handled once and in order."""
        return self.sent > 0 and self.lost == 0 and self.disordered == 0

    def summary(self) -> str:
        """Give the figures, one a line."""
        median, late, longest = (f"{latency * 1000:.2f} ms" for latency in self.latencies)
        lines = {
            "sent": f"{self.sent:,}",
            "received": f"{self.received_bytes:,} bytes",
            "routed": f"{self.routed:,}",
            "handled": f"{self.handled:,}",
            "lost": f"{self.lost:,}",
            "twice or out of order": f"{self.disordered:,}",
            "highest rate of 8192": f"{self.highest:,.0f} trades/s",
            "provider to handler": f"p50 {median}, p99 {late}, max {longest}",
        }
        return "\n".join(f"{name + ':':<23}{text}" for name, text in lines.items())


class Demo:
    """Simulator, balancer, workers and exporter as processes of their own, in a directory of their own."""

    def __init__(self, directory: Path, *, workers: int, duration: float, seed: int, tls: bool) -> None:
        """Use `directory`, which exists and is private; `duration` in seconds is the session's."""
        self._directory = directory
        self._workers = workers
        self._simulate = ["simulate", "--session", "open", "--duration", str(duration), "--seed", str(seed)]
        self._tls = tls
        self._port_file = directory / "port"
        self._report_file = directory / "sent.json"
        self._sent_log = directory / "sent.csv"
        self._ca_file = directory / "ca.pem"
        self._run_directory = directory / "run"
        self.log = directory / "demo.log"
        """What the processes wrote."""
        self.metrics_url = ""

    def play(self, view: View) -> Outcome:
        """Run it all, showing it in `view`; UserError if a part of it doesn't start or ends too early."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            provider = Unit("simulate", self._provider_command())
            with Supervisor([provider], stdout=log, stderr=log) as simulator:
                port = self._wait_for_port(simulator)
                config = self._configuration(port)
                env = {**os.environ, "TRADEBAL_FEED_KEY": KEY}
                with (
                    written(config) as file,
                    Supervisor(units(self._workers, file), env=env, stdout=log, stderr=log) as system,
                ):
                    last = self._watch(view, system, config)
                    system.stop()
                    status = system.wait()
                simulator.stop()
                simulator.wait()
        if status != 0:
            raise self._failed("a part of it did not end well")
        return self._outcome(last, time.monotonic() - began)

    def _provider_command(self) -> list[str]:
        files = ["--port-file", self._port_file, "--report", self._report_file, "--sent-log", self._sent_log]
        tls = ["--tls", "--ca-out", str(self._ca_file)] if self._tls else ["--no-tls"]
        options = ["--port", "0", "--key", KEY, "--buffer", "0"]
        return [sys.executable, "-m", "tradebal", *self._simulate, *options, *tls, *map(str, files)]

    def _wait_for_port(self, simulator: Supervisor) -> int:
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._port_file.exists():
            if simulator.wait(0.05) is not None or time.monotonic() > deadline:
                raise self._failed("the simulated provider did not start")
        return int(self._port_file.read_text())

    def _configuration(self, port: int) -> Config:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            metrics_port = probe.getsockname()[1]
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        return Config(
            feed=Feed(
                url=f"{'wss' if self._tls else 'ws'}://127.0.0.1:{port}/stocks",
                ca_file=self._ca_file if self._tls else None,
            ),
            shards=Shards(count=self._workers, directory=self._run_directory),
            overflow=Overflow(directory=self._directory / "overflow"),
            worker=Worker(handler="tradebal.handlers.audit:Audit", options={"report_directory": str(self._directory)}),
            metrics=Metrics(address=f"127.0.0.1:{metrics_port}", interval=_REFRESH),
        )

    def _watch(self, view: View, system: Supervisor, config: Config) -> figures.Figures:
        """Show figures until the provider has sent all and the handlers have had it; returns the last ones."""
        before: figures.Figures | None = None
        began = time.monotonic()
        deadline = float("inf")
        sent: int | None = None
        while True:
            now = figures.read(config.metrics_directory)
            if now is not None and (before is None or now.at > before.at):
                view.show(time.monotonic() - began, now, figures.rates(before, now))
                before = now
            if sent is None and self._report_file.exists():
                sent = json.loads(self._report_file.read_text())["trades"]
                deadline = time.monotonic() + _CATCH_UP_TIMEOUT
            if before is not None and sent is not None and (before.handled >= sent or time.monotonic() > deadline):
                return before
            if system.wait(_REFRESH / 5) is not None:
                raise self._failed("a part of it ended too early")

    def _outcome(self, last: figures.Figures, seconds: float) -> Outcome:
        audits = [json.loads((self._directory / f"audit-{n}.json").read_bytes()) for n in range(self._workers)]
        final = figures.read(self._run_directory / "metrics") or last
        return Outcome(
            sent=json.loads(self._report_file.read_text())["trades"],
            received_bytes=final.received_bytes,
            routed=final.routed,
            handled=sum(audit["trades"] for audit in audits),
            disordered=sum(audit["disordered"] + audit["unnumbered"] for audit in audits),
            highest=final.highest,
            latencies=self._latencies([pair for audit in audits for pair in audit["seen"]]),
            seconds=seconds,
        )

    def _latencies(self, seen: Sequence[Sequence[int]]) -> tuple[float, float, float]:
        """Join when trades were sent with when a handler had them; both are CLOCK_MONOTONIC of this machine."""
        with self._sent_log.open(newline="") as file:
            blocks = [(int(row["first"]), int(row["monotonic_ns"])) for row in csv.DictReader(file)]
        firsts = [first for first, _ in blocks]
        waits = sorted(at - blocks[bisect.bisect_right(firsts, number) - 1][1] for number, at in seen)
        if not waits:
            return 0.0, 0.0, 0.0
        return waits[len(waits) // 2] / 1e9, waits[len(waits) * 99 // 100] / 1e9, waits[-1] / 1e9

    def _failed(self, what: str) -> UserError:
        tail = self.log.read_text(errors="replace").splitlines()[-5:]
        return UserError(f"demo: {what}", hint="the last lines of its processes were:\n  " + "\n  ".join(tail))
