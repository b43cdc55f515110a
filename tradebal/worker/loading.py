"""From `package.module:Class` in the configuration to a handler, with an answer to all that can be wrong there."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from tradebal.errors import UserError
from tradebal.handlers.base import Context, Handler

_KEY = "[worker] handler"


def load_handler(spec: str, options: Mapping[str, Any], context: Context) -> Handler:
    """Import the class and make the handler; UserError (code 2) says what is wrong with name, class or options.

    Modules in the current directory can be imported where none that is installed has their name.
    """
    factory = find_handler(spec, options)
    try:
        handler = factory(context, **options)
    except UserError:
        raise
    except ValueError as error:
        takes = _takes(factory)
        if not takes:  # so it can't be about an option
            raise _error(spec, f"can't be made: {describe(error)}") from None
        # One of ours words its own options; in others' code, the line tells whose ValueError it is.
        ours = getattr(factory, "__module__", "").startswith("tradebal.")
        raise _error(spec, f"[worker.options]: {error if ours else describe(error)}", hint=takes) from None
    except (Exception, SystemExit) as error:
        raise _error(spec, f"can't be made: {describe(error)}") from None
    if not isinstance(handler, Handler):
        raise _error(spec, "is not a handler", hint="derive the class from tradebal.handlers.Handler")
    return handler


def find_handler(spec: str, options: Mapping[str, Any]) -> Any:
    """Import the class and compare the options with its signature, without making one; UserError as `load_handler`."""
    factory = _find(spec)
    if isinstance(factory, type) and not issubclass(factory, Handler):
        raise _error(spec, "is not a handler", hint="derive the class from tradebal.handlers.Handler")
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return factory  # a callable without a known signature: calling it will show
    # In our words, since Python's differ between its versions.
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise _error(spec, "takes no context", hint="its first parameter is the tradebal.handlers.Context")
    if wrong := _mismatch(parameters, options):
        hint = _takes(factory) or "it takes no options"
        raise _error(spec, f"[worker.options]: {wrong}", hint=hint)
    return factory


def _mismatch(parameters: Sequence[inspect.Parameter], options: Mapping[str, Any]) -> str:
    """Return which option is unknown or missing for a callable that gets the context first, "" if none is."""
    rest = parameters if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL else parameters[1:]
    by_name = {p.name: p for p in rest if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in rest)
    unknown = [name for name in options if name not in by_name]
    if unknown and not takes_any:
        return f"there is no option {unknown[0]!r}"
    missing = [name for name, p in by_name.items() if p.default is p.empty and name not in options]
    return f"the option {missing[0]!r} is missing" if missing else ""


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
        sys.path.append("")  # last, so that no file there takes the place of a module that is installed
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
    """Return the names and defaults of the options, "" if there are none or they can't be known."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())[1:]
    except (TypeError, ValueError):
        return ""
    names = ", ".join(
        p.name if p.default is p.empty else f"{p.name} (default {p.default!r})"
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    )
    return f"its options: {names}" if names else ""


def _error(spec: str, what: str, hint: str = "") -> UserError:
    return UserError(f"{_KEY} = {spec!r}: {what}", hint=hint, code=2)
