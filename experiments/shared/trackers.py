"""Experiment trackers beside metrics.jsonl and TensorBoard: Weights & Biases and MLflow, behind one small interface.

A tracker's run belongs to a workdir: WORKDIR/trackers.json has its address, so that a resumed training and the report
reach the same run. The trackers' own environment variables set its server and project: WANDB_MODE=offline,
WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME. Without MLFLOW_TRACKING_URI, MLflow writes to
WORKDIR/mlflow.db.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from contextjax.files import is_remote, write_whole
from contextjax.json_files import read_json
from contextjax.sharding import is_first_process
from contextjax.types import UserError, printable
from experiments.shared.run_config import flat

FILE, PROJECT = "trackers.json", "contextjax"


class Tracker(Protocol):
    """A run of an experiment tracker; also a training.metrics_log.MetricWriter."""

    address: dict[str, str]  # by which the same run is opened again

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of a step."""
        ...

    def describe(self, config: Mapping[str, Any]) -> None:
        """Sets the settings of the run: name -> value."""
        ...

    def attach(self, file: Path) -> None:
        """Adds a file to the run."""
        ...

    def close(self) -> None:
        """Waits until all is written, and ends the run."""
        ...


class WandbTracker:
    """A run of Weights & Biases; offline (WANDB_MODE=offline) it lies in the workdir until `wandb sync`."""

    def __init__(self, workdir: Path, address: Mapping[str, str]):
        import wandb

        self.address = {"id": address.get("id") or secrets.token_hex(4)}
        project = None if "WANDB_PROJECT" in os.environ else PROJECT
        self._run = wandb.init(
            project=project, name=workdir.name, id=self.address["id"], dir=str(workdir), resume="allow",
            settings=wandb.Settings(silent=True),
        )  # fmt: skip
        # A resumed run writes some steps again, which wandb's own step counter does not accept.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of a step."""
        self._run.log({"step": step, **values})

    def describe(self, config: Mapping[str, Any]) -> None:
        """Sets the run's config."""
        self._run.config.update(dict(config), allow_val_change=True)

    def attach(self, file: Path) -> None:
        """Adds a file to the run."""
        self._run.save(str(file), base_path=str(file.parent), policy="now")

    def close(self) -> None:
        """Waits until wandb's own process has written all, and ends the run."""
        self._run.finish()


class MlflowTracker:
    """A run of MLflow, on a server, in a folder or in a database."""

    def __init__(self, workdir: Path, address: Mapping[str, str]):
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._param = Metric, Param
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workdir.resolve() / 'mlflow.db'}"
        self._client = MlflowClient(address.get("uri") or uri)
        self.address = {"uri": address.get("uri") or uri, "id": address.get("id") or self._create(workdir)}
        self._client.update_run(self.address["id"], status="RUNNING")

    def _create(self, workdir: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = None if os.environ.get("MLFLOW_TRACKING_URI") else (workdir.resolve() / "mlflow_files").as_uri()
        number = experiment.experiment_id if experiment else self._client.create_experiment(name, place)
        return self._client.create_run(number, run_name=workdir.name).info.run_id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of a step. In names _at_ replaces @, which MLflow does not allow."""
        now = round(1000 * time.time())
        metrics = [self._metric(name.replace("@", "_at_"), value, now, step) for name, value in values.items()]
        self._client.log_batch(self.address["id"], metrics=metrics)

    def describe(self, config: Mapping[str, Any]) -> None:
        """Sets the run's parameters. MLflow does not let one change, so those that are set already stay."""
        known = self._client.get_run(self.address["id"]).data.params
        new = [self._param(name, str(value)[:500]) for name, value in config.items() if name not in known]
        for begin in range(0, len(new), 100):  # as many as one request takes
            self._client.log_batch(self.address["id"], params=new[begin : begin + 100])

    def attach(self, file: Path) -> None:
        """Adds a file to the run."""
        self._client.log_artifact(self.address["id"], str(file))

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self.address["id"])


TRACKERS: Mapping[str, Callable[[Path, Mapping[str, str]], Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}


class GuardedTracker:
    """A tracker that never ends a training: after its first failure, which is printed, nothing more is sent to it."""

    def __init__(self, name: str, tracker: Tracker):
        self._name, self._tracker = name, tracker

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of a step."""
        self._try("write", step, values)

    def close(self) -> None:
        """Ends the tracker's run."""
        self._try("close")
        self._tracker = None

    def _try(self, method: str, *arguments: Any) -> None:
        if self._tracker is not None:
            try:
                getattr(self._tracker, method)(*arguments)
            except Exception as error:  # trackers have errors of their own
                self._tracker = None
                message = (
                    f"{self._name} can't be written ({printable(str(error))}); metrics.jsonl has all: training goes on."
                )
                print(message, file=sys.stderr, flush=True)


def check_trackers(names: Sequence[str], workdir: Path) -> None:
    """Checks that trackers can be used.

    Raises:
      UserError: one is unknown or not installed, or the workdir is on no disk of this machine.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--track is '{name}'; expected some of {', '.join(TRACKERS)}.")
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--track={name} needs the package {name}; install it: pip install 'contextjax[{name}]'.")
    if names and is_remote(workdir):
        raise UserError(f"--track needs a workdir on this machine, and {workdir} is none; leave it out.")


@contextlib.contextmanager
def open_trackers(names: Sequence[str], workdir: Path, config: Any) -> Iterator[list[GuardedTracker]]:
    """Opens a workdir's runs in trackers, and gives each the config. Of several processes only the first opens them.

    Raises:
      UserError: a tracker can't be reached, which ends the command before it trains.
    """
    with contextlib.ExitStack() as opened:
        writers = []
        for name in names if is_first_process() else ():
            tracker = _open(name, workdir)
            guarded = opened.enter_context(contextlib.closing(GuardedTracker(name, tracker)))
            with _reported(name):
                tracker.describe({name: _setting(value) for name, value in flat(config).items()})
                tracker.attach(workdir / "config.json")
            writers.append(guarded)
        yield writers


def _setting(value: Any) -> Any:
    """Returns a value of a config as trackers take it."""
    return value if isinstance(value, int | float | str) else str(value).strip()


def attach_to_trackers(workdir: Path, file: Path) -> list[str]:
    """Adds a file to the runs that a workdir has in trackers, and returns their names."""
    names = [] if is_remote(workdir) else list(_addresses(workdir))
    for name in names:
        check_trackers([name], workdir)
        with contextlib.closing(_open(name, workdir)) as tracker, _reported(name):
            tracker.attach(file)
    return names


def _open(name: str, workdir: Path) -> Tracker:
    addresses = _addresses(workdir)
    with _reported(name):
        tracker = TRACKERS[name](workdir, addresses.get(name, {}))
    if addresses.get(name) != tracker.address:
        write_whole(workdir / FILE, json.dumps({**addresses, name: tracker.address}, indent=2) + "\n")
    return tracker


def _addresses(workdir: Path) -> dict[str, dict[str, str]]:
    file = workdir / FILE
    known = read_json(file, dict, layout="a run's trackers", remedy="remove it") if file.exists() else {}
    if odd := [name for name, each in known.items() if name not in TRACKERS or not isinstance(each, dict)]:
        raise UserError(f"{file} names the tracker {odd[0]!r}; expected some of {', '.join(TRACKERS)}: remove it.")
    return known


@contextlib.contextmanager
def _reported(name: str) -> Iterator[None]:
    """Raises a UserError for whatever a tracker raises."""
    try:
        yield
    except Exception as error:
        reason = printable(str(error)).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{name} can't be opened ({reason}); check its address and login, or leave --track out."
        ) from error
