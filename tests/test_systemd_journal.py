"""The journal can be searched by unit, priority, kind of event and field, and explains itself."""

import json
import re

from tests import bundle
from tests.booted import System, needs_boot
from tests.waiting import until
from tradebal.systemd import events

CATALOG = bundle.SOURCE / "systemd/tradebal.catalog"
EVENTS = {name: value.message_id for name, value in vars(events).items() if isinstance(value, events.Event)}


def test_every_event_has_an_id_of_its_own_and_is_in_the_catalog():
    explained = re.findall(r"^-- ([0-9a-f]{32})$", CATALOG.read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(EVENTS.values())
    assert len(set(explained)) == len(explained)


@needs_boot
def test_events_are_found_by_id_field_and_priority_and_are_explained(tmp_path):
    with System(tmp_path) as machine:
        machine.run("journalctl", "--update-catalog")
        machine.simulate("--session", "steady", "--rate", "30000")
        machine.start()
        machine.await_value("tradebal_trades_total", 30_000)
        live = machine.journal(f"MESSAGE_ID={events.LIVE.message_id}")[0]
        assert live["CONNECTION"] == "1"
        assert live["URL"] == "ws://127.0.0.1:9080/stocks"
        assert live["PRIORITY"] == "6"
        assert live["SYSLOG_IDENTIFIER"] == "tradebal"
        assert live["_SYSTEMD_UNIT"] == "tradebal-balancer.service"
        rates = machine.journal(f"MESSAGE_ID={events.RATE.message_id}", "-u", "tradebal-balancer")
        assert all(int(rate["RATE"]) > 0 and rate["MESSAGE"].endswith(" t/s") for rate in rates[1:])
        machine.kill("tradebal-worker@1.service", "STOP")
        machine.run("systemctl", "stop", "simulator")
        until(lambda: machine.journal(f"MESSAGE_ID={events.CONNECT_FAILED.message_id}"), "the outage to be said")
        lost = machine.journal(f"MESSAGE_ID={events.DISCONNECTED.message_id}")[0]
        assert lost["REASON"] in ("closed", "eof", "reset")
        assert lost["PRIORITY"] == "4"
        warnings = machine.messages("-t", "tradebal", "-p", "warning")
        assert "disconnected: " in warnings
        assert "live: " not in warnings
        explained = machine.run("journalctl", "-x", f"MESSAGE_ID={events.DISCONNECTED.message_id}")
        assert f"The reason was {lost['REASON']}." in explained
        machine.kill("tradebal-worker@1.service", "CONT")


@needs_boot
def test_at_full_speed_statistics_are_capped_and_none_is_lost(tmp_path):
    with System(tmp_path, count=1) as machine:
        machine.simulate("--session", "max", "--trades", "4000000")
        machine.start()
        machine.await_value("tradebal_trades_total", 4_000_000)
        machine.run("systemctl", "stop", "tradebal-balancer")
        lines = [line for line in machine.messages("-u", "tradebal-balancer").splitlines() if " Rate {" in line]
        stood_for = [int(match[1]) if (match := re.search(r"\((\d+) batches\)$", line)) else 1 for line in lines]
        assert sum(stood_for) == 4_000_000 // 8192
        times = [float(line[1:].partition("]")[0]) for line in lines]
        assert all(sum(start <= time < start + 1 for time in times) <= 102 for start in times)
        assert not machine.messages("-t", "systemd-journald", "--grep", "Suppressed")


def test_fields_are_upper_case_and_strings_for_any_reader():
    extra = events.DROPPED(SHARD=3, DROPPED=7)
    assert json.loads(json.dumps(extra)) == {
        "journal": {"MESSAGE_ID": events.DROPPED.message_id, "SHARD": 3, "DROPPED": 7}
    }
