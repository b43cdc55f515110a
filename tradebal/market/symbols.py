"""Which stocks the simulated market trades, how often each, and at what price: of a real day's number and skew.

The busiest stocks carry 2.2 %, 1.1 % and 1.0 % of a day's trades, as the founding system saw it; those behind them
follow a shifted Zipf law, in which the hundred busiest have about a third of all trades and every stock trades.
"""

from __future__ import annotations

import functools
import random
from typing import NamedTuple

COUNT = 6200
"""Stocks in the universe."""

TOP_SHARES = (0.022, 0.011, 0.010)
"""Shares of all trades that the busiest stocks have."""

_ZIPF_SHIFT = 13
"""Makes the fourth stock a little less busy than the third."""

_NYSE, _ARCA, _NASDAQ = 1, 2, 3

# By activity, with a price in dollars of the order that the stock has.
_NAMED = {
    _ARCA: (
        "SPY 590 TQQQ 78 SOXL 29 IWM 235 TLT 91 GLD 245 XLF 50 EEM 43 SQQQ 31 HYG 79 SLV 28 XLE 94 XLK 235 XLU 79 "
        "EFA 78 LQD 110 GDX 38 VOO 540 ARKK 56 KRE 65 FXI 31 UVXY 21 VXX 46 DIA 440 XBI 96 SMH 247 AGG 98 VTI 290"
    ),
    _NASDAQ: (
        "NVDA 142 TSLA 345 AAPL 229 AMD 138 QQQ 505 MSFT 415 AMZN 200 META 560 GOOGL 168 INTC 24 MSTR 420 SMCI 31 "
        "AVGO 165 MARA 26 SOFI 15 COIN 300 NFLX 880 GOOG 170 MU 98 RIVN 10 LCID 2 HOOD 36 RIOT 12 PYPL 85 CSCO 58 "
        "QCOM 155 ADBE 505 CMCSA 43 AAL 14 SBUX 100 PEP 158 TXN 198 COST 960 MRNA 41 GILD 89 WBD 10 DKNG 43 LRCX 71 "
        "AMAT 174 CRWD 355 PANW 380 ASML 670 MRVL 92 BKNG 5200 ISRG 545 ABNB 135 AMGN 290 HON 228 JD 35 PDD 100"
    ),
    _NYSE: (
        "PLTR 65 F 11 BAC 46 NIO 5 T 23 PFE 25 GME 28 UBER 71 SNAP 11 CCL 25 C 69 WFC 75 JPM 245 XOM 121 DIS 114 "
        "BABA 83 BA 149 WMT 90 KO 63 NKE 77 VZ 43 ORCL 190 CVX 161 JNJ 155 AMC 4 GM 58 MRK 99 ABBV 177 CRM 340 "
        "V 310 MA 520 HD 400 UNH 600 PG 172 LLY 750 CAT 395 IBM 220 GE 180 GS 600 MS 135 DAL 64 UAL 95 SHOP 108 "
        "TSM 190 BRK.B 470 BRK.A 708000 BF.B 42 RKT 14 CVNA 250 SQ 93 SPOT 470 LMT 540 MMM 129 MCD 292 FCX 44 CLF 12"
    ),
}


class Symbol(NamedTuple):
    """One stock."""

    ticker: str
    share: float
    """Of all trades; the universe's shares sum to 1."""
    tape: int
    """Where it is listed (`z`): 1 NYSE, 2 NYSE Arca and others, 3 Nasdaq."""
    cents: int
    """Price at the start."""


@functools.cache
def universe() -> tuple[Symbol, ...]:
    """All stocks, busiest first; always the same ones."""
    named = _interleaved()
    dice = random.Random("universe")
    tickers = {ticker for ticker, _, _ in named}
    stocks = list(named)
    while len(stocks) < COUNT:
        tape = dice.choices((_NYSE, _ARCA, _NASDAQ), (38, 30, 32))[0]
        ticker = _ticker(dice, tape)
        if ticker not in tickers:
            tickers.add(ticker)
            stocks.append((ticker, tape, max(60, round(100 * dice.lognormvariate(3.0, 1.1)))))
    return tuple(
        Symbol(ticker, share, tape, cents) for share, (ticker, tape, cents) in zip(_shares(), stocks, strict=True)
    )


def _shares() -> list[float]:
    tail = [1 / (rank + _ZIPF_SHIFT) for rank in range(len(TOP_SHARES) + 1, COUNT + 1)]
    scale = (1 - sum(TOP_SHARES)) / sum(tail)
    return [*TOP_SHARES, *(scale * weight for weight in tail)]


def _interleaved() -> list[tuple[str, int, int]]:
    """The well-known stocks in one order of activity, each list's own order kept."""
    placed = []
    for tape, text in _NAMED.items():
        words = text.split()
        for place, (ticker, price) in enumerate(zip(words[::2], words[1::2], strict=True)):
            placed.append((2 * place / len(words), ticker, tape, 100 * int(price)))
    placed.sort(key=lambda stock: stock[0])
    return [(ticker, tape, cents) for _, ticker, tape, cents in placed]


def _ticker(dice: random.Random, tape: int) -> str:
    """A ticker as the listing market forms them: NYSE up to three letters and suffixes, Nasdaq four or five."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if tape == _NASDAQ:
        ticker = "".join(dice.choices(letters, k=4))
        return ticker + dice.choices(("", "W", "U", "R"), (88, 6, 3, 3))[0]
    length = dice.choices((2, 3, 4), (5, 55, 40) if tape == _NYSE else (0, 25, 75))[0]
    ticker = "".join(dice.choices(letters, k=length))
    if tape == _NYSE:
        ticker += dice.choices(("", ".A", ".B", ".WS", ".U", "pA"), (88, 2, 2, 4, 2, 2))[0]
    return ticker
