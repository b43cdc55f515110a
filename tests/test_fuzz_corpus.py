"""Every input that fuzzing began with, kept or stumbled over: all routers agree on it, however its bytes are cut."""

from pathlib import Path

import pytest

from tests.fuzz import cases
from tests.fuzz.run import COMMITTED
from tests.fuzz.seeds import SEEDS, seeds

HERE = Path(__file__).parent / "fuzz"


# regressions/ comes into being with the first finding.
DIRECTORIES = [name for name in COMMITTED if name != "regressions" or (HERE / name).exists()]


def inputs(directory):
    found = sorted((HERE / directory).glob("*"))
    assert found, f"no inputs in {directory}"
    return found


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_all_routers_agree_on_the_corpus(makers, directory):
    for path in inputs(directory):
        try:
            cases.agree(makers, path.read_bytes())
        except AssertionError as error:
            raise AssertionError(f"{path}: {error}") from None


def test_the_committed_seeds_are_those_that_seeds_py_writes():
    assert {path.name: path.read_bytes() for path in SEEDS.iterdir()} == dict(seeds())


def test_the_corpus_stays_small():
    files = [path for directory in DIRECTORIES for path in inputs(directory)]
    assert len(files) <= 400
    assert sum(path.stat().st_size for path in files) < 100_000


@pytest.mark.parametrize("name", [f"rule-{number}" for number in range(1, 8)])
def test_usual_trades_of_each_rule_reach_their_shards(make, name):
    drive = cases.Drive(make, cases.read(dict(seeds())[name]))
    drive.result()
    assert drive.router.counters().trades == 2
