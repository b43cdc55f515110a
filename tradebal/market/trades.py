"""Makes single trades as Massive words them, with places left open for what is known only when they are sent.

Fields as documented for the stocks trade channel; ids of exchanges, conditions and trade reporting facilities are those
of Massive's reference data. The layout follows the documentation's example for most trades, and what was seen on the
wire for the others.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from tradebal.market.symbols import Symbol

AGES_MS = (0, 1, 2, 4, 9, 11_700, 96_000, 2_700_000)
"""How much earlier than its sending a trade can have happened; the last is before any session's start."""

_PARTICIPANT_DELAYS_MS = (0, 1, 0, 1, 2, 0, 1, 3)
"""By age: how long before the SIP's time (`t`) the exchange or facility produced the trade (`pt`)."""

_AGE_WEIGHTS = (42, 30, 15, 9, 3.6, 0.25, 0.1, 0.05)
_LATE_AGE = 5
"""From this index of AGES_MS on, a print is late."""

FACILITIES = (201, 202, 203)
"""Trade reporting facilities: FINRA NYSE, FINRA Nasdaq Carteret, FINRA Nasdaq Chicago."""

_FACILITY_WEIGHTS = (20, 72, 8)
_FACILITY_DELAYS_MS = (1, 0, 3)

OFF_EXCHANGE = 4
"""The exchange id of prints from dark pools and wholesalers, reported to FINRA."""

_OFF_EXCHANGE_SHARE = 0.36
_EXCHANGE_WEIGHTS = {
    12: 29,
    11: 15,
    19: 11,
    8: 11,
    21: 7,
    15: 6,
    20: 5,
    7: 2.5,
    18: 2.5,
    2: 1.5,
    1: 1.5,
    3: 1,
    17: 1,
    9: 0.4,
}
_NYSE_ID, _NYSE_TAPE, _NYSE_WEIGHT = 10, 1, 22
"""The New York Stock Exchange itself mostly trades what is listed there."""

# As JSON members, by (off-exchange, odd lot): 2 average price, 10 derivatively priced, 12 form T (outside regular
# hours), 13 the same and late, 14 intermarket sweep, 22 prior reference price, 32 sold out of sequence, 37 odd lot,
# 41 trade-through exempt, 53 qualified contingent trade.
_CONDITIONS = {
    (False, False): {"": 46, "[]": 2, "[14]": 13, "[14,41]": 28, "[0]": 3, "[12]": 8},
    (False, True): {"[37]": 56, "[14,37]": 12, "[14,37,41]": 24, "[12,37]": 8},
    (True, False): {"": 66, "[]": 2, "[12]": 8, "[10]": 7, "[53]": 6, "[22]": 5, "[2]": 4, "[0]": 2},
    (True, True): {"[37]": 88, "[12,37]": 8, "[10,37]": 4},
}
_LATE_CONDITIONS = {"[32]": 60, "[13]": 25, "[2,32]": 15}

_WIRE_LAYOUT = 0.15
_ODD_LOT = 0.55
_FRACTIONAL = 0.06
_SUB_PENNY = 0.3
"""Of off-exchange prints: the midpoint, and price improvement."""


class Template(NamedTuple):
    """A trade's text with four `%` places, in this order: begin of its id (%b), time (%b), `q` (%d), and tail (%b)."""

    text: bytes
    symbol: str
    age: int
    """Index into AGES_MS, and so into the times that fill the second place."""
    tail: int
    """Which of `tails` fills the last place."""


def times(time_ms: int) -> list[bytes]:
    """What fills a template's second place when it is sent at `time_ms`, by `Template.age`: `t`, and `pt` after it."""
    return [
        b'%d,"pt":%d' % (time_ms - age, time_ms - age - delay)
        for age, delay in zip(AGES_MS, _PARTICIPANT_DELAYS_MS, strict=True)
    ]


def tails(time_ms: int) -> list[bytes]:
    """What fills a template's last place when sent at `time_ms`, by `Template.tail`: nothing, or facility and time."""
    return [b""] + [
        b',"trfi":%d,"trft":%d' % (facility, time_ms - age - delay)
        for age in AGES_MS
        for facility, delay in zip(FACILITIES, _FACILITY_DELAYS_MS, strict=True)
    ]


class TradeMaker:
    """An endless market: which stock trades next, where, at what price, how much; the same ones for the same seed."""

    def __init__(self, symbols: Sequence[Symbol], seed: str) -> None:
        self._symbols = symbols
        self._dice = random.Random(seed)
        self._cents = [symbol.cents for symbol in symbols]
        self._up_to = list(itertools.accumulate(symbol.share for symbol in symbols))

    def sample(self, count: int) -> list[int]:
        """Indexes of `count` stocks in which each has its share (to the nearest whole trade), in random order."""
        chosen = []
        place, index = self._dice.random(), 0
        for number in range(count):
            while index < len(self._symbols) - 1 and (number + place) / count > self._up_to[index]:
                index += 1
            chosen.append(index)
        self._dice.shuffle(chosen)
        return chosen

    def any(self) -> int:
        """Index of one stock, each as often as its share says."""
        return self._dice.choices(range(len(self._symbols)), cum_weights=self._up_to)[0]

    def make(self, index: int, number: int) -> Template:
        """The next trade in the stock of that index; `number` ends its id, and makes it unique."""
        symbol, dice = self._symbols[index], self._dice
        off_exchange = dice.random() < _OFF_EXCHANGE_SHARE
        age = _pick(dice, _AGES)
        tail = 0
        if off_exchange:
            exchange = OFF_EXCHANGE
            tail = 1 + age * len(FACILITIES) + _pick(dice, _FACILITY)
        else:
            exchange = _pick(dice, _EXCHANGES[symbol.tape == _NYSE_TAPE])
        price = self._price(index, off_exchange)
        size, odd = self._size(symbol.cents)
        exact = str(size)
        if odd and off_exchange and dice.random() < _FRACTIONAL / (_ODD_LOT * _OFF_EXCHANGE_SHARE):
            shares = dice.random() * size
            size = max(1, round(shares))
            exact = f"{shares:.6f}"
        conditions = _pick(dice, _LATE if age >= _LATE_AGE else _ORDINARY[off_exchange, odd])
        if dice.random() < _WIRE_LAYOUT:
            text = (
                f'{{"ev":"T","sym":"{symbol.ticker}","i":"%b{number:05d}","x":{exchange},"p":{price},"s":{size},'
                f'{conditions}"t":%b,"q":%d,"z":{symbol.tape}%b,"ds":"{exact}"}}'
            )
        else:
            text = (
                f'{{"ev":"T","sym":"{symbol.ticker}","x":{exchange},"i":"%b{number:05d}","z":{symbol.tape},'
                f'"p":{price},"s":{size},"ds":"{exact}",{conditions}"t":%b,"q":%d%b}}'
            )
        return Template(text.encode(), symbol.ticker, age, tail)

    def _price(self, index: int, off_exchange: bool) -> str:
        """One step of the stock's random walk, kept within half and double of where it began."""
        dice, cents, begin = self._dice, self._cents[index], self._symbols[index].cents
        step = int(dice.gauss(0, max(0.6, cents / 12_000)))
        if 2 * (cents + step) < begin or cents + step > 2 * begin:
            step = -step
        cents += step
        self._cents[index] = cents
        if off_exchange and dice.random() < _SUB_PENNY:
            ten_thousandths = 100 * cents + (50 if dice.random() < 0.6 else dice.randrange(1, 100))
            return f"{ten_thousandths / 10_000:.4f}".rstrip("0")
        whole, rest = divmod(cents, 100)
        if not rest:
            return str(whole)
        return f"{whole}.{rest:02d}".rstrip("0")

    def _size(self, cents: int) -> tuple[int, bool]:
        """Shares, and whether they are an odd lot (below 100): the dearer the stock, the more often."""
        dice = self._dice
        if dice.random() < _ODD_LOT + (0.2 if cents > 20_000 else 0.0):
            return min(99, 1 + int(dice.expovariate(0.05))), True
        if dice.random() < 0.6:
            return 100, False
        size = 100 + int(dice.paretovariate(1.1) * 80)
        return min(1_000_000, size if dice.random() < 0.4 else size // 100 * 100), False


_T = TypeVar("_T")

_STEPS = 2000
"""Resolution of weighted choices: one in 2,000."""


def _spread(weights: Mapping[_T, float]) -> list[_T]:
    """Each value as often as its weight says, in a list of `_STEPS`: drawing from it needs one random number."""
    total = sum(weights.values())
    spread: list[_T] = []
    up_to = 0.0
    for value, weight in weights.items():
        up_to += weight
        spread += [value] * (round(_STEPS * up_to / total) - len(spread))
    return spread


def _pick(dice: random.Random, spread: list[_T]) -> _T:
    return spread[int(dice.random() * _STEPS)]


def _members(weights: Mapping[str, float]) -> list[str]:
    return _spread({f'"c":{conditions},' if conditions else "": weight for conditions, weight in weights.items()})


_AGES = _spread(dict(enumerate(_AGE_WEIGHTS)))
_FACILITY = _spread(dict(enumerate(_FACILITY_WEIGHTS)))
_EXCHANGES = (_spread(_EXCHANGE_WEIGHTS), _spread({_NYSE_ID: _NYSE_WEIGHT} | _EXCHANGE_WEIGHTS))
_ORDINARY = {lot: _members(weights) for lot, weights in _CONDITIONS.items()}
_LATE = _members(_LATE_CONDITIONS)
