"""Evaluations in training: which a config asks for, and the rule by which a checkpoint is the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from contextjax.evaluation import evaluate_grounding, mean_metrics
from contextjax.evaluation.shared import check_targets
from contextjax.sharding import first_process_first, gather
from contextjax.system import System
from contextjax.tokenizers import TextTokenizer
from contextjax.types import CaptionRecord, EvaluationProtocol, UserError
from data_pipelines import protocols
from data_pipelines.datasets import READERS
from experiments.shared.data import evaluated, load_parts
from experiments.shared.models import make_spec
from experiments.shared.scoring import evaluate


def evaluations(config: Any) -> dict[str, tuple[EvaluationProtocol, str, str]]:
    """Returns what is evaluated in training: the beginning of its metrics' names -> (protocol, folder, split)."""
    d = config.data
    if not config.training.evaluate_every:
        return {}
    if not d.evaluations:
        reader, folder = evaluated(config)
        if reader in READERS and READERS[reader].record_type is CaptionRecord and not _asks_captions(config, reader):
            return {}
        return {d.val_split: (protocols.of_reader(reader), folder, d.val_split)}
    wanted = {}
    for name, chosen in d.evaluations.items():
        protocol = protocols.named(chosen.protocol or name)
        own = evaluated(config)
        if folder := chosen.folder or (own[1] if _is_of_layout(protocol.reader, own[0]) else ""):
            wanted[f"{name}/{chosen.split}"] = (protocol, folder, chosen.split)
    return wanted


def _asks_captions(config: Any, reader: str) -> bool:
    """Returns whether what is trained on captions is evaluated on them: a CLIP, where the reader has a protocol."""
    return config.model.system == "clip" and any(each.reader == reader for each in protocols.PROTOCOLS.values())


def _is_of_layout(reader: str, own: str) -> bool:
    """Returns whether a reader reads folders that another one does: CIRR's captions stand beside its triplets."""
    return reader == own or (own in READERS and READERS[reader].layout == READERS[own].layout)


def best_rule(config: Any) -> dict[str, float]:
    """Returns the weights of metrics in training.best; those of evaluations without a folder are left out.

    Raises:
      UserError: it names a metric that no evaluation computes.
    """
    active = evaluations(config)
    rule = {name: weight for name, weight in config.training.best.items() if weight}
    for name, chosen in config.data.evaluations.items():
        if f"{name}/{chosen.split}" not in active:
            rule = {metric: weight for metric, weight in rule.items() if not metric.startswith(f"{name}/")}
    if rule and not active:
        raise UserError("training.best is set, but nothing is evaluated: unset it, or set training.evaluate_every.")
    if odd := [metric for metric in rule if not metric.startswith(tuple(f"{prefix}/" for prefix in active))]:
        raise UserError(
            f"training.best names '{odd[0]}', which nothing evaluates; expected a metric of {', '.join(active)}, such "
            f"as {next(iter(active), 'val')}/R@5."
        )
    return rule


def print_left_out(config: Any) -> None:
    """Prints which evaluations of the config have no folder."""
    active = evaluations(config)
    for name, chosen in config.data.evaluations.items() if config.training.evaluate_every else ():
        if f"{name}/{chosen.split}" not in active:
            flag = f"--config.data.evaluations.{name}.folder=DIR"
            print(f"'{name}' has no folder ({flag}): it is not evaluated, and not a part of training.best.", flush=True)


def make_evaluate(config: Any, model: Any, tokenizer: TextTokenizer) -> Callable | None:
    """Returns a function: parameters -> metrics of all evaluations, each by its protocol; None where there are none.

    Raises:
      UserError: an evaluation's folder is not in its layout, has no such split, bad pictures, or secret targets: what
        would be wrong after thousands of steps is reported before the first.
    """
    chosen, vision, grounded = evaluations(config), config.model.vision, config.data.get("grounded", 0)
    if not chosen:
        return None
    options = {"size": vision["image_size"], "fit": vision["fit"], "clean": bool(config.data.get("clean")),
               "prepared": config.data.get("prepared", "")}  # fmt: skip
    with first_process_first():
        loaded = {name: load_parts(*wanted, **options) for name, wanted in chosen.items()}
    for data in (data for splits in loaded.values() for data in splits.values()):
        check_targets(data.records)

    def metrics_of(params: Any) -> Mapping[str, float]:
        params = jax.tree.map(jnp.asarray, gather(params))  # whole, and on the device once; of every process
        spec, metrics = make_spec(config), {}
        system = System(model, params, tokenizer, propositions=spec.propositions, template=spec.template)
        for name, (protocol, _, _) in chosen.items():
            means = mean_metrics([evaluate(system, protocol, data).metrics() for data in loaded[name].values()])
            metrics |= {f"{name}/{metric}": value for metric, value in means.items()}
            data = next(iter(loaded[name].values()))
            if grounded and not protocol.query:
                some = data.records[:: max(1, len(data.records) // grounded)]
                metrics |= {
                    f"{name}/{x}": value for x, value in evaluate_grounding(system, some, data.pictures).items()
                }
        return metrics

    return metrics_of
