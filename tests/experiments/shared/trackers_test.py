"""Trackers: what is written offline to Weights & Biases and MLflow, runs that go on, failures, bad input."""

import json

import pytest
from ml_collections import ConfigDict

from contextjax.types import UserError
from experiments.shared import trackers
from experiments.shared.trackers import attach_to_trackers, check_trackers, open_trackers

CONFIG = ConfigDict({"seed": 3, "data": {"folder": "a", "freeze": ("clip",)}, "training": {"best": {}}})


class Remembered:
    """A tracker that remembers what it is given, or fails."""

    runs: dict = {}  # noqa: RUF012

    def __init__(self, workdir, address):
        self.address = {"id": address.get("id", str(len(self.runs)))}
        self.calls = self.runs.setdefault(self.address["id"], [])

    def write(self, step, values):
        if step == 13:
            raise ConnectionError("no \x1bnetwork")
        self.calls.append((step, dict(values)))

    def describe(self, config):
        self.calls.append(dict(config))

    def attach(self, file):
        self.calls.append(file.name)

    def close(self):
        self.calls.append("closed")


@pytest.fixture
def remembered(monkeypatch):
    monkeypatch.setattr(Remembered, "runs", {})
    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": Remembered})
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)
    return Remembered.runs


def run_of(folder):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_run_goes_on_and_gets_its_report(remembered, tmp_path):
    workdir = run_of(tmp_path)
    for step in (1, 2):
        with open_trackers(["wandb"], workdir, CONFIG) as writers:
            writers[0].write(step, {"loss": 0.5})
            writers[0].close()  # as the metrics log does, and the context again
    (workdir / "index.html").touch()
    assert attach_to_trackers(workdir, workdir / "index.html") == ["wandb"]
    described = {"seed": 3, "data.folder": "a", "data.freeze": "('clip',)", "training.best": "{}"}
    started = [described, "config.json"]
    assert remembered == {
        "0": [*started, (1, {"loss": 0.5}), "closed", *started, (2, {"loss": 0.5}), "closed", "index.html", "closed"]
    }
    assert json.loads((workdir / "trackers.json").read_text()) == {"wandb": {"id": "0"}}


def test_a_failure_is_printed_once_and_ends_nothing(remembered, tmp_path, capsys):
    with open_trackers(["wandb"], run_of(tmp_path), CONFIG) as (writer,):
        for step in (12, 13, 14):
            writer.write(step, {})
    assert remembered["0"][2:] == [(12, {})]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("wandb can't be written (no ") and "\x1b" not in line and "training goes on" in line


def test_nothing_is_attached_without_a_tracker(tmp_path):
    assert attach_to_trackers(tmp_path, tmp_path / "index.html") == []


def test_trackers_that_cant_be_used_are_reported(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="--track is 'comet'; expected some of wandb, mlflow"):
        check_trackers(["comet"], tmp_path)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package mlflow; install it: pip install 'contextjax\[mlflow\]'"):
        check_trackers(["mlflow"], tmp_path)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="needs a workdir on this machine"):
        check_trackers(["wandb"], "gs://bucket/run")
    for content, said in (('{"comet": {}}', "names the tracker 'comet'"), ("[]", "holds a list"), ("{", "not JSON")):
        (tmp_path / "trackers.json").write_text(content)
        with pytest.raises(UserError, match=said):
            attach_to_trackers(tmp_path, tmp_path / "index.html")


def test_a_tracker_that_cant_be_opened_is_reported_before_training(monkeypatch, tmp_path):
    def fails(workdir, address):
        raise ConnectionError("refused\nby all")

    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": fails})
    with (
        pytest.raises(UserError, match=r"wandb can't be opened \(refused\); check"),
        open_trackers(["wandb"], tmp_path, CONFIG),
    ):
        pass


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    workdir = run_of(tmp_path / "a")
    for step in (1, 2):
        with open_trackers(["wandb"], workdir, CONFIG) as (writer,):
            writer.write(step, {"loss": 0.5, "val/R@5": 20.0})
    (workdir / "index.html").touch()
    assert attach_to_trackers(workdir, workdir / "index.html") == ["wandb"]
    id = json.loads((workdir / "trackers.json").read_text())["wandb"]["id"]
    logs = [path.read_bytes() for path in sorted(workdir.glob(f"wandb/offline-run-*/run-{id}.wandb"))]
    assert len(logs) == 3 and b"val/R@5" in logs[0] and b"data.folder" in logs[0] and b"index.html" in logs[2]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_offline(monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workdir = run_of(tmp_path / "a b")
    for step in (1, 2):
        with open_trackers(["mlflow"], workdir, CONFIG) as (writer,):
            writer.write(step, {"loss": 0.5 / step, "val/R@5": float("nan")})
    (workdir / "index.html").touch()
    assert attach_to_trackers(workdir, workdir / "index.html") == ["mlflow"]
    address = json.loads((workdir / "trackers.json").read_text())["mlflow"]
    client = mlflow.MlflowClient(address["uri"])
    run = client.get_run(address["id"])
    assert run.info.status == "FINISHED" and run.info.run_name == "a b" and run.data.params["data.folder"] == "a"
    assert [m.value for m in client.get_metric_history(address["id"], "loss")] == [0.5, 0.25]
    assert {each.path for each in client.list_artifacts(address["id"])} == {"config.json", "index.html"}
