"""The package in a guest, and these tests beside it, to be run on its kernel."""

import functools
import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests import guest, packages
from tests.booted import DESK, KEY, Product
from tests.bundle import SOURCE

PYTHON = "3.11"
"""Debian 12's."""

_NEEDED_BY_TESTS = ("hypothesis", "pytest", "pytest-timeout")
_OPT = Path("/opt/tests")


@functools.cache
def why_not():
    """Return why the package can't be tried in a guest here; "" if it can."""
    return guest.why_not() or packages.why_not_built()


def make_root(directory, deb):
    """Make a root in `directory`: with the package, a key, and these tests with what they need besides."""
    root = guest.make_root(directory / "root", packages=["ca-certificates", "openssl", "tzdata"], files=[deb])
    target = root / _OPT.relative_to("/")
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in _NEEDED_BY_TESTS]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    fit = ["--only-binary=:all:", f"--python-version={PYTHON}", "--target", target / "packages"]
    subprocess.run([*pip, *fit, *wanted], check=True)
    shutil.copytree(SOURCE / "tests", target / "tests", ignore=shutil.ignore_patterns("fuzz", "__pycache__"))
    shutil.copy(SOURCE / "pyproject.toml", target)
    key = root / "etc/credstore/feed-key"
    key.parent.mkdir(mode=0o700)
    key.write_text(KEY)
    key.chmod(0o600)
    override = root / "etc/systemd/system/tradebal-worker@.service.d/override.conf"
    override.parent.mkdir()
    shutil.copy(DESK, override)
    return root


class Installed(Product, guest.Guest):
    """A guest of that root."""

    count = 2

    def configure(self, **tables):
        text = "".join(f"[{table}]\n{keys}\n" for table, keys in tables.items())
        self.run("sh", "-c", 'printf %s "$1" >/etc/tradebal/tradebal.toml', "-", text)
        self.run("systemctl", "daemon-reload")

    def await_file(self, path, timeout=60.0):
        # In there: each question from here takes a good part of a second of an emulated processor.
        self.run("sh", "-c", 'until test -e "$1"; do sleep 0.2; done', "-", path, timeout=timeout)

    def simulate(self, *arguments):
        listening = "/run/simulator.port"
        self.run("rm", "-f", listening)
        self.run("systemd-run", "--unit=simulator", "tradebal", "simulate", f"--port-file={listening}", *arguments)
        self.await_file(listening)

    def figures(self):
        lines = "grep --no-filename ^tradebal_ /run/tradebal/metrics/*.prom"
        return text_string_to_metric_families(self.run("sh", "-c", lines, check=False))

    def pytest(self, *files, timeout):
        """Run test files on the package's Python; a test that is skipped has failed. Return what pytest said."""
        environment = [f"PYTHONPATH={_OPT}/packages", "TRADEBAL_NO_SKIPS=1"]
        command = ["/usr/lib/tradebal/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", *files]
        return self.run("env", f"--chdir={_OPT}", *environment, *command, timeout=timeout)

    def tls_stat(self):
        """The kernel's counts of TLS (Documentation/networking/tls.rst)."""
        text = self.run("cat", "/proc/net/tls_stat", check=False)
        return {name: int(count) for name, count in map(str.split, text.splitlines())}

    def audit(self, shard):
        return json.loads(self.run("cat", f"/var/lib/desk/audit-{shard}.json"))
