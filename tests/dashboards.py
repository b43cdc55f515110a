"""What a dashboard's JSON asks of Prometheus, as Grafana would ask it."""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "grafana"
EMPTY_UNTIL_LOSS = "Empty until something is lost."
"""How the description of a panel begins that has no data on a good day."""


def dashboards():
    return {path.name: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))}


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(panel):
    return [target["expr"] for target in panel["targets"]]


def asked(expression, seconds):
    """Put in what Grafana puts in: all machines, all shards, steps of a second, a range of `seconds`."""
    values = {"instance": ".+", "shard": ".+", "__rate_interval": "4s", "__range": f"{seconds}s"}
    return re.sub(r"\$(\w+)", lambda name: values[name[1]], expression)


def metrics(expression):
    """Return the names of the metrics that an expression uses."""
    return set(re.findall(r"\btradebal_\w+", expression))


def families(text):
    """Return {metric: type} of a scrape."""
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
