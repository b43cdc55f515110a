"""Writes grafana/dashboards/*.json, which Grafana loads, from the Python that describes them."""

from __future__ import annotations

import json
from pathlib import Path

import market_open
import shards_and_workers
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).parent / "dashboards"


_ANNOTATIONS = {"Disconnects": "{{instance}}: {{reason}}", "Restarts": "{{instance}}: {{unit}} restarted"}


def built() -> dict[str, str]:
    """Return each dashboard's JSON by file name."""
    dashboards = {"market-open.json": market_open.build(), "shards-and-workers.json": shards_and_workers.build()}
    return {name: _text(made) for name, made in dashboards.items()}


def _text(made: dashboard.Dashboard) -> str:
    plain = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    # What the SDK leaves out: links to a panel need its id, and a mark in a graph what it says.
    for number, panel in enumerate(plain["panels"], 1):
        panel["id"] = number
    for query in plain["annotations"]["list"]:
        query["titleFormat"] = _ANNOTATIONS[query["name"]]
    return json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in built().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
