"""Writes what a run found: bench/RESULTS.md and the chart."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import chart
from block import TRADES
from burst import PEAK, WORKERS, Burst
from contenders import COMPILED, COPY, FLOOR, NAIVE, OURS, PICOWS, PYTHON, PYTHON_ROUNDS, ROTATE, TUNED
from harness import HERE, Contender, Result
from instructions import Count
from latency import COMPARED, NAMES, PERCENTILES, Latency
from quiet import PER_FRAME, RATE, SHARDS, Quiet
from seen import Publishing, Scrape
from tls import Tls

Cell = tuple[int, int]
"""Trades a frame, shards."""

_COLOURS = {
    OURS.name: "#d9730d",
    FLOOR.name: "#7d858f",
    COPY.name: "#7d858f",
    ROTATE.name: "#7d858f",
    PICOWS.name: "#3f83d6",
    TUNED.name: "#3f83d6",
    NAIVE.name: "#3f83d6",
    PYTHON.name: "#a8703a",
}


@dataclass
class Findings:
    """All that a run measured; what was left out is empty."""

    throughput: Mapping[Cell, Mapping[Contender, Sequence[Result]]]
    tls: Sequence[Tls]
    instructions: Sequence[Count]
    latency: Sequence[Latency]
    burst: Sequence[Burst]
    quiet: Quiet | None
    publishing: Sequence[Publishing]
    scrape: Scrape | None


def median_rate(results: Sequence[Result]) -> float:
    """Trades per CPU-second, the median of the rounds."""
    return statistics.median(result.rate for result in results)


def ratio(cell: Mapping[Contender, Sequence[Result]], over: Contender, under: Contender) -> float:
    """Median, over the rounds, of one contender's rate by the other's in the same round."""
    pairs = zip(cell[over], cell[under], strict=False)
    return statistics.median(one.rate / other.rate for one, other in pairs)


def machine() -> str:
    """Name what it ran on, as far as it bears on the figures."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    virtual = ", virtual machine" if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) else ""
    cpus = len(os.sched_getaffinity(0))
    kernel = re.match(r"[\d.]+", platform.release())
    compiler = subprocess.run(
        [os.environ.get("CC", "cc"), "-dumpfullversion"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{model[1].strip() if model else platform.machine()}, {cpus} CPUs{virtual}; "
        f"Linux {kernel[0] if kernel else platform.release()}; CPython {platform.python_version()}; "
        f"C compiler {compiler or 'unknown'}"
    )


def markdown(found: Findings, rounds: int) -> str:
    """Give RESULTS.md's text."""
    parts = [
        "# Benchmark results",
        f"Written by `make bench` on {datetime.datetime.now(datetime.UTC):%d %B %Y}. {machine()}. What is measured, "
        "and how, is in [README.md](README.md).",
    ]
    if found.throughput:
        parts += _throughput(found.throughput, rounds)
    if found.tls:
        parts += _tls(found.tls)
    if found.instructions:
        parts += _instructions(found.instructions)
    if found.latency:
        parts += _latency(found.latency)
    if found.burst:
        parts += _burst(found.burst)
    if found.quiet:
        parts += _quiet(found.quiet)
    if found.scrape:
        parts += _seen(found.publishing, found.scrape)
    return "\n\n".join(parts) + "\n"


def svg(found: Findings) -> str:
    """Give the chart of throughput at 8 shards (or what was run that is nearest to it)."""
    shards = min({cell[1] for cell in found.throughput}, key=lambda number: abs(number - 8))
    groups = []
    for (per_frame, number), cell in found.throughput.items():
        if number != shards:
            continue
        bars = [_chart_bar(contender, results) for contender, results in cell.items() if contender is not ROTATE]
        groups.append(chart.Group(f"{per_frame} trades a frame", bars))
    title = f"Trades routed per CPU-second, one process, {shards} shard{'s' * (shards != 1)}"
    return chart.draw(title, "million trades per second of CPU time (bar: median; line: range of the rounds)", groups)


def _chart_bar(contender: Contender, results: Sequence[Result]) -> chart.Bar:
    rates = [result.rate / 1e6 for result in results]
    return chart.Bar(
        contender.label, statistics.median(rates), min(rates), max(rates), _COLOURS.get(contender.name, "#7d858f")
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give a Markdown table, the first column flush left, the others right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _millions(rate: float) -> str:
    return f"{rate / 1e6:.1f}" if rate >= 1e6 else f"{rate / 1e6:.3f}"


def _throughput(cells: Mapping[Cell, Mapping[Contender, Sequence[Result]]], rounds: int) -> list[str]:
    contenders = list(next(iter(cells.values())))
    parts = ["## Throughput"]
    less = f" ({PYTHON_ROUNDS} of the Python programs)" if rounds > PYTHON_ROUNDS else ""
    parts.append(
        "Million trades per CPU-second of the process under test: median of the rounds (least–most). Every byte that "
        f"came out of the FIFOs was compared with what had to come. Rounds: {rounds}{less}."
    )
    rows = []
    for (per_frame, shards), cell in cells.items():
        row = [f"{per_frame} a frame, {shards} shard{'s' * (shards != 1)}"]
        for contender in contenders:
            rates = [result.rate for result in cell[contender]]
            row.append(f"{_millions(statistics.median(rates))} ({_millions(min(rates))}–{_millions(max(rates))})")
        rows.append(row)
    parts.append(table(["", *(contender.label for contender in contenders)], rows))
    if OURS not in contenders:
        return parts
    others = [contender for contender in contenders if contender is not OURS]
    rows = [
        [
            f"{per_frame} a frame, {shards} shard{'s' * (shards != 1)}",
            *(f"{ratio(cell, OURS, other):.2f}" for other in others if other in COMPILED),
            *(f"{ratio(cell, OURS, other):.0f}" for other in others if other not in COMPILED),
        ]
        for (per_frame, shards), cell in cells.items()
    ]
    ordered = [other for other in others if other in COMPILED]
    ordered += [other for other in others if other not in COMPILED]
    parts.append("`tradebal balancer` as a multiple of each (median of the ratios within a round):")
    parts.append(table(["", *(other.label for other in ordered)], rows))
    parts.append(
        "The same of `tradebal balancer` in bytes: into the FIFOs per second of CPU time, and on the wall clock, where "
        "load and comparison, on one other CPU, set the pace:"
    )
    rows = []
    for (per_frame, shards), cell in cells.items():
        results = cell[OURS]
        rows.append(
            [
                f"{per_frame} a frame, {shards} shard{'s' * (shards != 1)}",
                f"{statistics.median(result.bytes / result.cpu for result in results) / 1e6:,.0f}",
                f"{statistics.median(result.bytes / result.wall for result in results) / 1e6:,.0f}",
                f"{statistics.median(result.trades / result.wall for result in results) / 1e6:.1f}",
                f"{results[0].pipe >> 10}",
            ]
        )
    parts.append(table(["", "MB per CPU-second", "MB/s, wall", "million trades/s, wall", "FIFO, KiB"], rows))
    return parts


def _tls(sizes: Sequence[Tls]) -> list[str]:
    rows = []
    for size in sizes:
        for contender, rate in size.rates.items():
            share = size.cipher_share(contender) if contender is not OURS else None
            rows.append(
                [
                    f"{size.per_frame} a frame, {'wss' if contender.wss else 'ws'}: {contender.label}",
                    _millions(rate),
                    f"{rate / size.rates[OURS]:.2f}",
                    f"{share:.0%}" if share is not None else "–",
                ]
            )
    return [
        "## TLS",
        "Million trades per CPU-second by ws and by wss, 8 shards; a TLS record is as long as a frame. What is "
        "AES-256-GCM of it is told from its speed alone, in pieces of that length.",
        table(["", "million trades per CPU-second", "of ws", "AES"], rows),
    ]


def _instructions(counts: Sequence[Count]) -> list[str]:
    frames = sorted({count.per_frame for count in counts}, reverse=True)
    variants = list(dict.fromkeys(count.variant for count in counts))
    by_key = {(count.variant, count.per_frame): count.instructions for count in counts}
    rows = [[variant, *(f"{by_key[variant, number]:.1f}" for number in frames)] for variant in variants]
    return [
        "## Instructions a trade",
        f"In the C core, from received bytes to staged trades, counted by callgrind over {TRADES} trades and 8 shards; "
        "no system calls.",
        table(["variant", *(f"{number} a frame" for number in frames)], rows),
    ]


def _latency(values: Sequence[Latency]) -> list[str]:
    rows = [
        [f"{value.rate:,}/s, {NAMES[value.name]}", *(f"{number:,.0f}" for number in value.values)] for value in values
    ]
    measured = {(value.rate, value.name): value.values for value in values}
    for rate in dict.fromkeys(value.rate for value in values):
        for ours, other in COMPARED:
            ratios = (f"{a / b:.2f}" for a, b in zip(measured[rate, ours], measured[rate, other], strict=True))
            rows.append([f"{rate:,}/s, {NAMES[ours]}, as a multiple of: {NAMES[other]}", *ratios])
    return [
        "## Latency",
        "Microseconds from the provider's send() to the worker's handler (one shard), beside socket → FIFO → reader "
        "without a balancer; medians over the rounds.",
        table(["", *(f"p{number:g}" for number in PERCENTILES)], rows),
    ]


def _burst(bursts: Sequence[Burst]) -> list[str]:
    rows = [[burst.name, f"{burst.trades:,}", f"{burst.behind:.3f} s", f"{burst.late:.3f} s"] for burst in bursts]
    return [
        "## Burst",
        f"The market's open up to {PEAK:,} trades/s, {WORKERS} workers that count (the naive client counts by itself): "
        "time from the burst's end until the last trade was counted.",
        table(["", "trades", "backlog gone after", "last sent too late by"], rows),
    ]


def _quiet(quiet: Quiet) -> list[str]:
    rows = [[name, f"{share:.1%}", f"{quiet.share / share:.2f}"] for name, share in quiet.shares.items()]
    return [
        "## Cost when quiet",
        f"At {RATE:,} trades/s in frames of {PER_FRAME}, {SHARDS} shards, over {quiet.seconds:g} s:",
        table(["", "of a core", "the balancer's as a multiple"], rows),
        f"After {quiet.trades:,} trades at full speed {quiet.resident / 2**20:.1f} MiB of the balancer were resident, "
        f"at most {quiet.peak / 2**20:.1f} MiB ever.",
    ]


def _seen(published: Sequence[Publishing], scrape: Scrape) -> list[str]:
    rows = [
        [
            f"{each.shards} shards",
            f"{each.each_second:.2%}",
            f"{each.never:.2%}",
            f"{each.each_second - each.never:.2%}",
        ]
        for each in published
    ]
    return [
        "## Cost of being seen",
        "CPU share of a balancer that waits, with its metrics written each second, and once a minute. The difference "
        "is what publishing takes from a balancer at full load, too:",
        table(["", "each second", "once a minute", "difference"], rows),
        f"A scrape of {scrape.shards} shards and as many workers, {scrape.bytes / 1e6:.1f} MB, took "
        f"{scrape.wall * 1e3:.0f} ms, {scrape.cpu * 1e3:.0f} ms of it CPU time of the exporter; to read the same files "
        f"and do nothing with them, {scrape.reading * 1e3:.0f} ms.",
    ]


def write(found: Findings, rounds: int) -> list[Path]:
    """Write RESULTS.md, and the chart if there was throughput; gives their paths."""
    results = HERE / "RESULTS.md"
    results.write_text(markdown(found, rounds))
    written = [results]
    if found.throughput:
        picture = HERE / "throughput.svg"
        picture.write_text(svg(found))
        written.append(picture)
    return written
