"""A plain CLIP or SigLIP: pictures with captions, and the contrastive loss between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contextjax.models.clip import CLIP
from contextjax.objectives.context_blip import CaptionObjective
from contextjax.tokenizers import TextTokenizer
from contextjax.training.task import Phase
from contextjax.types import CaptionBatch, CaptionRecord, UserError
from data_pipelines.augment import Augment
from data_pipelines.candidate_ops import CaptionSamples
from data_pipelines.datasets import READERS
from data_pipelines.tables import CaptionData
from experiments.shared.loss_form import loss_weights, pair_loss
from experiments.shared.shapes import abstract_tokens, integers, pixels

LENGTHS = ("text_length",)


def text_limits(config: Any) -> dict[str, Any]:
    """Returns how a text is read, as SystemSpec has it: as far as in training."""
    return {"text_length": config.data.text_length}


def make_samples(
    config: Any, data: CaptionData, tokenizer: TextTokenizer, workdir: Path, *, cuts: int = 1
) -> CaptionSamples:
    """Returns the training samples, one for each caption."""
    d = config.data
    return CaptionSamples(data, tokenizer, text_length=d.text_length, augment=Augment(d.augment), seed=config.seed)


def abstract_batch(config: Any, *, cuts: int = 1) -> CaptionBatch:
    """Returns a global training batch as shapes."""
    size, count = config.model.vision["image_size"], config.data.batch_size
    return CaptionBatch(
        pixels(count, size), abstract_tokens(count, config.data.text_length), integers(count), integers(count)
    )


def make_phases(config: Any, model: CLIP, mesh: Any = None) -> list[Phase]:
    """Returns the objective, in a single phase.

    `mesh` is that of the step; None: the config's, of this machine's devices.

    Raises:
      UserError: the loss has no weight, or the data are no captions.
    """
    d, loss, weights = config.data, config.loss, tuple(sorted(loss_weights(config).items()))
    if not weights:
        raise UserError("The loss has no weight; give one, as --config.loss.weights.contrastive=1.")
    readers = [each.reader or name for name, each in d.sources.items() if each.weight] if d.sources else [d.reader]
    captions = [name for name, reader in READERS.items() if reader.record_type is CaptionRecord]
    if odd := [name for name in readers if name in READERS and name not in captions]:
        raise UserError(
            f"data.reader is '{odd[0]}', whose records are no captions; a CLIP is trained on those of "
            f"{', '.join(captions)}."
        )
    if d.cached:
        raise UserError("data.cached keeps features of a frozen model, and a CLIP's own towers are trained; unset it.")
    temperature = None if loss.learned_temperature else loss.temperature
    contrastive = pair_loss(config, model, mesh)
    return [Phase(0, CaptionObjective(model, weights, temperature, contrastive=contrastive, sigmoid=loss.sigmoid))]
