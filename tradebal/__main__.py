"""Lets `python -m tradebal` stand for the `tradebal` command, which the supervisor's children use."""

import os
import sys

if __name__ == "__main__":
    # `python -m` puts the current directory first on the path: a file named orjson.py there would run with the key.
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109 - pathlib might be such a file
        del sys.path[0]

    from tradebal.cli import main

    sys.exit(main())
