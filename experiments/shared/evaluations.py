"""What a config says is evaluated: benchmarks, their folders, and the rule by which a checkpoint is the best."""

from __future__ import annotations

from typing import Any

from contextjax.types import CaptionRecord, EvaluationProtocol, UserError
from data_pipelines import protocols
from data_pipelines.datasets import READERS
from experiments.shared.data import evaluated


def evaluations(config: Any) -> dict[str, tuple[EvaluationProtocol, str, str]]:
    """Of all that is evaluated in training: what its metrics' names begin with -> (protocol, folder, split)."""
    d = config.data
    if not d.get("evaluations"):
        reader, folder = evaluated(config)
        if reader in READERS and READERS[reader].record_type is CaptionRecord:
            return {}
        return {d.val_split: (protocols.of_reader(reader), folder, d.val_split)}
    found = {}
    for name, chosen in d.evaluations.items():
        protocol = protocols.named(chosen.protocol or name)
        if folder := chosen.folder or (d.folder if protocol.reader == d.reader else ""):
            found[f"{name}/{chosen.split}"] = (protocol, folder, chosen.split)
    return found


def best_rule(config: Any) -> dict[str, float]:
    """Metric -> weight of training.best, without those of evaluations that have no folder, which is told.

    Raises:
      UserError: it names what nothing evaluates.
    """
    active = evaluations(config)
    rule = {name: weight for name, weight in config.training.get("best", {}).items() if weight}
    for name, chosen in config.data.get("evaluations", {}).items():
        if f"{name}/{chosen.split}" not in active:
            rule = {metric: weight for metric, weight in rule.items() if not metric.startswith(f"{name}/")}
            flag = f"--config.data.evaluations.{name}.folder=DIR"
            print(f"'{name}' has no folder ({flag}): it is not evaluated, and not a part of training.best.", flush=True)
    if odd := [metric for metric in rule if not metric.startswith(tuple(f"{prefix}/" for prefix in active))]:
        raise UserError(
            f"training.best names '{odd[0]}', which nothing evaluates; expected a metric of {', '.join(active)}, such "
            f"as {next(iter(active), 'val')}/R@5."
        )
    return rule
