"""CoVR-2: composed samples, with captions of the targets where they are trained on; HN-NCE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contextjax.losses.hard_negative import hard_negative_loss
from contextjax.models.covr2 import CoVR2
from contextjax.objectives.covr2 import CoVR2Objective
from contextjax.tokenizers import TextTokenizer
from contextjax.training.task import Phase
from contextjax.types import ComposedBatch, UserError
from data_pipelines.augment import Augment
from data_pipelines.ops import ComposedSamples
from data_pipelines.tables import ComposedData
from experiments.shared.loss_form import contrastive_form
from experiments.shared.shapes import abstract_tokens, booleans, integers, pixels

LENGTHS = ("text_length", "caption_length")
EVALUATED = 64  # tokens of a text in the published evaluation


def text_limits(config: Any) -> dict[str, Any]:
    """Returns how a text is read, as SystemSpec has it: further than in training, as published."""
    return {"text_length": max(EVALUATED, config.data.text_length)}


def loss_weights(config: Any) -> dict[str, float]:
    """Returns the weights of the loss terms that take part."""
    return {name: weight for name, weight in config.loss.weights.items() if weight}


def make_samples(
    config: Any, data: ComposedData, tokenizer: TextTokenizer, workdir: Path, *, cuts: int = 1
) -> ComposedSamples:
    """Returns the training samples."""
    d = config.data
    return ComposedSamples(
        data,
        tokenizer,
        modifications=d.modifications,
        text_length=d.text_length,
        caption_length=d.caption_length if "captions" in loss_weights(config) else 0,
        augment=None if d.augment == "none" else Augment(d.augment),
        seed=config.seed,
    )


def abstract_batch(config: Any, *, cuts: int = 1) -> ComposedBatch:
    """Returns a global training batch as shapes; see make_samples for what the config puts into it."""
    d = config.data
    size, r, m = config.model.vision["image_size"], d.batch_size, d.modifications
    return ComposedBatch(
        references=pixels(r, size),
        targets=pixels(r, m, size),
        texts=abstract_tokens(r, m, d.text_length),
        valid=booleans(r, m),
        reference_ids=integers(r),
        target_ids=integers(r, m),
        records=integers(r, m),
        captions=abstract_tokens(r, 1 + m, d.caption_length) if "captions" in loss_weights(config) else None,
    )


def make_phases(config: Any, model: CoVR2, mesh: Any = None) -> list[Phase]:
    """Returns the objective, in a single phase.

    `mesh` is that of the step; None: the config's, of this machine's devices.

    Raises:
      UserError: no term of the loss has a weight.
    """
    loss, weights = config.loss, loss_weights(config)
    if not weights:
        raise UserError("No loss term has a weight; give one, as --config.loss.weights.hard_negative=1.")
    objective = CoVR2Objective(
        model, tuple(sorted(weights.items())), loss.temperature, loss.alpha, loss.beta, loss.mask_false_negatives,
        contrastive_form(loss.contrastive, loss.chunk, mesh or config.mesh, loss=hard_negative_loss),
    )  # fmt: skip
    return [Phase(0, objective)]
