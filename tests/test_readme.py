"""What README.md shows works as it stands there."""

import logging
import re
from pathlib import Path

from tradebal import config
from tradebal.handlers import Context
from tradebal.stream.batch import Batch
from tradebal.stream.gap import Gap

README = Path(__file__).parent.parent.joinpath("README.md").read_text()


def block(language):
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]


def test_its_configuration_is_accepted():
    assert config.parse(block("toml").encode(), "README.md").worker.handler == "volume:Volume"


def test_its_handler_sums_volumes_and_says_what_is_missing(caplog):
    caplog.set_level(logging.INFO)
    module = {}
    exec(block("python"), module)
    handler = module["Volume"](Context(shard=0, shards=1))
    handler.on_trades(Batch(b'{"sym":"A","s":5}\n{"sym":"B","s":1}\n{"sym":"A","s":2}\n', "ndjson", 0))
    handler.on_gap(Gap("overflow", 0, 1, 3))
    handler.on_tick(0.0)
    assert "busiest: [('A', 7), ('B', 1)]" in caplog.text
    assert "gap: reason=overflow trades=3" in caplog.text


def test_every_file_that_it_links_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert Path(__file__).parent.parent.joinpath(target).exists(), target
