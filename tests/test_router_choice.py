"""Which router runs is never a guess: the C core where it is there, else the Python one, loudly."""

import logging
import os
import subprocess
import sys

import pytest

from tests.conftest import can_build_native
from tests.frames import text
from tests.routing import STOCKS, drive
from tradebal.errors import UserError
from tradebal.router import CHOICE_VARIABLE, make_router, warn_if_slow

try:
    import tradebal.router.native  # noqa: F401

    native_is_built = True
except ImportError:
    native_is_built = False


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.delenv(CHOICE_VARIABLE, raising=False)


def test_the_c_core_is_built_wherever_a_compiler_is():
    assert native_is_built or not can_build_native()


def test_the_c_core_is_taken_if_it_is_there():
    assert make_router(1, STOCKS).kind == ("native" if native_is_built else "python")


@pytest.mark.parametrize("kind", ["python", "native"])
def test_the_environment_forces_one_router(monkeypatch, kind):
    if kind == "native" and not native_is_built:
        pytest.skip("the C core isn't built")
    monkeypatch.setenv(CHOICE_VARIABLE, kind)
    router = make_router(4, STOCKS, framing="length32", pins={b"A": 3}, max_message=100)
    assert router.kind == kind
    trade = b'{"ev":"T","sym":"A"}'
    assert drive(router, [text(b"[" + trade + b"]")]).shards == [b"", b"", b"", b"\x14\0\0\0" + trade]


def test_an_unknown_choice_is_a_clear_error(monkeypatch):
    monkeypatch.setenv(CHOICE_VARIABLE, "rust")
    with pytest.raises(UserError, match="'rust'") as caught:
        make_router(1, STOCKS)
    assert CHOICE_VARIABLE in str(caught.value)
    assert "native" in caught.value.hint
    assert caught.value.code == 2


WITHOUT_CORE = """
import logging, sys
sys.modules["tradebal.router.native"] = None  # what an import finds where no compiler was
from tradebal.errors import UserError
from tradebal.router import make_router, warn_if_slow
try:
    router = make_router(1, None)
except UserError as error:
    print(error.message, error.hint, sep="\\n")
else:
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
    warn_if_slow(router, logging.getLogger())
"""


def run_without_core(choice):
    environment = {name: value for name, value in os.environ.items() if name != CHOICE_VARIABLE}
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_CORE],
        env=environment | ({CHOICE_VARIABLE: choice} if choice else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert not result.stderr
    return result.stdout


def test_without_the_c_core_the_python_router_runs_and_says_so():
    assert run_without_core("").startswith("WARNING slow router in use: kind=python")
    assert "gcc" in run_without_core("")
    assert "pip install" in run_without_core("")


def test_a_forced_c_core_that_is_not_there_is_a_clear_error():
    message, hint = run_without_core("native").splitlines()
    assert "the C core isn't there" in message
    assert "gcc" in hint
    assert "pip install" in hint


def test_the_c_core_gives_no_warning(caplog):
    if not native_is_built:
        pytest.skip("the C core isn't built")
    warn_if_slow(make_router(1, STOCKS), logging.getLogger("tradebal"))
    assert not caplog.records
