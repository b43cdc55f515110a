"""Lets `python -m tradebal` stand for the `tradebal` command, which the supervisor's children use."""

import sys

from tradebal.cli import main

if __name__ == "__main__":
    sys.exit(main())
