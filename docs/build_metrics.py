"""Writes docs/metrics.md from what the units publish: `python docs/build_metrics.py`. A test keeps it current."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tradebal.balancer import fifos
from tradebal.balancer.metrics import BalancerCollector
from tradebal.balancer.outlet import Outlet, Outlets
from tradebal.balancer.overflow import Overflow
from tradebal.balancer.samples import Samples
from tradebal.balancer.stats import StatsLines
from tradebal.balancer.watch import Watch
from tradebal.config import Feed, Secret
from tradebal.monitoring import exporter
from tradebal.monitoring.publish import Publisher
from tradebal.router.interface import Sample
from tradebal.router.pure import Router
from tradebal.stream.marks import MarkWriter, path_of
from tradebal.upstream.link import Link
from tradebal.worker.series import WorkerSeries

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "metrics.md"

_OPEN = {"le", "python", "router", "shard", "symbol", "tls", "unit", "version"}
"""Labels whose values depend on the system; those of the others are listed."""

_SECTIONS = {
    "tradebal_up$": "Exporter",
    "tradebal_unit_": "Every unit",
    "tradebal_worker_": "Workers",
    "tradebal_shard_": "Balancer: shards",
    "tradebal_batch_": "Balancer: each 8192 trades",
    "tradebal_provider_|tradebal_top_": "Balancer: from samples of the trades",
    "tradebal_connect|tradebal_disc|tradebal_upstream_|tradebal_ping_|tradebal_tcp_|tradebal_receive_": (
        "Balancer: connection"
    ),
    "": "Balancer: data",
}

_HEAD = """\
# Metrics

This page is written by `python docs/build_metrics.py` from what the units publish. `tradebal exporter` serves all of
it at `/metrics` (default: <http://127.0.0.1:9570/metrics>), in Prometheus' text format, or as OpenMetrics for who asks
for that. Each process writes its part to a file in the folder `metrics` of `shards.directory` every `metrics.interval`
seconds, so that no HTTP server runs beside the trades; node_exporter's textfile collector can read the same files.

Every series is there from the start, with 0, but those of `tradebal_top_symbol_trades`. A unit that hasn't written for
10 seconds is down: `tradebal_up` says so, and its other figures are gone. Units are `balancer` and `worker-0`,
`worker-1`, …; all series of a worker, a handler's own included, have the label `shard`. Histograms are classic ones:
prometheus-client's text format has no native ones, and its OpenMetrics has them only as a draft of version 2.0.

Counters start again at 0 with their process. Times of trades compare two clocks, the provider's and this machine's;
those of providers that give no time (see `feed.custom.time_key`) are unknown, and their histograms stay empty. Trades
that were reported late are among them, so look at quantiles rather than means.
"""


@dataclass
class Family:
    """A metric as it is documented."""

    name: str
    kind: str
    text: str
    labels: dict[str, list[str]] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What its values count."""
        name = self.name.removesuffix("_total")
        for suffix, unit in (
            ("timestamp_seconds", "s since the epoch"),
            ("start_time_seconds", "s since the epoch"),
            ("_seconds", "s"),
            ("_bytes", "bytes"),
            ("_trades_per_frame", "trades/frame"),
            ("_trades", "trades"),
            ("_info", "–"),
        ):
            if name.endswith(suffix):
                return unit
        return "trades/s" if "_batch_rate" in name else "count" if self.kind != "gauge" else "0 or 1"


def families() -> list[Family]:
    """Return every metric of a system with one shard, as its exporter would serve it."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (pipe,) = fifos.create(place, 1, 65536)
        samples = Samples(b"sym", "t")
        samples.add(Sample(int(1e18 * 4), 0, 0, b'{"sym":"SPY"}'), 1)
        samples.top = lambda _second: [("SPY", 1)]  # type: ignore[method-assign]
        link = Link(Feed(), Secret("none"), None)  # type: ignore[arg-type]
        router = Router(1, link.profile.rule)
        outlet = Outlet(router, pipe, Overflow(1, "ndjson", announce=True), MarkWriter(path_of(place, 0)))
        outlets = Outlets(router, [outlet], drop=True, keeps=False)
        balancer = BalancerCollector(router, link, outlets, StatsLines(print), Watch(), samples, "ndjson")
        Publisher(balancer.register(), place, "balancer").publish()
        registry = CollectorRegistry()
        WorkerSeries(registry, "worker-0", "t")
        Publisher(registry, place, "worker-0", {"shard": "0"}).publish()
        text = exporter.merge(place, ["balancer", "worker-0"])
        outlet.close()
        fifos.remove([pipe])
    return [_family(metric) for metric in text_string_to_metric_families(text)]


def _family(metric: Any) -> Family:
    total = metric.type == "counter"
    family = Family(metric.name + "_total" * total, metric.type, metric.documentation)
    for sample in metric.samples:
        for label, value in sample.labels.items():
            values = family.labels.setdefault(label, [])
            if label not in _OPEN and value not in values:
                values.append(value)
    return family


def used(root: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return where each name is used, itself or by recording rules: (titles of panels, names of alerts)."""
    records: dict[str, str] = {}
    alerts: list[tuple[str, str]] = []
    for path in sorted((root / "grafana" / "prometheus" / "rules").glob("*.yml")):
        for kind, name, body in _rules(path.read_text()):
            if kind == "record":
                records[name] = records.get(name, "") + body
            else:
                alerts.append((name, body))
    panels: list[tuple[str, str]] = []
    for path in sorted((root / "grafana" / "dashboards").glob("*.json")):
        panels += _panels(json.loads(path.read_text()))
    return _names(panels, records), _names(alerts, records)


def _rules(text: str) -> Iterator[tuple[str, str, str]]:
    pieces = re.split(r"^ *- (alert|record): *(\S+)", text, flags=re.MULTILINE)[1:]
    for kind, name, body in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        yield kind, name, body.partition("annotations:")[0]


def _panels(part: Any) -> Iterator[tuple[str, str]]:
    for panel in part.get("panels", ()):
        queries = " ".join(target.get("expr", "") for target in panel.get("targets", ()))
        if queries:
            yield panel.get("title", ""), queries
        yield from _panels(panel)


def _names(users: list[tuple[str, str]], records: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for user, query in users:
        names, new = set(), set(re.findall(r"[a-zA-Z_:][\w:]*", query))
        while new:
            names |= new
            new = {name for known in new for name in re.findall(r"[a-zA-Z_:][\w:]*", records.get(known, ""))} - names
        for name in names:
            places = found.setdefault(re.sub(r"_(bucket|sum|count)$", "", name), [])
            if user not in places:
                places.append(user)
    return found


def page() -> str:
    """Return docs/metrics.md as it should be."""
    panels, alerts = used(ROOT)
    sections: dict[str, list[Family]] = {title: [] for title in _SECTIONS.values()}
    for family in families():
        sections[next(title for prefix, title in _SECTIONS.items() if re.match(prefix, family.name))].append(family)
    parts = [_HEAD]
    for title, members in sections.items():
        parts.append(
            f"\n## {title}\n\n| name | type | unit | labels | meaning | panels | alerts |\n| --- " + "| --- " * 6 + "|"
        )
        for family in members:
            labels = "; ".join(
                f"`{label}`" + (f": {', '.join(values)}" if values else "") for label, values in family.labels.items()
            )
            cells = (
                f"`{family.name}`",
                family.kind,
                family.unit,
                labels or "–",
                family.text,
                ", ".join(panels.get(family.name, ["–"])),
                ", ".join(alerts.get(family.name, ["–"])),
            )
            parts.append("| " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE.relative_to(ROOT)} written", file=sys.stderr)
