"""The metrics files: written whole, read with suspicion."""

import logging
import os

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

from tests.waiting import until
from tradebal.monitoring import publish
from tradebal.monitoring.publish import Publisher


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_what_is_published_reads_back(registry, tmp_path):
    counter = Counter("tradebal_things", "Things.", ["kind"], registry=registry)
    counter.labels("a").inc(2)
    counter.labels("b").inc(3)
    Publisher(registry, tmp_path / "not" / "there" / "yet", "worker-0").publish()
    units = publish.read(tmp_path / "not" / "there" / "yet")
    assert list(units) == ["worker-0"]
    assert publish.value(units["worker-0"], "tradebal_things_total") == 5
    assert publish.value(units["worker-0"], "tradebal_things_total", kind="b") == 3
    assert publish.value(units["worker-0"], "tradebal_nothing_total") == 0


def test_publishers_labels_are_on_every_series_that_does_not_have_them_itself(registry, tmp_path):
    Counter("plain", "Plain.", registry=registry).inc()
    Counter("own", "Own.", ["shard"], registry=registry).labels("7").inc()
    Histogram("took", "Took.", registry=registry, buckets=(1,)).observe(0.5)
    Publisher(registry, tmp_path, "worker-3", {"shard": "3"}).publish()
    text = (tmp_path / "worker-3.prom").read_text()
    assert 'plain_total{shard="3"} 1.0\n' in text
    assert 'own_total{shard="7"} 1.0\n' in text
    assert 'took_bucket{le="1.0",shard="3"} 1.0\n' in text
    assert 'took_sum{shard="3"} 0.5\n' in text
    assert "_created" not in text


def test_publishing_again_does_not_change_the_registry(registry, tmp_path):
    Counter("plain", "Plain.", registry=registry).inc()
    publisher = Publisher(registry, tmp_path, "worker-3", {"shard": "3"})
    publisher.publish()
    first = (tmp_path / "worker-3.prom").read_text()
    publisher.publish()
    assert (tmp_path / "worker-3.prom").read_text() == first
    assert [path.name for path in tmp_path.iterdir()] == ["worker-3.prom"]


def test_failure_to_write_is_logged_once_and_so_is_its_end(registry, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "place").write_text("in the way")
    publisher = Publisher(registry, tmp_path / "place", "balancer")
    publisher.publish()
    publisher.publish()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"file={tmp_path}/place/balancer.prom error=Not a directory" in caplog.text
    (tmp_path / "place").unlink()
    publisher.publish()
    publisher.publish()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_what_is_written_in_the_background_is_as_of_the_call_and_a_later_write_comes_after_it(registry, tmp_path):
    series = Gauge("series", "Many.", ["number"], registry=registry)
    for number in range(2000):
        series.labels(number).set(1)
    publisher = Publisher(registry, tmp_path, "balancer")
    file = tmp_path / "balancer.prom"
    for value in (1, 2):
        publisher.publish_soon()
        series.labels(0).set(value + 1)
        until(file.exists, "the file")
        assert f'series{{number="0"}} {value}.0\n' in file.read_text()
        file.unlink()
    publisher.publish_soon()
    publisher.publish()
    assert file.read_text().count("\nseries") == 2000


def test_a_writer_that_hangs_holds_up_nobody_is_named_once_and_writes_again_when_it_can(registry, tmp_path, caplog):
    caplog.set_level(logging.INFO, "tradebal")
    counter = Counter("plain", "Plain.", registry=registry)
    file, partial = tmp_path / "balancer.prom", tmp_path / ".balancer.prom.partial"
    os.mkfifo(partial)  # to be opened for writing once somebody reads
    publisher = Publisher(registry, tmp_path, "balancer", patience=0.0)
    for _ in range(100):
        publisher.publish_soon()
        counter.inc()
    publisher.publish()
    assert partial.read_bytes().endswith(b"plain_total 0.0\n")
    until(lambda: len(caplog.messages) == 2, "the file")
    assert caplog.messages == [
        f"metrics not written: file={file} error=the write before hangs",
        f"metrics written again: file={file}",
    ]
    until(lambda: publisher.publish() or publish.value(publish.read(tmp_path)["balancer"], "plain_total") == 100, "all")


def test_series_that_cannot_be_written_are_said_and_end_nothing(registry, tmp_path, caplog):
    publisher = Publisher(registry, tmp_path, "worker-0")
    family = GaugeMetricFamily("nonsense", "None.")
    family.add_metric([], None)
    registry.register(Always(family))
    for _ in range(3):
        publisher.publish_soon()
    until(lambda: "metrics not written" in caplog.text, "the warning")
    publisher.publish()
    assert len(caplog.records) == 1


class Always:
    def __init__(self, *families):
        self.families = families

    def collect(self):
        return self.families


def test_files_that_are_none_of_ours_are_left_out(registry, tmp_path):
    Counter("good", "Good.", registry=registry).inc()
    Publisher(registry, tmp_path, "good").publish()
    (tmp_path / "half.prom").write_text('# TYPE x counter\nx_total{shard="0')
    (tmp_path / "garbage.prom").write_text("}{ this is no metric\n")
    (tmp_path / "binary.prom").write_bytes(b"\xff\xfe\n")
    (tmp_path / "other.txt").write_text("x_total 1\n")
    (tmp_path / ".hidden.prom").write_text("x_total 1\n")
    (tmp_path / "folder.prom").mkdir()
    os.mkfifo(tmp_path / "fifo.prom")
    (tmp_path / "dangling.prom").symlink_to(tmp_path / "nothing")
    assert list(publish.read(tmp_path)) == ["good"]


def test_missing_directory_has_no_units(tmp_path):
    assert publish.read(tmp_path / "nothing") == {}


def test_reading_a_part_gives_those_samples_only(registry, tmp_path):
    Counter("tradebal_things", "Things.", registry=registry).inc(2)
    Counter("tradebal_other", "Other.", registry=registry).inc(3)
    Publisher(registry, tmp_path, "worker-0").publish()
    (tmp_path / "garbage.prom").write_text("tradebal_things_total is no number\n")
    units = publish.read(tmp_path, ("tradebal_things",))
    assert list(units) == ["worker-0"]
    assert publish.value(units["worker-0"], "tradebal_things_total") == 2
    assert publish.value(units["worker-0"], "tradebal_other_total") == 0
