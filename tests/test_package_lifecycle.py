"""The packages in a clean Debian, without a network: installed, upgraded, removed and purged."""

import pytest

from tests.packages import CleanRoot, build, next_version, why_no_clean_root

pytestmark = [pytest.mark.skipif(bool(why_no_clean_root()), reason=why_no_clean_root()), pytest.mark.timeout(300)]

CONFIGURATION = "/etc/tradebal/tradebal.toml"


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    return build(tmp_path_factory.getbasetemp().parent / "packages")


@pytest.fixture
def root(tmp_path, tmp_path_factory):
    with CleanRoot(tmp_path_factory.getbasetemp().parent / "packages", tmp_path) as clean:
        yield clean


def test_installed_without_a_network_its_commands_work(packages, root):
    said = root.run("dpkg", "--install", root.bring(packages["deb"]))
    assert "warning" not in said.lower()
    assert root.run("dpkg", "--verify", "tradebal") == ""
    assert root.run("getent", "passwd", "tradebal").endswith(":/var/lib/tradebal:/usr/sbin/nologin\n")
    assert root.run("tradebal", "shard", "--shards", "1", "SPY") == "SPY\t0\n"
    ready = root.run("tradebal", "check", check=False)
    assert f"from {CONFIGURATION}" in ready
    assert "FAIL  feed key" in ready
    assert "router: kind=native" in ready
    # The one command that uses every package that comes along.
    assert "Every trade reached its worker, once and in order" in root.run("tradebal", "demo", "--duration", "3")
    # Nothing is compiled, or written anywhere else, below what belongs to dpkg.
    written = root.run("find", "/usr/lib/tradebal", "-newer", "/var/lib/dpkg/info/tradebal.list", "-type", "f")
    assert written == ""


def test_units_and_generator_are_what_systemd_accepts(packages, root):
    root.run("dpkg", "--install", root.bring(packages["deb"]))
    units = root.run("find", "/usr/lib/systemd/system", "-name", "tradebal*", "!", "-name", "*@*").split()
    said = root.run("systemd-analyze", "verify", "--man=no", "--generators=no", *units, check=False)
    assert [line for line in said.splitlines() if "tradebal" in line] == []
    root.run("mkdir", "/tmp/generated")
    root.run("/usr/lib/systemd/system-generators/tradebal-generator", *["/tmp/generated"] * 3)
    wanted = root.run("ls", "/tmp/generated/tradebal.target.wants").split()
    assert wanted == [f"tradebal-worker@{shard}.service" for shard in range(7)]


def test_an_upgrade_keeps_the_configuration(packages, root, tmp_path):
    root.run("dpkg", "--install", root.bring(packages["deb"]))
    root.path(CONFIGURATION).write_text("[shards]\ncount = 3\n")
    root.run(
        "dpkg", "--force-confdef", "--force-confold", "--install", root.bring(next_version(packages["deb"], tmp_path))
    )
    assert root.run("dpkg-query", "--show", "--showformat=${Version}", "tradebal").startswith("1:")
    assert root.path(CONFIGURATION).read_text() == "[shards]\ncount = 3\n"
    assert "changed by the next version" in root.path(CONFIGURATION + ".dpkg-dist").read_text()


def test_an_upgrade_brings_the_new_default_configuration_where_nobody_changed_it(packages, root, tmp_path):
    root.run("dpkg", "--install", root.bring(packages["deb"]))
    root.run("dpkg", "--install", root.bring(next_version(packages["deb"], tmp_path)))
    assert "changed by the next version" in root.path(CONFIGURATION).read_text()


def test_removed_it_leaves_configuration_and_state_and_purged_nothing(packages, root):
    root.run("dpkg", "--install", root.bring(packages["deb"]))
    root.run("install", "-d", "-o", "tradebal", "/var/lib/tradebal/overflow", "/run/tradebal")
    root.run("touch", "/var/lib/tradebal/overflow/rejects.ndjson", "/run/tradebal/shard-0.fifo")
    root.run("systemctl", "enable", "tradebal.target", "tradebal-session.timer")
    root.run("dpkg", "--remove", "tradebal")
    assert not root.path("/usr/lib/tradebal").exists()
    assert not root.path("/usr/bin/tradebal").is_symlink()
    assert root.path(CONFIGURATION).exists()
    assert root.path("/var/lib/tradebal/overflow/rejects.ndjson").exists()
    root.run("dpkg", "--purge", "tradebal")
    left = root.run("find", "/etc", "/run", "/usr", "/var", "-name", "*tradebal*")
    assert left == ""


def test_the_rpm_installs_and_removes_likewise(packages, root):
    rpm = ("rpm", "--root", root.root, "--nodeps")
    root.run_on(*rpm, "--install", packages["rpm"])
    assert root.run_on(*rpm, "--verify", "tradebal") == ""
    assert root.run("getent", "passwd", "tradebal").startswith("tradebal:")
    assert root.run("tradebal", "shard", "--shards", "1", "SPY") == "SPY\t0\n"
    root.path(CONFIGURATION).write_text("[shards]\ncount = 3\n")
    root.run_on(*rpm, "--install", "--replacepkgs", packages["rpm"])
    assert root.path(CONFIGURATION).read_text() == "[shards]\ncount = 3\n"
    root.run_on(*rpm, "--erase", "tradebal")
    assert not root.path("/usr/lib/tradebal").exists()
    assert root.path(CONFIGURATION + ".rpmsave").read_text() == "[shards]\ncount = 3\n"
