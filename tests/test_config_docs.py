"""docs/configuration.md says of every key what its declaration says."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from tradebal import config

DOCS = Path(__file__).parent.parent / "docs" / "configuration.md"


def test_its_tables_are_what_the_declarations_of_the_keys_give():
    script = runpy.run_path(str(DOCS.parent / "build_configuration.py"))
    assert script["page"](DOCS.read_text()) == DOCS.read_text(), "run python docs/build_configuration.py"
    keys = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert keys == [info.path.rpartition(".")[2] for info in config.declared_keys()]


def test_a_declared_table_without_a_section_on_the_page_is_named():
    script = runpy.run_path(str(DOCS.parent / "build_configuration.py"))
    with pytest.raises(SystemExit, match="metrics"):
        script["page"](DOCS.read_text().replace("## [metrics]", "## metrics"))


def test_the_examples_in_the_documentation_load():
    examples = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert examples
    for example in examples:
        config.parse(example.encode(), "docs/configuration.md")


def test_each_default_given_as_toml_reads_back_as_the_default():
    text = {}
    for info in config.declared_keys():
        if info.default:
            table, _, name = info.path.rpartition(".")
            text.setdefault(table, []).append(f"{name} = {info.default}")
    written = "\n".join(f"[{table}]\n" + "\n".join(lines) for table, lines in text.items() if "[]" not in table)
    tomllib.loads(written)
    assert config.parse(written.encode(), "defaults") == config.Config()
