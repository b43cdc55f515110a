"""What can be done with a shard's trades: the handlers that ship, and the base of your own."""

from tradebal.handlers.base import Context, Handler
from tradebal.handlers.count import Count
from tradebal.handlers.exec import Exec
from tradebal.handlers.record import Record
from tradebal.stream.batch import Batch
from tradebal.stream.gap import Gap

__all__ = ["Batch", "Context", "Count", "Exec", "Gap", "Handler", "Record"]
