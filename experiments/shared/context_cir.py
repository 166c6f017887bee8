"""ConText-CIR: composed samples with phrases and captions; contrastive, consistency and captions loss."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from contextjax.models.context_cir import ContextCIR
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.sharding import first_process_first
from contextjax.tokenizers import TextTokenizer
from contextjax.training.task import Phase
from contextjax.types import LOST, ComposedBatch, Phrases, UserError
from data_pipelines.augment import Augment
from data_pipelines.concepts import PhraseCache, without_pronouns
from data_pipelines.mixtures import source_data
from data_pipelines.ops import ComposedSamples
from data_pipelines.tables import ComposedData
from experiments.shared.loss_form import contrastive_form
from experiments.shared.shapes import abstract_tokens, booleans, integers, pixels

LENGTHS = ("text_length", "caption_length")
PHRASE_GROUP = 8  # texts that share a budget of phrases, at least


def text_limits(config: Any) -> dict[str, Any]:
    """Returns how a text is read, as SystemSpec has it: whole, as far as the text tower has positions."""
    return {}


def loss_weights(config: Any) -> dict[str, float]:
    """Returns the weights of the loss terms that take part; without fusion blocks nothing is kept consistent."""
    weights = {name: weight for name, weight in config.loss.weights.items() if weight}
    if config.model.query != "fusion" or not config.model.fusion_layers:
        weights.pop("consistency", None)
    return weights


def make_samples(
    config: Any, data: ComposedData, tokenizer: TextTokenizer, workdir: Path, *, cuts: int = 1
) -> ComposedSamples:
    """Returns the training samples; noun phrases are parsed and cached where the loss needs them."""
    weights, d = loss_weights(config), config.data
    phrases = None
    if "consistency" in weights:
        phrases = {}
        for part in source_data(data):  # each has a cache of its own, whatever it is mixed with
            with first_process_first():
                cache = PhraseCache(part.folder)
                cache.add(record.text for record in part.records)
            kept = (lambda text, spans: spans) if d.pronouns else without_pronouns
            phrases |= {record.text: kept(record.text, cache[record.text]) for record in part.records}
    captions = "captions" in weights or config.loss.lead_steps > 0
    groups = phrase_groups(config, cuts)
    return ComposedSamples(
        data,
        tokenizer,
        modifications=d.modifications,
        text_length=d.text_length,
        phrases=phrases,
        phrase_budget=round(d.phrases_per_text * d.batch_size * d.modifications / groups),
        phrase_group=d.batch_size // groups,
        phrase_length=d.phrase_length,
        caption_length=d.caption_length if captions else 0,
        augment=None if d.augment == "none" else Augment(d.augment),
        seed=config.seed,
    )


def phrase_groups(config: Any, cuts: int) -> int:
    """Returns into how many groups of at least PHRASE_GROUP texts a batch is cut; each has a budget of phrases.

    A device has whole groups, so that it needs no other's texts. Which phrases fit the budget is the same on every mesh
    whose `cuts` of a batch divide the groups; on one with more, each cut is a group.
    """
    references, modifications = config.data.batch_size, config.data.modifications
    sizes = (size for size in range(1, references + 1) if references % size == 0)
    groups = references // next((size for size in sizes if size * modifications >= PHRASE_GROUP), references)
    return groups if groups % cuts == 0 else cuts


def abstract_batch(config: Any, *, cuts: int = 1) -> ComposedBatch:
    """Returns a global training batch as shapes; see make_samples for what the config puts into it."""
    weights, d = loss_weights(config), config.data
    size, r, m = config.model.vision["image_size"], d.batch_size, d.modifications
    captions = "captions" in weights or config.loss.lead_steps > 0
    phrases = None
    if "consistency" in weights:
        groups = phrase_groups(config, cuts)
        p = groups, round(d.phrases_per_text * r * m / groups)
        tokens = abstract_tokens(*p, d.phrase_length)
        phrases = Phrases(tokens, integers(*p), integers(*p, 2), booleans(*p), integers(r, len(LOST)))
    return ComposedBatch(
        references=pixels(r, size),
        targets=pixels(r, m, size),
        texts=abstract_tokens(r, m, d.text_length),
        valid=booleans(r, m),
        reference_ids=integers(r),
        target_ids=integers(r, m),
        records=integers(r, m),
        phrases=phrases,
        captions=abstract_tokens(r, 1 + m, d.caption_length) if captions else None,
    )


def make_phases(config: Any, model: ContextCIR, mesh: Any = None) -> list[Phase]:
    """Returns the phases: the objective, led by the captions loss alone where the config says so.

    `mesh` is that of the step; None: the config's, of this machine's devices.

    Raises:
      UserError: no term of the loss has a weight.
    """
    loss, weights = config.loss, loss_weights(config)
    if not weights:
        raise UserError("No loss term has a weight; give one, as --config.loss.weights.contrastive=1.")
    objective = functools.partial(
        ContextCIRObjective,
        model,
        temperature=None if loss.learned_temperature else loss.temperature,
        epsilon=loss.epsilon,
        normalize_maps=loss.normalize_maps,
        reference_negatives=loss.reference_negatives,
        mask_false_negatives=loss.mask_false_negatives,
        contrastive=contrastive_form(loss.contrastive, loss.chunk, mesh or config.mesh),
    )
    phases = [Phase(loss.lead_steps, objective(tuple(sorted(weights.items()))))]
    if loss.lead_steps:
        phases.insert(0, Phase(0, objective((("captions", 1.0),))))
    return phases
