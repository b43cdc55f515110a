"""Finding the handler: everything that can be wrong with its name gets an answer that helps."""

import sys

import pytest

from tradebal.errors import UserError
from tradebal.handlers import Context, Count
from tradebal.worker.loading import load_handler

CONTEXT = Context(shard=3, shards=8)

MODULE = """
import json
from tradebal.handlers import Handler

number = 7


class Good(Handler):
    def __init__(self, context, *, size, colour="red"):
        super().__init__(context)
        if size < 0:
            raise ValueError(f"size = {size}: must not be negative")
        self.size = size


class Outer:
    class Inner(Handler):
        pass


class Alien:
    def __init__(self, context):
        pass


class Stray:
    pass


class Counts(Handler):
    def __init__(self, context):
        int("seven")


class Leaves(Handler):
    def __init__(self, context):
        raise SystemExit(2)


def without_context():
    pass


class Breaks(Handler):
    def __init__(self, context):
        {}["missing"]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory with a user's module; forgotten afterwards."""
    (tmp_path / "own_handlers.py").write_text(MODULE)
    (tmp_path / "needs_other.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "broken.py").write_text("x = 1\ny = x / 0\n")
    (tmp_path / "typo.py").write_text("def f(:\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(4)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_built_in_handler_gets_its_options():
    handler = load_handler("tradebal.handlers:Count", {"interval": 5}, CONTEXT)
    assert isinstance(handler, Count)
    assert handler.context is CONTEXT


def test_module_in_the_current_directory_is_found(here):
    handler = load_handler("own_handlers:Good", {"size": 4}, CONTEXT)
    assert handler.size == 4
    assert load_handler("own_handlers:Outer.Inner", {}, CONTEXT).context.shard == 3


@pytest.mark.parametrize(
    ("spec", "options", "message", "hint"),
    [
        ("own_handlers", {}, "isn't of the form package.module:Class", ""),
        ("no_such_module:X", {}, "there is no module 'no_such_module'", "current directory"),
        ("tradebal.nothing:X", {}, "there is no module 'tradebal.nothing'", "PYTHONPATH"),
        ("needs_other:X", {}, "importing needs_other failed: ModuleNotFoundError: No module named 'a_package", ""),
        ("broken:X", {}, "importing broken failed: ZeroDivisionError: division by zero at=", ""),
        ("typo:X", {}, "importing typo failed: SyntaxError: ", ""),
        ("leaves:X", {}, "importing leaves failed: SystemExit: 4", ""),
        ("own_handlers:Bad", {}, "own_handlers.py) has no 'Bad'", ""),
        ("own_handlers:number", {}, "number is int, not a class", ""),
        ("own_handlers:Alien", {}, "is not a handler", "derive the class from tradebal.handlers.Handler"),
        ("own_handlers:Breaks", {}, "can't be made: KeyError: 'missing' at=", ""),
        ("own_handlers:Stray", {}, "is not a handler", "derive the class from tradebal.handlers.Handler"),
        (
            "own_handlers:Counts",
            {},
            "can't be made: ValueError: invalid literal for int() with base 10: 'seven' at=",
            "",
        ),
        ("own_handlers:Leaves", {}, "can't be made: SystemExit: 2 at=", ""),
        ("own_handlers:without_context", {}, "takes no context", "first parameter"),
        ("own_handlers:Good", {}, "the option 'size' is missing", "its options: size, colour (default 'red')"),
        ("own_handlers:Good", {"size": 1, "sise": 2}, "there is no option 'sise'", "its options: size"),
        (
            "own_handlers:Good",
            {"size": -1},
            ": ValueError: size = -1: must not be negative at=",
            "its options",
        ),
        ("own_handlers:Outer.Inner", {"x": 1}, "there is no option 'x'", "it takes no options"),
        ("tradebal.handlers:Count", {"interval": "1"}, "interval = '1': must be a number", "interval (default 10.0)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(here, spec, options, message, hint):
    with pytest.raises(UserError) as caught:
        load_handler(spec, options, CONTEXT)
    assert caught.value.code == 2
    assert caught.value.message.startswith(f"[worker] handler = {spec!r}: ")
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint
