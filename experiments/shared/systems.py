"""The parts in which the recipes of the systems differ, and the samples that they are trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextjax.lora import Adapted, Lora
from contextjax.tokenizers import TextTokenizer
from contextjax.training.task import Phase
from data_pipelines.mixtures import Mixture
from data_pipelines.tables import SplitData
from experiments.shared import clip, context_blip, context_cir, covr2

SYSTEMS: Mapping[str, Any] = {
    "context_cir": context_cir, "context_blip": context_blip, "composed_blip": context_cir, "covr2": covr2,
    "clip": clip,
}  # fmt: skip


def of(config: Any) -> Any:
    """Returns the module of the config's system: loss_weights, make_samples, make_phases and abstract_batch."""
    return SYSTEMS[config.model.system]


def make_phases(config: Any, model: Any, lora: Lora | None, mesh: Any = None) -> list[Phase]:
    """Returns the phases of the config's system, whose parameters have the adapters `lora`, if there are any."""
    phases = of(config).make_phases(config, model, mesh)
    return phases if lora is None else [dataclasses.replace(p, objective=Adapted(p.objective, lora)) for p in phases]


def make_samples(config: Any, data: SplitData, tokenizer: TextTokenizer, workdir: Path, *, cuts: int = 1) -> Any:
    """Returns the training samples, and prints how many texts are longer than the config's lengths.

    `cuts` is the number of parts that a mesh cuts a batch into.
    """
    samples = of(config).make_samples(config, data, tokenizer, workdir, cuts=cuts)
    for what, count, total, key in samples.truncations():
        if count:
            cut = config.data[key]
            print(f"{count} of {total} {what} are longer than {cut} tokens and were cut (data.{key}).", flush=True)
    if isinstance(data, Mixture):
        each = [f"{share.per_epoch} of {s.name}" for s, share in zip(data.sources, samples.shares, strict=True)]
        print(f"An epoch has {sum(s.per_epoch for s in samples.shares)} samples: {', '.join(each)}.", flush=True)
    return samples
