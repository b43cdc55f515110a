"""The simulated stock market as a playback: each session's rates, filled with made trades, in frames of matching size.

Making a trade takes Python several microseconds, and an open asks for 800,000 a second. So a bank of made trades is
gone through in circles: at ordinary rates each trade is replaced by a newly made one once it was sent; at higher ones
the same trades come again, with new ids, times and sequence numbers, which cost a tenth of a microsecond.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

from tradebal.market.playback import Block, Wanted
from tradebal.market.sessions import FULL_FRAME, Session, trades_per_frame
from tradebal.market.symbols import Symbol, universe
from tradebal.market.trades import Template, TradeMaker, tails, times
from tradebal.router.frames import server_frame

TICK = 0.002
"""Seconds between two chunks: what a provider's own batching might be, and a load that Python can bear."""

BANK = 1 << 16
"""Trades in the bank: enough for every stock to have some."""

_RENEWED_PER_TICK = 32
"""Above this many trades a tick (16,000 a second) the bank is left as it is."""

_UNPACED_CHUNK = 16 * FULL_FRAME


class StockPlayback:
    """One session of the simulated market; every play of it has the same trades in the same order.

    `q` counts 1, 2, 3… over the whole session, so a client's losses and duplicates are a subtraction. (Massive's own
    `q` increases by stock, with gaps; a client that relies on no more than that is right with both.)
    """

    def __init__(
        self,
        session: Session,
        *,
        seed: int = 0,
        trades: int | None = None,
        repeat: bool = False,
        bank: int = BANK,
        symbols: Sequence[Symbol] | None = None,
    ) -> None:
        """Play `session`, at most `trades` trades of it, again and again with `repeat`."""
        self.session = session
        self.paced = session.rate is not None
        self._seed = seed
        self._trades = trades
        self._repeat = repeat
        self._symbols = universe() if symbols is None else symbols
        maker = TradeMaker(self._symbols, f"bank {seed}")
        self._bank = [maker.make(index, slot) for slot, index in enumerate(maker.sample(bank))]

    def chunks(self) -> Iterator[StockChunk]:
        """Play from the start. Render each chunk before asking for the next, which may replace its trades."""
        reel = _Reel(self._bank, TradeMaker(self._symbols, f"play {self._seed}"))
        left = self._trades
        begin = 0.0
        while True:
            for at, sizes in self._timetable():
                if left is not None:
                    sizes = _cut(sizes, left)
                    left -= sum(sizes)
                if sizes:
                    yield reel.next(begin + at, sizes)
                if left == 0:
                    return
            if not self._repeat:
                return
            begin += self.session.duration

    def _timetable(self) -> Iterator[tuple[float, list[int]]]:
        """When how many trades are due, as the sizes of their frames."""
        if self.session.rate is None:
            until = time.monotonic() + self.session.duration
            while time.monotonic() < until:
                yield 0.0, [FULL_FRAME] * (_UNPACED_CHUNK // FULL_FRAME)
            return
        dice = random.Random(f"timetable {self._seed}")
        tick = 0
        owed = 0.0
        while (at := tick * TICK) < self.session.duration:
            rate = self.session.rate(at)
            owed += rate * TICK
            due = round(dice.gauss(owed, owed**0.5)) if owed > 0 else 0
            sizes = _frame_sizes(dice, due, trades_per_frame(rate))
            owed -= sum(sizes)
            tick += 1
            yield at, sizes


class StockChunk:
    """The frames of one tick."""

    __slots__ = ("_position", "_reel", "_sizes", "at", "first")

    def __init__(self, at: float, reel: _Reel, position: int, sizes: list[int], first: int) -> None:
        self.at = at
        self.first = first
        self._reel = reel
        self._position = position
        self._sizes = sizes

    def render(self, wanted: Wanted, time_ms: int) -> Block:
        """See `Chunk.render`. With a filter, `Block.first` is the first number sent; others may be missing after it."""
        return self._reel.render(self._position, self._sizes, self.first, wanted, time_ms)


class _Reel:
    """The bank as one play goes through it."""

    def __init__(self, bank: Sequence[Template], maker: TradeMaker) -> None:
        self._maker = maker
        self._texts = [template.text for template in bank]
        self._symbols = [template.symbol for template in bank]
        self._ages = [template.age for template in bank]
        self._tails = [template.tail for template in bank]
        self._size = len(bank)
        self._position = 0
        """Trades used so far; modulo the bank's size it is the place of the next one."""
        self._used = range(0)
        """Where the last chunk's trades are."""

    def next(self, at: float, sizes: list[int]) -> StockChunk:
        if len(self._used) <= _RENEWED_PER_TICK:
            self._renew(self._used)
        position = self._position
        self._position += sum(sizes)
        self._used = range(position, self._position)
        return StockChunk(at, self, position, sizes, position + 1)

    def _renew(self, used: range) -> None:
        for position in used:
            slot = position % self._size
            template = self._maker.make(self._maker.any(), slot)
            self._texts[slot], self._symbols[slot], self._ages[slot], self._tails[slot] = template

    def render(self, position: int, sizes: list[int], first: int, wanted: Wanted, time_ms: int) -> Block:
        at_times, with_tails = times(time_ms), tails(time_ms)
        frames = []
        trades = 0
        first_sent = 0
        for size in sizes:
            lap, slot = divmod(position, self._size)
            if wanted is None and slot + size <= self._size:
                place = slice(slot, slot + size)
                texts, ages, kinds = self._texts[place], self._ages[place], self._tails[place]
                laps = [b"%d" % (lap + 1)] * size
                numbers: Sequence[int] = range(first, first + size)
            else:
                places = [divmod(position + step, self._size) for step in range(size)]
                chosen = [
                    step for step, (_, slot) in enumerate(places) if wanted is None or self._symbols[slot] in wanted
                ]
                slots = [places[step][1] for step in chosen]
                texts = [self._texts[slot] for slot in slots]
                ages = [self._ages[slot] for slot in slots]
                kinds = [self._tails[slot] for slot in slots]
                laps = [b"%d" % (places[step][0] + 1) for step in chosen]
                numbers = [first + step for step in chosen]
            position += size
            first += size
            if not texts:
                continue
            # One formatting for the whole frame is what makes 800,000 trades a second possible.
            fill: list[object] = [None] * (4 * len(texts))
            fill[0::4] = laps
            fill[1::4] = map(at_times.__getitem__, ages)
            fill[2::4] = numbers
            fill[3::4] = map(with_tails.__getitem__, kinds)
            frames.append(server_frame(b"[" + b",".join(texts) % tuple(fill) + b"]"))
            first_sent = first_sent or numbers[0]
            trades += len(texts)
        return Block(b"".join(frames), len(frames), trades, first_sent)


def _frame_sizes(dice: random.Random, due: int, mean: float) -> list[int]:
    """Divide `due` trades into frames of about `mean`; a rest that is no whole frame waits for the next tick."""
    sizes: list[int] = []
    while due > 0:
        size = FULL_FRAME if mean >= FULL_FRAME else max(1, round(mean * dice.uniform(0.4, 1.6)))
        if size > due and sizes:
            break
        sizes.append(min(size, due))
        due -= sizes[-1]
    return sizes


def _cut(sizes: list[int], most: int) -> list[int]:
    """The frames that hold the first `most` trades."""
    kept = []
    for size in sizes:
        if most <= 0:
            break
        kept.append(min(size, most))
        most -= kept[-1]
    return kept
