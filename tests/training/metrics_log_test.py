"""The metrics log: nothing of it is lost where the disk is full for a while, and nothing raises where it stays so."""

import os
from pathlib import Path

import pytest

from contextjax.training.goodput import Goodput
from contextjax.training.metrics_log import METRICS, MetricsLog, read_metrics
from tests.checkpoints.states import no_room

GIVEN_UP = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # TensorBoard's file is, then


@GIVEN_UP
def test_what_had_no_room_is_written_when_it_is_closed_and_reported_once(tmp_path, capsys):
    log = MetricsLog(tmp_path, Goodput(), step=0)
    log.write(1, {"loss": 1.0})
    with no_room(30):
        for step in (2, 3):
            log.write(step, {"loss": 1.0})
    log.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    assert capsys.readouterr().err.count("training goes on") == 1


@GIVEN_UP
def test_closing_on_a_full_disk_raises_nothing(tmp_path):
    """Another error may be on its way, which it would replace."""
    log = MetricsLog(tmp_path, Goodput(), step=0)
    log.write(1, {"loss": 1.0})
    with no_room(30):
        log.write(2, {"loss": 1.0})
        log.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]


@pytest.mark.parametrize(
    "damaged", [b"{cut", b"\xff\xfe\x00", b"[1, 2]", b'{"step": "2"}', b'{"step": 2, "step": 3}', b"null"]
)
def test_a_damaged_line_is_set_aside_and_all_later_ones_stay(tmp_path, damaged, capsys):
    lines = [f'{{"step": {step}, "loss": 1.0, "seconds": {step}}}'.encode() for step in (1, 2, 3, 4)]
    path = tmp_path / METRICS
    path.write_bytes(b"\n".join([lines[0], damaged, lines[2], lines[3], lines[3][:9]]))
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 3, 4]
    assert "1 damaged line left out" in capsys.readouterr().err
    MetricsLog(tmp_path, Goodput(), step=3).close()
    assert path.read_bytes().splitlines() == [lines[0], lines[2]]
    assert (tmp_path / f"{METRICS}.damaged").read_bytes() == damaged + b"\n"
    assert "has 1 damaged line: set aside in metrics.jsonl.damaged" in capsys.readouterr().err


def test_lines_are_on_the_disk_when_a_checkpoint_is_begun(tmp_path, monkeypatch):
    """Else a cut of the power would leave a step that is safe and has no lines."""
    synced, sync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink().name) or sync(handle)
    )
    log = MetricsLog(tmp_path, Goodput(), step=0)
    assert any(METRICS in name for name in synced) and tmp_path.name in synced
    synced.clear()
    log.write(1, {"loss": 1.0})
    log.sync()
    assert synced[-1] == METRICS
    log.close()


def test_every_writer_gets_the_numbers_and_is_closed(tmp_path):
    class Writer:
        lines, is_closed = [], False

        def write(self, step, values):
            self.lines.append((step, values))

        def close(self):
            self.is_closed = True

    writer = Writer()
    log = MetricsLog(tmp_path, Goodput(), step=0, writers=[writer])
    log.write(3, {"loss": 1}, bad_step={"records": ["a"]})
    log.close()
    assert writer.lines == [(3, {"loss": 1.0})] and writer.is_closed
    (line,) = read_metrics(tmp_path)
    assert line["bad_step"] == {"records": ["a"]} and line["seconds"] == 0
