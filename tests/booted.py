"""The bundle on a booted systemd, and what the tests want to know of it."""

import itertools

import pytest

from tests import boot, bundle
from tests.waiting import until
from tradebal.monitoring import publish

KEY = "a-key-that-nobody-may-see"
DESK = bundle.SOURCE / "systemd/examples/handler-writes-files.conf"
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"

_WHY_NOT = boot.why_not() or bundle.why_not()
needs_boot = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "-")


class Product(boot.Systemd):
    """A systemd with the bundle on it, of `count` shards; `figures` gives the samples that its units published."""

    count = 3

    def start(self):
        self.run("systemctl", "start", "tradebal.target")

    def workers(self):
        return [f"tradebal-worker@{shard}.service" for shard in range(self.count)]

    def units(self):
        return ["tradebal-balancer.service", "tradebal-exporter.service", *self.workers()]

    def states(self, *properties):
        return {unit: self.show(unit, *(properties or ("ActiveState",))) for unit in self.units()}

    def main_pid(self, unit):
        return int(self.show(unit, "MainPID"))

    def kill(self, unit, name):
        self.run("systemctl", "kill", "--kill-whom=main", f"--signal={name}", unit)

    def await_new_pid(self, unit, old):
        until(
            lambda: self.main_pid(unit) not in (0, old) and self.show(unit, "ActiveState") == "active",
            f"{unit} to be back",
        )

    def await_entry(self, text, *arguments):
        until(lambda: text in self.messages(*arguments), f"the journal to have {text!r}")

    def value(self, name, **labels):
        return publish.value(self.figures(), name, **labels)

    def await_value(self, name, at_least, **labels):
        until(lambda: self.value(name, **labels) >= at_least, f"{name} to reach {at_least}")

    def await_caught_up(self):
        """Until nothing waits for a worker; a balancer that stops gives them 10 s at most."""
        waiting = ("tradebal_shard_overflow_bytes", "tradebal_shard_fifo_bytes")
        until(lambda: not sum(map(self.value, waiting)), "the workers to catch up")


class Bundled(Product, boot.Machine):
    """A machine in namespaces with the bundle in it."""

    def configure(self, text):
        self.path("/etc/tradebal/tradebal.toml").write_text(text)

    def simulate(self, *arguments):
        self.run("systemd-run", "--unit=simulator", "tradebal", "simulate", "--no-tls", *arguments)
        self.await_entry("listening:", "-u", "simulator")

    def figures(self):
        return itertools.chain(*publish.read(self.path("/run/tradebal/metrics")).values())

    def desk(self, shard):
        """What the worker's handler got: numbers, and reasons of gaps."""
        text = self.path(f"/var/lib/desk/{shard}").read_text()
        return [int(line) if line.isdigit() else line for line in text.split() if len(line) == 9 or line.isalpha()]


class System(Bundled):
    """The working tree's bundle over this machine's own root, and a key; nothing is started. Keeps to `directory`."""

    def __init__(self, directory, *, count=3, url="ws://127.0.0.1:9080/stocks", configuration=""):
        layer = directory / "layer"
        bundle.lay_out(layer)
        super().__init__(layer)
        self.count = count
        self.configuration = f'[feed]\nurl = "{url}"\n[metrics]\ninterval = 0.1\n{configuration}\n'
        self.prepare("etc/tradebal/tradebal.toml", self.toml(count))
        self.prepare("etc/credstore/feed-key", f"{KEY}\n", 0o600)

    def toml(self, count):
        return f"{self.configuration}[shards]\ncount = {count}\n"

    def with_desk(self):
        """Let the workers run the handler of tests/desk.py."""
        self.configuration += '[worker]\nhandler = "desk:Desk"\n'
        self.prepare("etc/tradebal/tradebal.toml", self.toml(self.count))
        self.prepare("opt/desk/desk.py", (bundle.SOURCE / "tests/desk.py").read_text())
        self.prepare("etc/systemd/system/tradebal-worker@.service.d/override.conf", DESK.read_text())
        return self


def runs(entries):
    """The numbers between gaps, and the gaps."""
    gaps = [entry for entry in entries if isinstance(entry, str)]
    groups = itertools.groupby(entries, lambda entry: isinstance(entry, str))
    return [list(group) for is_gap, group in groups if not is_gap], gaps


def assert_growing(numbers):
    assert all(before < after for before, after in itertools.pairwise(numbers))
