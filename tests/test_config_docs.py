"""docs/configuration.md says of every key what its declaration says."""

import re
import tomllib
from pathlib import Path

from tradebal import config

DOCS = Path(__file__).parent.parent / "docs" / "configuration.md"


def documented():
    rows, table = {}, ""
    for line in DOCS.read_text().splitlines():
        if heading := re.fullmatch(r"#+ (\[+)([a-z.]+)\]+", line):
            table = heading[2] + ("[]" if len(heading[1]) > 1 else "")
        elif row := re.match(r"\| `(\w+)` \|", line):
            rows[f"{table}.{row[1]}"] = line
    return rows


def test_each_key_is_documented_with_what_it_allows_its_default_and_its_meaning():
    expected = {}
    for info in config.declared_keys():
        name = info.path.rpartition(".")[2]
        default = f"`{info.default}`" if info.default else "–"
        expected[info.path] = f"| `{name}` | {info.allowed} | {default} | {info.doc} |"
    assert documented() == expected


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
