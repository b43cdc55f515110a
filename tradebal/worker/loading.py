"""From `package.module:Class` in the configuration to a handler, with an answer to all that can be wrong there."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from tradebal.errors import UserError
from tradebal.handlers.base import Context, Handler

_KEY = "[worker] handler"


def load_handler(spec: str, options: Mapping[str, Any], context: Context) -> Handler:
    """Import the class and make the handler; UserError (code 2) says what is wrong with name, class or options.

    Modules in the current directory can be imported, as with `python -m`.
    """
    factory = find_handler(spec, options)
    try:
        handler = factory(context, **options)
    except UserError:
        raise
    except ValueError as error:
        raise _error(spec, f"[worker.options]: {error}", hint=_takes(factory)) from None
    except Exception as error:
        raise _error(spec, f"can't be made: {describe(error)}") from None
    if not isinstance(handler, Handler):
        raise _error(spec, "is not a handler", hint="derive the class from tradebal.handlers.Handler")
    return handler


def find_handler(spec: str, options: Mapping[str, Any]) -> Any:
    """Import the class and compare the options with its signature, without making one; UserError as `load_handler`."""
    factory = _find(spec)
    try:
        inspect.signature(factory).bind(None, **options)  # None stands for the context
    except TypeError as error:
        raise _error(spec, f"[worker.options]: {error}", hint=_takes(factory)) from None
    except ValueError:
        pass  # a callable without a known signature: calling it will show
    return factory


def describe(error: BaseException, module: str = "") -> str:
    """Return type, message and place of an exception on one line.

    The place is the innermost one in the module of that name, if the exception came through it: that is the line
    which its author knows.
    """
    frames = [
        (summary, frame.f_globals.get("__name__"))
        for summary, (frame, _) in zip(
            traceback.extract_tb(error.__traceback__), traceback.walk_tb(error.__traceback__), strict=True
        )
    ]
    own = [summary for summary, name in frames if module and name == module]
    text = " ".join(str(error).split())
    kind = type(error).__name__
    place = own[-1] if own else frames[-1][0] if frames else None
    at = f" at={place.filename}:{place.lineno} in {place.name}" if place else ""
    return f"{kind}: {text}{at}" if text else f"{kind}{at}"


def _find(spec: str) -> Any:
    module_name, _, class_name = spec.partition(":")
    if not module_name or not class_name:
        raise _error(spec, "isn't of the form package.module:Class")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Either the module itself, or one that it imports.
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise _error(
                spec,
                f"there is no module {error.name!r}",
                hint="it must be installed beside tradebal, be in the current directory, or be found by PYTHONPATH",
            ) from None
        raise _error(spec, f"importing {module_name} failed: {describe(error)}") from None
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise _error(spec, f"importing {module_name} failed: {describe(error)}") from None
    for name in class_name.split("."):
        found = getattr(found, name, None)
    if found is None:
        raise _error(spec, f"module {module_name} ({_file(module_name)}) has no {class_name!r}")
    if not callable(found):
        raise _error(spec, f"{class_name} is {type(found).__name__}, not a class")
    return found


def _file(module_name: str) -> str:
    return getattr(sys.modules[module_name], "__file__", None) or "built in"


def _takes(factory: Any) -> str:
    try:
        parameters = list(inspect.signature(factory).parameters.values())[1:]
    except (TypeError, ValueError):
        return ""
    names = ", ".join(
        p.name if p.default is p.empty else f"{p.name} (default {p.default!r})"
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    )
    return f"its options: {names}" if names else "it takes no options"


def _error(spec: str, what: str, hint: str = "") -> UserError:
    return UserError(f"{_KEY} = {spec!r}: {what}", hint=hint, code=2)
