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
from experiments.shared.loss_form import contrastive_form, loss_weights
from experiments.shared.shapes import abstract_composed

LENGTHS = ("text_length", "caption_length")
EVALUATED = 64  # tokens of a text in the published evaluation


def text_limits(config: Any) -> dict[str, Any]:
    """Returns how a text is read, as SystemSpec has it: further than in training, as published."""
    return {"text_length": max(EVALUATED, config.data.text_length)}


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
    return abstract_composed(config, with_captions="captions" in loss_weights(config))


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
