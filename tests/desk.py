"""A user's handler for the tests: keeps the number of every trade that it gets, and each gap, at once."""

import os
import re
from pathlib import Path

from tradebal.handlers import Handler

_NUMBER = re.compile(rb'"q": ?(\d+)')


class Desk(Handler):
    """Appends to /var/lib/desk/<shard>: a line for each trade, with its number, and for each gap, with its reason.

    A kill can cut a write short: so each begins on a new line, and a number that isn't whole has fewer than 9 digits.
    """

    def __init__(self, context):
        super().__init__(context)
        path = Path("/var/lib/desk") / str(context.shard)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def on_trades(self, batch):
        numbers = _NUMBER.findall(batch.raw)
        assert len(numbers) == len(batch) == len(batch.trades()), "a trade that isn't whole"
        os.write(self._fd, b"\n" + b"".join(number.zfill(9) + b"\n" for number in numbers))

    def on_gap(self, gap):
        os.write(self._fd, f"\n{gap.reason}\n".encode())
