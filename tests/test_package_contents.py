"""What the built packages hold, seen by the distributions' own tools."""

import re
import shutil
import subprocess

import pytest

from tests.packages import build, why_not_built
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
    "/usr/lib/sysusers.d/tradebal.conf",
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


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    return build(tmp_path_factory.getbasetemp().parent / "packages")


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
    assert [path for path in EXPECTED if path not in files_of_deb(packages["deb"])] == []


def test_the_deb_belongs_to_root_and_nobody_else_may_write(packages):
    for path, (mode, owner) in files_of_deb(packages["deb"]).items():
        assert owner == "root/root", path
        assert mode.startswith("l") or mode[5] + mode[8] == "--", path


def test_the_deb_depends_on_the_python_that_it_was_built_for(packages):
    depends = output("dpkg-deb", "--field", packages["deb"], "Depends")
    found = re.search(r"python3 \(>= 3\.(\d+)~\), python3 \(<< 3\.(\d+)~\)", depends)
    assert found, depends
    assert int(found[2]) == int(found[1]) + 1


def test_lintian_finds_nothing(packages):
    need("lintian")
    said = output("lintian", "--fail-on", "error,warning", "--allow-root", packages["deb"])
    assert said == ""


def test_nothing_in_the_deb_names_the_place_where_it_was_built(packages, tmp_path):
    output("dpkg-deb", "--extract", packages["deb"], tmp_path / "tree")
    place = str(tmp_path.parent.parent).encode()
    source = b"build/package"
    for path in (tmp_path / "tree").rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert place not in content, path
            assert source not in content, path


def test_the_rpm_holds_everything_and_marks_the_configuration_as_the_admins(packages):
    need("rpm")
    files = output("rpm", "-qpl", packages["rpm"]).splitlines()
    assert [path for path in EXPECTED if path not in files] == []
    assert output("rpm", "-qp", "--configfiles", packages["rpm"]).split() == ["/etc/tradebal/tradebal.toml"]
    flags = output("rpm", "-qp", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", packages["rpm"])
    assert "/etc/tradebal/tradebal.toml cn" in flags


def test_the_rpm_says_what_it_is_and_needs(packages):
    need("rpm")
    fields = output("rpm", "-qp", "--queryformat", "%{NAME} %{VERSION} %{LICENSE}", packages["rpm"])
    assert fields == f"tradebal {__version__} MIT"
    needs = output("rpm", "-qp", "--requires", packages["rpm"])
    assert "python(abi) = 3." in needs
    assert "systemd >= 252" in needs
    scripts = output("rpm", "-qp", "--scripts", packages["rpm"])
    for step in ("systemd-sysusers tradebal.conf", "systemctl daemon-reload", "systemctl try-restart", "disable --now"):
        assert step in scripts
