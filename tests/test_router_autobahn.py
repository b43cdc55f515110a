"""The router's client side of RFC 6455 is judged by Autobahn's test suite, all cases but compression.

kosoku (PyPI) plays Autobahn's own case files; the original runner needs Python 2.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.autobahn import AGENT, run_all_cases
from tests.conftest import NATIVE

# 12 and 13 are about compression, which we don't offer.
EXCLUDED = ("12.*", "13.*")
SECTIONS = {"1", "2", "3", "4", "5", "6", "7", "9", "10"}
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


# The C core's other variants are held to this one by test_router_properties.
@pytest.mark.parametrize("make", ["python", NATIVE[0]], indirect=True)
@pytest.mark.skipif(importlib.util.find_spec("kosoku") is None, reason="Autobahn's cases: pip install kosoku")
def test_autobahn_finds_no_fault_with_the_client(make, tmp_path):
    arguments = ["-m", "fuzzingserver", "127.0.0.1:0", "-o", str(tmp_path)]
    for pattern in EXCLUDED:
        arguments += ["-x", pattern]
    command = [Path(sys.executable).with_name("kosoku"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            listening = server.stderr.readline()
            assert "ws://" in listening, listening + server.stderr.read()
            count = run_all_cases(listening.split("ws://")[1].strip(), make)
            said = server.stderr.read()
            status = server.wait()
        finally:
            server.kill()
    assert status == 0, said
    cases = json.loads((tmp_path / "index.json").read_text())[AGENT]
    bad = {case: result for case, result in cases.items() if {result["behavior"], result["behaviorClose"]} - GOOD}
    assert not bad
    assert len(cases) == count
    assert {case.split(".")[0] for case in cases} == SECTIONS
