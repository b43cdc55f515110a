"""The alerts fire when they should, only then, and by New York's calendar; each has a section in the runbook."""

import datetime
import re
import subprocess
from zoneinfo import ZoneInfo

import pytest

from tests.prometheus import FOLDER, needs_prometheus, prometheus

NEW_YORK = ZoneInfo("America/New_York")
RULES = sorted((FOLDER / "rules").glob("*.yml"))
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
RUNBOOK = FOLDER.parent.parent / "docs" / "runbook.md"

# As the New York Stock Exchange published them.
HOLIDAYS = {
    2024: "01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25",
    2025: "01-01 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
    2026: "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25",
    2027: "01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24",
    2028: "01-17 02-21 04-14 05-29 06-19 07-04 09-04 11-23 12-25",
}
EARLY_CLOSES = {
    2024: "07-03 11-29 12-24",
    2025: "07-03 11-28 12-24",
    2026: "11-27 12-24",
    2027: "11-26",
    2028: "07-03 11-24",
}


def alert_names():
    return re.findall(r"- alert: (\w+)", (FOLDER / "rules" / "alerts.yml").read_text())


def utc(*date):
    return datetime.datetime(*date, tzinfo=datetime.UTC)


def days(by_year):
    return {f"{year}-{day}" for year, listed in by_year.items() for day in listed.split()}


def inlined(name, **given):
    """Return a recorded expression with what it builds on put in, so that it can be asked of any time."""
    text = (FOLDER / "rules" / "market-hours.yml").read_text()
    found = re.findall(r"- record: (\S+)\n +expr: (?:\|\n((?: {10,}.*\n)+)|(.*))", text)
    rules = {rule: block or line for rule, block, line in found} | given
    expression = f"({name})"
    while names := re.findall(r"newyork:\w+|tradebal:\w+", expression):
        expression = expression.replace(names[0], f"({rules[names[0]]})")
    return re.sub(r"\s+", " ", re.sub(r"#.*", "", expression))


def values(server, expression, begin, end, step):
    """Return {UTC time: value} from `begin` to before `end`; each `step`, with Prometheus' limit on points in mind."""
    found = {}
    first, last = int(begin.timestamp()), int(end.timestamp()) - 1
    for start in range(first, last, 10_000 * step):
        (series,) = server.range(expression, start, min(start + 9_999 * step, last), step)
        found |= {datetime.datetime.fromtimestamp(at, datetime.UTC): float(value) for at, value in series["values"]}
    assert len(found) == -((first - last) // step)
    return found


@needs_prometheus
def test_rules_and_configuration_are_valid():
    subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES], check=True)
    subprocess.run(["promtool", "check", "config", FOLDER / "prometheus.yml"], check=True)


@needs_prometheus
@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(file):
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_firing():
    expected = "".join(file.read_text() for file in TESTS)
    assert [name for name in alert_names() if f'alertname="{name}", alertstate="firing"' not in expected] == []


def test_each_alert_has_a_summary_a_description_and_its_section_in_the_runbook():
    text = (FOLDER / "rules" / "alerts.yml").read_text()
    sections = re.findall(r"^### (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sections == alert_names()
    for name, body in zip(alert_names(), re.split(r"- alert: \w+", text)[1:], strict=True):
        assert "summary:" in body
        assert "description:" in body
        assert f"runbook: docs/runbook.md#{name.lower()}" in body


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with prometheus(tmp_path_factory.mktemp("prometheus")) as running:
        yield running


@needs_prometheus
def test_new_yorks_offset_is_right_in_each_hour_of_ten_years(server):
    begin, end = utc(2024, 1, 1), utc(2034, 1, 1)
    found = values(server, inlined("newyork:utc_offset_seconds"), begin, end, 3600)
    wrong = [at for at, value in found.items() if at.astimezone(NEW_YORK).utcoffset().total_seconds() != value]
    assert wrong == []


@needs_prometheus
@pytest.mark.parametrize(("rule", "published"), [("holiday", HOLIDAYS), ("early_close", EARLY_CLOSES)])
def test_holidays_and_short_days_are_those_that_the_exchange_published(server, rule, published):
    # The wall clock is given, so that a day of the query is a day of New York.
    expression = inlined(f"newyork:{rule}", **{"newyork:timestamp_seconds": "vector(time())"})
    found = values(server, expression, utc(2024, 1, 1), utc(2029, 1, 1), 86400)
    kept = {at.date().isoformat() for at, value in found.items() if value and at.weekday() < 5}
    assert kept == days(published)
    assert set(found.values()) == {0.0, 1.0}


@needs_prometheus
@pytest.mark.parametrize(
    ("holiday", "early", "regular", "extended"),
    [
        (0, 0, ("09:30", "16:00"), ("04:00", "20:00")),
        (0, 1, ("09:30", "13:00"), ("04:00", "17:00")),
        (1, 0, ("", ""), ("", "")),
    ],
    ids=["full day", "short day", "holiday"],
)
def test_sessions_begin_and_end_as_the_exchange_does(server, holiday, early, regular, extended):
    given = {
        "newyork:timestamp_seconds": "vector(time())",
        "newyork:holiday": f"vector({holiday})",
        "newyork:early_close": f"vector({early})",
    }
    found = values(server, inlined("tradebal:market_session", **given), utc(2026, 11, 8), utc(2026, 11, 15), 600)
    for at, value in found.items():
        clock = f"{at:%H:%M}"
        open_now = [begin <= clock < end and at.weekday() < 5 for begin, end in (regular, extended)]
        assert value == sum(open_now), at
