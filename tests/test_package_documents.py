"""The default configuration and the manual pages say what the program does."""

import re
import subprocess
import sys

import pytest

from tests.packages import SOURCE
from tradebal import cli, config
from tradebal.config.sample import sample


@pytest.fixture(scope="module")
def default_file():
    return sample(system=True)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, SOURCE / "packaging/make_manual.py", directory], check=True)
    return {path.name: path for path in [*directory.iterdir(), *(SOURCE / "packaging/man").iterdir()]}


def test_the_default_configuration_sets_nothing(default_file):
    assert config.parse(default_file.encode(), "default") == config.Config()


def test_the_default_configuration_explains_each_key_once(default_file):
    shown = re.sub(r"\n# ", " ", default_file.replace("`", ""))
    for key in config.declared_keys():
        name = key.path.rpartition(".")[2]
        meaning = f"{key.doc} Must be {key.allowed}.".replace("`", "")
        assert len(re.findall(rf"{re.escape(meaning)}\n#{name} = ", shown)) == 1, key.path


def test_each_line_of_the_default_configuration_can_be_uncommented(default_file):
    lines = [
        line.removeprefix("#") if re.match(r"#(\w+ = |\[)", line) else line
        for line in default_file.replace('#profile = "massive"', 'profile = "custom"').splitlines()
    ]
    changed = config.parse("\n".join(lines).encode(), "uncommented")
    assert changed.shards == config.Shards()
    assert changed.feed.custom.login[0].send


def test_the_manual_has_each_command_and_each_key(pages):
    manual = pages["tradebal.1"].read_text()
    assert [name for name in cli.COMMANDS if f"\n.SS {name}\n" not in manual] == []
    keys = pages["tradebal.toml.5"].read_text().replace(r"\-", "-")
    missing = [key.path for key in config.declared_keys() if f"\n\\fB{key.path.rpartition('.')[2]}\\fR\n" not in keys]
    assert missing == []


@pytest.mark.parametrize("page", ["tradebal.1", "tradebal.toml.5", "tradebal-balancer.service.8"])
def test_the_manual_page_gives_no_warning(pages, page):
    try:
        man = subprocess.run(
            ["man", "--warnings", "--local-file", "-Tutf8", "-Z", pages[page]],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
        )
    except FileNotFoundError:
        pytest.skip("there is no man here")
    assert (man.returncode, man.stderr) == (0, "")
