"""How units publish their metrics: one text file each, so that no trade path needs an HTTP server."""

from __future__ import annotations

import logging
import resource
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue

from prometheus_client import CollectorRegistry, Metric, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tradebal.text import printable

log = logging.getLogger("tradebal.monitoring.publish")

SUFFIX = ".prom"

STALE_AFTER = 10.0
"""Seconds without a write after which a unit counts as down."""

MAX_FILE = 16 << 20
"""Bytes of a metrics file that are looked at; a longer one isn't ours."""

# prometheus-client otherwise adds a *_created series to each counter and histogram: half as much again, of no use
# where every unit's start time is in the journal.
disable_created_metrics()  # type: ignore[no-untyped-call]


_SWITCH_INTERVAL = 0.0005
"""Seconds that whoever moves data waits for the interpreter at most while another thread writes metrics (CPython's own
setting is ten times as long)."""
_HEAD_START = 0.002
"""Seconds after which the writing begins: until then, whoever asked for it is back at the data, at best in C code that
leaves the interpreter to others."""
_PATIENCE = 5.0
"""Seconds that a write in the background may take before it is said that it hangs."""

_HANGS = "the write before hangs"


class Publisher:
    """Writes one unit's registry to `<directory>/<unit>.prom`, whole or not at all."""

    def __init__(
        self,
        registry: CollectorRegistry,
        directory: Path,
        unit: str,
        labels: Mapping[str, str] | None = None,
        *,
        patience: float = _PATIENCE,
    ) -> None:
        """Publish the registry; every series that doesn't have these `labels` itself gets them.

        A write in the background that takes longer than `patience` seconds is said to hang.
        """
        self._registry = _Labelled(registry, labels) if labels else registry
        self._patience = patience
        self._given = 0.0  # when the thread got what it writes
        self._path = directory / f"{unit}{SUFFIX}"
        # A unit has one writer, so a fixed name will do, and a killed writer leaves at most one stray file.
        self._partial = directory / f".{unit}{SUFFIX}.partial"
        self._failing = False
        self._to_write: SimpleQueue[list[Metric]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._idle.set()

    def publish(self) -> None:
        """Write the file; a failure is logged once until writing works again, and never raised."""
        if self._idle.wait(self._patience):
            self._write(list(self._registry.collect()))
        else:
            self._fail(_HANGS)

    def publish_soon(self) -> None:
        """Write what is so now in the background: most of the work, and any wait for the disk, holds up nobody.

        Nothing is done while an earlier write isn't through.
        """
        if not self._idle.is_set():
            if time.monotonic() - self._given > self._patience:
                self._fail(_HANGS)
            return
        metrics = list(self._registry.collect())
        if self._thread is None:
            sys.setswitchinterval(min(_SWITCH_INTERVAL, sys.getswitchinterval()))
            self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
            self._thread.start()
        self._given = time.monotonic()
        self._idle.clear()
        self._to_write.put(metrics)

    def _serve(self) -> None:
        while True:
            metrics = self._to_write.get()
            time.sleep(_HEAD_START)
            try:
                self._write(metrics)
            finally:
                self._idle.set()

    def _write(self, metrics: list[Metric]) -> None:
        try:
            text = generate_latest(_Collected(metrics))
        except (TypeError, ValueError, AttributeError) as error:  # a handler's own series may be anything
            self._fail(str(error.args[0] if error.args else error))
            return
        try:
            try:
                self._partial.write_bytes(text)
            except FileNotFoundError:
                self._partial.parent.mkdir(parents=True, exist_ok=True)
                self._partial.write_bytes(text)
            self._partial.replace(self._path)
        except OSError as error:
            self._fail(error.strerror or str(error))
        else:
            if self._failing:
                log.info("metrics written again: file=%s", self._path)
            self._failing = False

    def _fail(self, error: str) -> None:
        if not self._failing:
            log.warning("metrics not written: file=%s error=%s", self._path, error)
        self._failing = True


class _Collected(Collector):
    """What a registry had."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            # A symbol may hold anything; a carriage return in a label would spoil the file.
            metric.samples = [
                sample._replace(labels={name: printable(str(value)) for name, value in sample.labels.items()})
                if sample.labels
                else sample
                for sample in metric.samples
            ]
            yield metric


class UnitCollector(Collector):
    """What every unit shows of its own process."""

    def __init__(self, unit: str) -> None:
        """Show the process that this is made in, as `unit`."""
        self._unit = unit
        self._started = time.time()

    def collect(self) -> Iterator[Metric]:
        """Yield the process's metrics."""
        start = GaugeMetricFamily(
            "tradebal_unit_start_time_seconds",
            "When the unit's process started, in seconds since the epoch.",
            labels=["unit"],
        )
        start.add_metric([self._unit], self._started)
        cpu = CounterMetricFamily(
            "tradebal_unit_cpu_seconds",
            "CPU time that the unit's process has used, user and system, in seconds.",
            labels=["unit"],
        )
        cpu.add_metric([self._unit], time.process_time())
        memory = GaugeMetricFamily(
            "tradebal_unit_resident_memory_bytes", "Memory that the unit's process holds, in bytes.", labels=["unit"]
        )
        memory.add_metric([self._unit], _resident())
        return iter((start, cpu, memory))


def _resident() -> int:
    try:
        # proc_pid_statm(5): the second number is the resident set's size, in pages.
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


class _Labelled(Collector):
    """A registry whose series all have certain labels.

    Units of one kind share metric names, those of a user's handler included. Without a label that tells the units
    apart, their files could not be merged, neither by our exporter nor by node_exporter.
    """

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        self._registry = registry
        self._labels = dict(labels)

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample._replace(labels=self._labels | sample.labels) for sample in metric.samples]
            yield metric


def read_texts(directory: Path) -> dict[str, tuple[float, str]]:
    """Return each unit's file as (seconds since it was written, its text), by unit name.

    What can't be read, isn't UTF-8, or doesn't end in a line feed (half-written) is left out; a missing directory
    has no units.
    """
    texts = {}
    now = time.time()
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == SUFFIX and path.name[0] != ".")
    except OSError:
        return {}
    for path in paths:
        try:
            status = path.stat()
            # Only a regular file: a FIFO by such a name would hang the scrape.
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE:
                continue
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if text.endswith("\n"):
            texts[path.stem] = max(0.0, now - status.st_mtime), text
    return texts


def read(directory: Path, only: tuple[str, ...] = ()) -> dict[str, list[Metric]]:
    """Return what each unit last published, by unit name; files that are half-written or foreign are left out.

    With `only`, nothing but the samples whose names begin so, without their types: much faster with many units.
    """
    units = {}
    for unit, (_, text) in read_texts(directory).items():
        if only:
            text = "".join(f"{line}\n" for line in text.split("\n") if line.startswith(only))
        try:
            units[unit] = list(text_string_to_metric_families(text))
        except (ValueError, KeyError, IndexError):
            continue
    return units


def value(metrics: Iterable[Metric], name: str, **labels: str) -> float:
    """Return the sum of all samples of that name that have these labels; 0 where there is none.

    `name` is the sample's, as it stands in the file: `tradebal_worker_trades_total`.
    """
    return sum(
        sample.value
        for metric in metrics
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
