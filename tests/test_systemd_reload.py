"""`systemctl reload` validates first, and keeps the connection."""

from tests.booted import System, needs_boot
from tests.waiting import until
from tradebal.systemd import events

pytestmark = needs_boot


def test_a_reload_takes_over_subscriptions_and_pins_and_keeps_the_connection(tmp_path):
    with System(tmp_path) as machine:
        machine.simulate("--session", "steady", "--rate", "5000")
        machine.start()
        machine.await_value("tradebal_trades_total", 1000)
        file = machine.path("/etc/tradebal/tradebal.toml")
        file.write_text(
            file.read_text().replace("[feed]\n", '[feed]\nsubscribe = ["T.SPY"]\n')
            + "pin = { SPY = 2 }\npipe_size = '128KiB'\n"
        )
        before = machine.main_pid("tradebal-balancer.service")
        machine.run("systemctl", "reload", "tradebal-balancer.service")
        until(lambda: machine.journal(f"MESSAGE_ID={events.RELOADED.message_id}"), "the reload")
        waiting = until(lambda: machine.journal(f"MESSAGE_ID={events.NOT_RELOADED.message_id}"), "what waits")[0]
        assert waiting["KEYS"] == "shards.pipe_size"
        routed = machine.value("tradebal_shard_trades_total", shard="2")
        machine.await_value("tradebal_shard_trades_total", routed + 100, shard="2")
        assert machine.main_pid("tradebal-balancer.service") == before
        until(lambda: machine.show("tradebal-balancer", "ActiveState") == "active", "the reload's end")
        assert machine.value("tradebal_connects_total") == 1


def test_a_configuration_that_cannot_be_used_fails_the_reload_and_changes_nothing(tmp_path):
    with System(tmp_path) as machine:
        machine.simulate("--session", "steady", "--rate", "5000")
        machine.start()
        machine.await_value("tradebal_trades_total", 1000)
        machine.path("/etc/tradebal/tradebal.toml").write_text("[shards]\ncuont = 3\n")
        before = machine.main_pid("tradebal-balancer.service")
        assert "failed" in machine.run("systemctl", "reload", "tradebal-balancer.service", check=False, stderr=True)
        assert "shards.cuont: unknown key; did you mean" in machine.messages("-u", "tradebal-balancer", "-p", "err")
        assert machine.main_pid("tradebal-balancer.service") == before
        assert machine.show("tradebal-balancer", "ActiveState") == "active"
        counted = machine.value("tradebal_trades_total")
        machine.await_value("tradebal_trades_total", counted + 1000)
