"""Writes the report of a training run, from its checkpoint, its evaluation and its logs."""

from __future__ import annotations

import datetime
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import contextjax
from contextjax.files import is_remote, write_whole
from contextjax.reports import RunResults, build_report, render
from contextjax.training.goodput import read_goodput, summary
from contextjax.training.metrics_log import read_metrics
from contextjax.types import UserError
from data_pipelines import protocols
from data_pipelines.concepts import find_phrases
from experiments.shared import run_config, systems
from experiments.shared.data import as_queries, evaluated, load_evaluated
from experiments.shared.run_evaluation import describe_data
from experiments.shared.run_probes import probes_file, read_probes
from experiments.shared.scoring import evaluate

TOLERANCE = 1.0  # points of a metric that another device's rounding may change


def write_report(workdir: Path, *, split: str | None = None) -> Path:
    """Evaluates a run once more and writes its page.

    Args:
      workdir: the run's folder, which holds evaluation.json.
      split: the split; None: the config's val_split.

    Returns:
      The page: WORKDIR/report/index.html, or report/SPLIT.html for another split.

    Raises:
      UserError: the run has not been evaluated, or its evaluation does not fit this checkpoint, code or data.
    """
    system = contextjax.load(workdir)
    config = run_config.read_config(workdir, system.fingerprint.rpartition("-")[0])
    command = [f"--workdir={workdir}", *([f"--split={split}"] if split else [])]
    split = str(split or config.data.val_split)
    is_default = split == config.data.val_split
    evaluation_file = workdir / ("evaluation.json" if is_default else f"evaluation.{split}.json")
    remedy = f"run python -m experiments.evaluate {shlex.join(command)}"
    before = read_evaluation(evaluation_file, system.fingerprint, remedy=remedy)
    reader, folder = evaluated(config)
    data = load_evaluated(config, split)
    protocol = protocols.of_reader(reader)
    evaluation = evaluate(system, protocol, as_queries(protocol, data))
    described = describe_data(folder, {"": data})
    check_same_data(before, described, evaluation_file, remedy=remedy)
    check_unchanged(before["metrics"], evaluation.metrics(), evaluation_file, remedy=remedy)
    probed = read_probes(
        workdir / probes_file(evaluation_file.name), split=split, fingerprint=system.fingerprint,
        identity=described["identity"],
    )  # fmt: skip
    results = RunResults(
        title=(workdir if is_remote(workdir) else workdir.resolve()).name,
        split=split,
        baselines=before["baselines"],
        protocol=before["protocol"],
        metric_lines=read_metrics(workdir),
        loss_weights=systems.of(config).loss_weights(config),
        grounding={name: value for name, value in before.items() if name.startswith("grounding/")},
        by_phrases=before.get("by_phrases") or {},
        single_modality=before.get("single_modality") or {},
        probes=probed.get("probes") or {},
        n_probed=probed.get("n_queries") or 0,
        facts=made_by(command)
        | {"Data": f"{Path(folder).resolve().name}, contents {described['identity']}"}
        | time_spent(workdir),
        credit="\n".join(path.read_text(encoding="utf-8").strip() for path in sorted(Path(folder).glob("LICENSE*"))),
    )
    phrases_of = lambda text: find_phrases([text])[0]
    report = build_report(system, evaluation, data.pictures, results, phrases_of=phrases_of, captions=data.captions)
    path = workdir / "report" / ("index.html" if is_default else f"{split}.html")
    write_whole(path, render(report))
    return path


def time_spent(workdir: Path) -> dict[str, str]:
    """Returns how the time of the run's training was spent; nothing for a run without a goodput log."""
    if not (lines := read_goodput(workdir)):
        return {}
    *shares, (_, total, _) = summary(lines)
    shown = ", ".join(f"{what} {share:.1%}" for what, _, share in shares if round(share, 3))
    return {"Time": f"{total:,.0f} s of training in {len(lines)} start{'s' * (len(lines) != 1)}: {shown}"}


def made_by(command: Sequence[str]) -> dict[str, str]:
    """Returns how the page was made: command, versions, date."""
    versions = {"contextjax": contextjax.__version__, "jax": jax.__version__, "Python": platform.python_version()}
    return {
        "Made by": shlex.join(["python", "-m", "experiments.report", *command]),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    }


def read_evaluation(path: Path, fingerprint: str, *, remedy: str) -> dict:
    """Reads the file that experiments.evaluate wrote.

    Raises:
      UserError: there is none, or it is of another checkpoint than `fingerprint`.
    """
    if not path.exists():
        raise UserError(f"There is no {path}, which holds the baselines; {remedy} first.")
    evaluation = run_config.read_evaluation(path, remedy=f"{remedy} again")
    if (other := f"{evaluation['config_hash']}-{evaluation['step']}") != fingerprint:
        raise UserError(f"{path} is of checkpoint {other}, but the one that is shown is {fingerprint}; {remedy} again.")
    return evaluation


def check_same_data(before: dict, data: Mapping[str, Any], path: Path, *, remedy: str) -> None:
    """Checks that an evaluation is of these data.

    Raises:
      UserError: it says that it is of others.
    """
    was = before.get("data") or data
    if was["identity"] != data["identity"]:
        raise UserError(
            f"{path} is of other data ({was['folder']}, {was['identity']}) than {data['folder']} holds now "
            f"({data['identity']}); {remedy} again."
        )


def check_unchanged(before: dict, now: dict, path: Path, *, remedy: str) -> None:
    """Checks that the same checkpoint scores the same now.

    Raises:
      UserError: it does not, so that the baselines in the file belong to other code or data than the page.
    """
    changed = [name for name in now if abs(now[name] - before.get(name, -100)) > TOLERANCE]
    if changed:
        name = changed[0]
        raise UserError(
            f"{path} says {name} {before.get(name)} and the same checkpoint now scores {now[name]:.2f}: "
            f"the model's code or the data changed since; undo that, or {remedy} again."
        )
