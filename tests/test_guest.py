"""The package on Debian's own kernel and with systemd as PID 1, over wss: what only a whole machine can show."""

import re
import tempfile
from pathlib import Path

import pytest

from tests.installed import Installed, make_root, why_not
from tests.waiting import until

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
    pytest.mark.timeout(600),
]

TRADES = 1_000_000
SHARDS = range(Installed.count)
REPORT = "/run/sent.json"
CA_FILE = "/run/provider.pem"
URL = "wss://127.0.0.1:9443/stocks"
AUDIT = 'handler = "tradebal.handlers.audit:Audit"\noptions = { report_directory = "/var/lib/desk" }'
BALANCER = "tradebal-balancer.service"


@pytest.fixture(scope="module")
def guest(packages):
    with (
        tempfile.TemporaryDirectory(prefix="guest-") as directory,
        Installed(make_root(Path(directory), packages["deb"])) as machine,
    ):
        yield machine


@pytest.fixture
def product(guest):
    """The guest; afterwards nothing of the product runs, is there or in the journal."""
    yield guest
    stop(guest)
    guest.run("systemctl", "stop", "simulator.service", check=False)
    guest.run("systemctl", "reset-failed")
    guest.run("rm", "-rf", "/var/lib/desk", REPORT, CA_FILE)
    guest.run("journalctl", "--rotate", "--vacuum-size=1")


def simulate(machine, trades):
    machine.simulate("--session=max", f"--trades={trades}", f"--ca-out={CA_FILE}", f"--report={REPORT}")


def stop(machine):
    # Of the target, it would not wait for all units.
    machine.run("systemctl", "stop", "tradebal.target", *machine.units())


def test_the_guest_boots_with_the_package_s_module_and_limits(guest):
    assert guest.run("systemctl", "is-system-running", check=False) == "running\n"
    assert guest.run("lsmod").count("\ntls ") == 1
    assert int(guest.run("cat", "/proc/sys/fs/pipe-max-size")) == 64 << 20


def test_kernel_tls_keeps_its_promises(guest):
    guest.run("modprobe", "tls")
    files = sorted(path.name for path in Path(__file__).parent.glob("test_ktls_*.py"))
    said = guest.pytest(*(f"tests/{name}" for name in files), timeout=400)
    assert re.search(r"= \d+ passed in ", said), said


def test_a_million_trades_arrive_decrypted_by_the_kernel_through_pipes_of_64_mib(product):
    product.run("modprobe", "tls")
    before = product.tls_stat()
    simulate(product, TRADES)
    product.configure(
        feed=f'url = "{URL}"\nca_file = "{CA_FILE}"\ntls = "kernel"', shards=f"count = {len(SHARDS)}", worker=AUDIT
    )
    product.start()
    assert set(product.states("ActiveState", "NRestarts").values()) == {"active 0"}, product.messages("-t", "tradebal")
    product.await_file(REPORT, timeout=200)
    product.await_value("tradebal_trades_total", TRADES)
    assert product.value("tradebal_build_info", tls="kernel") == 1
    capacities = {product.value("tradebal_shard_fifo_capacity_bytes", shard=str(shard)) for shard in SHARDS}
    assert capacities == {64 << 20}
    stop(product)
    assert set(product.states("ActiveState", "Result").values()) == {"inactive success"}
    audits = [product.audit(shard) for shard in SHARDS]
    assert sum(audit["trades"] for audit in audits) == max(audit["last"] for audit in audits) == TRADES
    assert [(audit["disordered"], audit["unnumbered"], audit["gaps"]) for audit in audits] == [(0, 0, [])] * len(SHARDS)
    after = product.tls_stat()
    assert after["TlsRxSw"] == before["TlsRxSw"] + 1
    assert after["TlsDecryptError"] == before["TlsDecryptError"]
    assert not product.messages("-t", "tradebal", "-p", "err")


def test_without_the_kernel_s_module_openssl_decrypts_and_the_log_says_why(product):
    product.run("modprobe", "--remove", "tls")
    simulate(product, 10_000)
    product.configure(feed=f'url = "{URL}"\nca_file = "{CA_FILE}"', shards="count = 1")
    product.start()
    product.await_value("tradebal_worker_trades_total", 10_000)
    until(lambda: product.value("tradebal_build_info", tls="user") == 1, "the choice to be published")
    assert "tls: by=user cause=the kernel's module tls isn't loaded" in product.messages("-u", BALANCER)
    assert product.tls_stat() == {}


def test_without_the_kernel_s_module_nothing_starts_that_was_told_to_use_it(product):
    product.run("modprobe", "--remove", "tls")
    product.configure(feed=f'url = "{URL}"\ntls = "kernel"')
    product.run("systemctl", "start", BALANCER, check=False)
    assert product.show(BALANCER, "ActiveState", "ExecMainStatus", "NRestarts") == "failed 2 0"
    assert "module tls isn't loaded" in product.messages("-u", BALANCER, "-p", "err")
