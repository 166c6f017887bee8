"""ContextBLIP: captions (stage 1), candidate sets (2a) or their cached features (2b); matching, masking, selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contextjax.models.context_blip import COSINES, ContextBLIP
from contextjax.objectives.context_blip import CaptionObjective, SelectionObjective
from contextjax.tokenizers import TextTokenizer
from contextjax.training.task import Phase
from contextjax.types import CandidateBatch, CaptionBatch, CaptionRecord, FeatureBatch, UserError
from data_pipelines.augment import Augment
from data_pipelines.candidate_ops import CandidateSamples, CaptionSamples
from data_pipelines.datasets import READERS
from data_pipelines.features import FeatureSamples, cached_features
from data_pipelines.tables import CandidateData, CaptionData
from experiments.shared.loss_form import contrastive_form
from experiments.shared.shapes import abstract_tokens, booleans, floats, integers, pixels
from experiments.shared.start_features import samples_of_start

LENGTHS = ("text_length", "proposition_length")
STAGE_1, STAGE_2 = ("matching", "masking", "contrastive"), ("selection", "contrastive", "truth")


def reads_captions(config: Any) -> bool:
    """Returns whether the config is one of stage 1, which trains on captions."""
    return READERS[config.data.reader].record_type is CaptionRecord


def text_limits(config: Any) -> dict[str, Any]:
    """Returns how a text is read, as SystemSpec has it: as far as in training, and as how many propositions."""
    return {"text_length": config.data.text_length, "propositions": read_propositions(config)}


def read_propositions(config: Any) -> tuple[int, int]:
    """Returns into how many propositions a text is split, and how many tokens each has; (0, 0) where it is not."""
    return (config.data.propositions, config.data.proposition_length) if config.model.propositions else (0, 0)


def loss_weights(config: Any) -> dict[str, float]:
    """Returns the weights of the loss terms that take part in the stage."""
    names = STAGE_1 if reads_captions(config) else ("selection",) if config.data.cached else STAGE_2
    return {name: config.loss.weights[name] for name in names if config.loss.weights[name]}


def make_samples(
    config: Any, data: Any, tokenizer: TextTokenizer, workdir: Path, *, cuts: int = 1
) -> CaptionSamples | CandidateSamples | FeatureSamples:
    """Returns the training samples.

    With data.cached, every candidate is encoded once, by the run that this one starts from.

    Raises:
      UserError: data.cached is set, and there is no such run.
    """
    d = config.data
    shared = {"text_length": d.text_length, "augment": Augment(d.augment), "seed": config.seed}
    if reads_captions(config):
        captions: CaptionData = data
        return CaptionSamples(captions, tokenizer, **shared)
    sets: CandidateData = data
    grouped = {"descriptions": 1 if d.cached else d.descriptions}
    grouped |= dict(zip(("propositions", "proposition_length"), read_propositions(config), strict=True))
    samples = CandidateSamples(sets, tokenizer, candidates=d.candidates, **grouped, **shared)
    if not d.cached:
        return samples
    return samples_of_start(config, workdir, lambda system, path: cached_features(system, samples, sets, path))


def abstract_batch(config: Any, *, cuts: int = 1) -> CaptionBatch | CandidateBatch | FeatureBatch:
    """Returns a global training batch as shapes; see make_samples for what the config puts into it."""
    d, model = config.data, config.model
    size, u, k = model.vision["image_size"], d.batch_size, d.candidates
    if reads_captions(config):
        return CaptionBatch(pixels(u, size), abstract_tokens(u, d.text_length), integers(u), integers(u))
    if d.cached:
        width = model.projection if model.selection == "adapted" else model.text["width"]
        rest = integers(u), booleans(u, k), booleans(u), integers(u)
        return FeatureBatch(floats(u, k, width), floats(u, k), floats(u, width), *rest)
    s, (limit, length) = u * d.descriptions, read_propositions(config)
    return CandidateBatch(
        images=pixels(u, k, size),
        texts=abstract_tokens(s, d.text_length),
        target=integers(s),
        valid=booleans(s, k),
        ordered=booleans(s),
        records=integers(s),
        propositions=abstract_tokens(s, limit, length) if limit else None,
    )


def make_phases(config: Any, model: ContextBLIP, mesh: Any = None) -> list[Phase]:
    """Returns the stage's objective, in a single phase.

    `mesh` is that of the step; None: the config's, of this machine's devices.

    Raises:
      UserError: the weights of the loss fit neither the stage nor the model.
    """
    loss = config.loss
    weights = tuple(sorted(loss_weights(config).items()))
    if not weights:
        raise UserError("No loss term of this stage has a weight; give one, as --config.loss.weights.matching=1.")
    if loss.learned_temperature and model.config.selection not in COSINES:
        raise UserError(
            f"loss.learned_temperature is set, but model.selection is '{model.config.selection}', which has none; "
            f"choose {', '.join(COSINES)}, or unset it."
        )
    positions = model.config.context_positions
    if not reads_captions(config) and model.config.context_layers and config.data.candidates > positions:
        raise UserError(
            f"data.candidates is {config.data.candidates}, but the inter-context encoder has {positions} positions; "
            "set model.context_positions to as many, or fewer candidates."
        )
    contrastive = contrastive_form(loss.contrastive, loss.chunk, mesh or config.mesh)
    if not reads_captions(config):
        if "contrastive" in dict(weights) and loss.contrastive != "gathered":
            raise UserError(
                f"loss.contrastive is '{loss.contrastive}', but that of candidate sets is over scores, which are whole "
                "anyway; set it to 'gathered'."
            )
        if model.config.propositions and config.data.propositions and config.data.clean:
            raise UserError(
                "data.clean deletes the punctuation that propositions are cut at; set --config.data.clean=False, or "
                "--config.data.propositions=0."
            )
        return [Phase(0, _selection(model, weights))]
    temperature = None if loss.learned_temperature else loss.temperature
    if "masking" in dict(weights) and model.config.masking == "none":
        raise UserError("The masking loss has a weight, but model.masking is 'none'; choose 'pixels' or 'attended'.")
    objective = CaptionObjective(
        model, weights, temperature, real_tokens=loss.real_tokens, scrambled=loss.scrambled,
        fixed_masks=loss.fixed_masks, mask_false_negatives=loss.mask_false_negatives, contrastive=contrastive,
    )  # fmt: skip
    return [Phase(0, objective)]


def _selection(model: ContextBLIP, weights: tuple[tuple[str, float], ...]) -> SelectionObjective:
    """Returns the objective of candidate sets; its terms are such as the model can have."""
    c = model.config
    if c.selection == "none":
        raise UserError(
            "model.selection is 'none'; candidate sets are trained with 'head', 'itc', 'both' or 'adapted'."
        )
    if "contrastive" in dict(weights) and c.selection == "head":
        raise UserError(
            "The contrastive loss has a weight, but model.selection is 'head', which has no base score; choose 'itc' "
            "or 'both', or set --config.loss.weights.contrastive=0."
        )
    if "truth" in dict(weights) and not (c.propositions and c.selection in ("itc", "both")):
        raise UserError(
            "The truth loss has a weight, but the base score is no probability; set --config.model.propositions=True "
            "and --config.model.selection=itc or both."
        )
    return SelectionObjective(model, weights)
