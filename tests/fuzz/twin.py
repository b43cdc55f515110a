"""Answers the C harness's inputs with what the Python router makes of them; given files, shows what both routers do."""

import struct
import sys
from pathlib import Path

from tests.fuzz import cases
from tradebal.router.pure import Router as PythonRouter


def answer() -> None:
    """Read inputs from stdin, each with its length before it, and write their results likewise, until it ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(4):
        case = cases.read(source.read(*struct.unpack("<I", head)))
        assert case
        result = cases.Drive(PythonRouter, case).result()
        sink.write(struct.pack("<I", len(result)) + result)
        sink.flush()


def show(path: Path) -> None:
    """Print what an input says, what the Python router makes of it, and where the built C core differs."""
    from tradebal.router import native

    data = path.read_bytes()
    case = cases.read(data)
    print(f"{path}: {case}")
    if not case:
        return
    expected = cases.Drive(PythonRouter, case).result()
    print(expected.decode(errors="backslashreplace"))
    for variant in native.variants():
        native.use_variant(variant)
        result = cases.Drive(native.Router, case).result()
        if result != expected:
            print(f"{variant} differs from Python, {cases.difference(result, expected)}")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        show(Path(name))
    if len(sys.argv) == 1:
        answer()
