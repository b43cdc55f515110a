"""What the built packages hold, seen by the distributions' own tools."""

import re
import shutil
import subprocess

import pytest

from tests.bundle import SOURCE
from tests.packages import why_not_built
from tradebal import __version__

pytestmark = [pytest.mark.skipif(bool(why_not_built()), reason=why_not_built()), pytest.mark.timeout(300)]

EXPECTED = [
    "/etc/tradebal/tradebal.toml",
    "/usr/bin/tradebal",
    "/usr/lib/tradebal/bin/tradebal",
    "/usr/lib/tradebal/bin/python3",
    "/usr/share/man/man1/tradebal.1.gz",
    "/usr/share/man/man5/tradebal.toml.5.gz",
    "/usr/share/man/man8/tradebal-balancer.service.8.gz",
    "/usr/share/doc/tradebal/copyright",
    "/usr/share/doc/tradebal/examples/encrypted-key.conf",
    "/usr/share/doc/tradebal/runbook.md",
    "/usr/share/tradebal/grafana/dashboards/market-open.json",
    "/usr/share/tradebal/grafana/prometheus/prometheus.yml",
    "/usr/share/tradebal/grafana/prometheus/rules/alerts.yml",
    "/usr/share/tradebal/grafana/provisioning/datasources/prometheus.yml",
    "/usr/lib/sysusers.d/tradebal.conf",
    "/usr/lib/modules-load.d/tradebal.conf",
    "/usr/lib/sysctl.d/60-tradebal.conf",
    "/usr/lib/systemd/catalog/tradebal.catalog",
    "/usr/lib/systemd/system-generators/tradebal-generator",
    "/usr/lib/systemd/system/tradebal.slice",
    "/usr/lib/systemd/system/tradebal.target",
    "/usr/lib/systemd/system/tradebal-balancer.service",
    "/usr/lib/systemd/system/tradebal-exporter.service",
    "/usr/lib/systemd/system/tradebal-session.timer",
    "/usr/lib/systemd/system/tradebal-worker@.service",
]


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def need(program):
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")


def files_of_deb(package):
    lines = output("dpkg-deb", "--contents", package).splitlines()
    return {line.split(None, 5)[5].partition(" -> ")[0].lstrip("."): line.split()[:2] for line in lines}


def test_the_deb_holds_everything(packages):
    assert set(EXPECTED) - files_of_deb(packages["deb"]).keys() == set()


def test_the_deb_belongs_to_root_and_nobody_else_may_write(packages):
    for path, (mode, owner) in files_of_deb(packages["deb"]).items():
        assert owner == "root/root", path
        assert mode.startswith("l") or mode[5] + mode[8] == "--", path


def test_a_package_serves_every_python_that_it_says(packages):
    depends = output("dpkg-deb", "--field", packages["deb"], "Depends")
    first, behind = re.search(r"python3 \(>= 3\.(\d+)~\), python3 \(<< 3\.(\d+)~\)", depends).groups()
    compiled = {}
    for path in files_of_deb(packages["deb"]):
        if module := re.fullmatch(r"(.*)\.cpython-3(\d+)-.*\.so", path):
            compiled.setdefault(module[1], set()).add(module[2])
    assert {name.rpartition("/")[2] for name in compiled} >= {"orjson", "_cffi_backend", "backend_c"}
    for name, versions in compiled.items():
        assert versions == set(map(str, range(int(first), int(behind)))), name


def test_lintian_finds_nothing(packages):
    need("lintian")
    said = output("lintian", "--fail-on", "error,warning", "--allow-root", packages["deb"])
    assert said == ""


def test_nothing_in_the_deb_names_the_place_where_it_was_built(packages, tmp_path):
    output("dpkg-deb", "--extract", packages["deb"], tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert str(SOURCE).encode() not in path.read_bytes(), path


def test_the_rpm_holds_the_same_and_marks_the_configuration_as_the_admin_s(packages):
    need("rpm")
    in_deb = {path for path, (mode, _) in files_of_deb(packages["deb"]).items() if not mode.startswith("d")}
    in_rpm = set(
        output("rpm", "-qp", "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]", packages["rpm"]).splitlines()
    )
    in_rpm = {line.split()[1] for line in in_rpm if not line.startswith("d")}
    assert in_deb - in_rpm == {"/usr/share/doc/tradebal/changelog.Debian.gz", "/usr/share/lintian/overrides/tradebal"}
    assert in_rpm - in_deb == {"/usr/share/licenses/tradebal/LICENSE"}
    flags = output("rpm", "-qp", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", packages["rpm"])
    assert "/etc/tradebal/tradebal.toml cn" in flags


def test_the_rpm_says_what_it_is_and_needs(packages):
    need("rpm")
    fields = output("rpm", "-qp", "--queryformat", "%{NAME} %{VERSION} %{LICENSE}", packages["rpm"])
    assert fields == f"tradebal {__version__} MIT"
    needs = output("rpm", "-qp", "--requires", packages["rpm"]).splitlines()
    assert {"python3 >= 3.11", "python3 < 3.14", "systemd >= 252"} <= set(needs)
