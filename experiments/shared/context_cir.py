"""Composed queries, ConText-CIR's and others': samples with phrases and captions, or features; loss terms."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.objectives.pseudo_word import PseudoWordObjective
from contextjax.sharding import first_process_first
from contextjax.tokenizers import TextTokenizer
from contextjax.training.task import Phase
from contextjax.types import LOST, ComposedBatch, FeaturePairs, Phrases, TextBatch, UserError
from data_pipelines.augment import Augment
from data_pipelines.concepts import PhraseCache, without_pronouns
from data_pipelines.features import FeatureSamples, cached_pairs
from data_pipelines.mixtures import source_data
from data_pipelines.ops import ComposedSamples, PhraseSamples, captions_of
from data_pipelines.tables import ComposedData
from experiments.shared import loss_form
from experiments.shared.loss_form import pair_loss
from experiments.shared.shapes import abstract_composed, abstract_tokens, booleans, floats, integers
from experiments.shared.start_features import samples_of_start

LENGTHS = ("text_length", "caption_length")
PHRASE_GROUP = 8  # texts that share a budget of phrases, at least


def text_limits(config: Any) -> dict[str, Any]:
    """Returns how a text is read, as SystemSpec has it: whole, as far as the text tower has positions."""
    return {}


def loss_weights(config: Any) -> dict[str, float]:
    """Returns the weights of the loss terms that take part; without fusion blocks nothing is kept consistent."""
    weights = loss_form.loss_weights(config)
    if config.model.query != "fusion" or not config.model.fusion_layers:
        weights.pop("consistency", None)
    return weights


def reads_texts_alone(config: Any) -> bool:
    """Returns whether a run sees no pictures: a pseudo-word network's, whose loss has no other term."""
    return set(loss_weights(config)) == {"pseudo_word"} and not config.loss.lead_steps


def _needs_captions(config: Any) -> bool:
    return bool(loss_weights(config).keys() & {"captions", "pseudo_word"}) or config.loss.lead_steps > 0


def make_samples(
    config: Any, data: ComposedData, tokenizer: TextTokenizer, workdir: Path, *, cuts: int = 1
) -> ComposedSamples | FeatureSamples | PhraseSamples:
    """Returns the training samples; noun phrases are parsed and cached where the loss needs them.

    With data.cached, every picture and text is encoded once, by the run that this one starts from.

    Raises:
      UserError: the settings do not go together.
    """
    weights, d = loss_weights(config), config.data
    if reads_texts_alone(config):
        return PhraseSamples(data, tokenizer, phrases=_phrases(config, data, captions_of), text_length=d.text_length)
    groups = phrase_groups(config, cuts)
    samples = ComposedSamples(
        data,
        tokenizer,
        modifications=d.modifications,
        text_length=d.text_length,
        template=config.model.template,
        phrases=_phrases(config, data, lambda part: [record.text for record in part.records])
        if "consistency" in weights else None,
        phrase_budget=_phrase_budget(config, groups),
        phrase_group=d.batch_size // groups,
        phrase_length=d.phrase_length,
        caption_length=d.caption_length if _needs_captions(config) else 0,
        caption_phrases=_phrases(config, data, lambda part: part.captions) if "pseudo_word" in weights else None,
        augment=None if d.augment == "none" else Augment(d.augment),
        seed=config.seed,
    )  # fmt: skip
    if not d.cached:
        return samples
    return samples_of_start(config, workdir, lambda system, path: cached_pairs(system, samples, data, path))


def _phrases(config: Any, data: ComposedData, texts: Callable[[Any], Iterable[str]]) -> dict[str, Any]:
    """Returns the noun phrases of the `texts` of a split, which are kept beside its tables."""
    phrases = {}
    for part in source_data(data):  # each has a cache of its own, whatever it is mixed with
        with first_process_first():
            cache = PhraseCache(part.folder)
            cache.add(texts(part))
        kept = (lambda text, spans: spans) if config.data.pronouns else without_pronouns
        phrases |= {text: kept(text, cache[text]) for text in texts(part)}
    return phrases


def phrase_groups(config: Any, cuts: int) -> int:
    """Returns into how many groups of at least PHRASE_GROUP texts a batch is cut; each has a budget of phrases.

    A device has whole groups, so that it needs no other's texts. Which phrases fit the budget is the same on every mesh
    whose `cuts` of a batch divide the groups; on one with more, each cut is a group.
    """
    references, modifications = config.data.batch_size, config.data.modifications
    sizes = (size for size in range(1, references + 1) if references % size == 0)
    groups = references // next((size for size in sizes if size * modifications >= PHRASE_GROUP), references)
    return groups if groups % cuts == 0 else cuts


def _phrase_budget(config: Any, groups: int) -> int:
    """Returns how many phrases a group of texts has at most: one even where data.phrases_per_text asks for fewer."""
    texts = config.data.batch_size * config.data.modifications
    return max(1, round(config.data.phrases_per_text * texts / groups))


def abstract_batch(config: Any, *, cuts: int = 1) -> ComposedBatch | FeaturePairs | TextBatch:
    """Returns a global training batch as shapes; see make_samples for what the config puts into it."""
    weights, d = loss_weights(config), config.data
    r = d.batch_size
    if d.cached:
        return FeaturePairs(*(floats(r, config.model.projection) for _ in range(3)), *(integers(r) for _ in range(3)))
    if reads_texts_alone(config):
        return TextBatch(abstract_tokens(r, d.text_length), abstract_tokens(r, d.text_length), integers(r))
    phrases = None
    if "consistency" in weights:
        groups = phrase_groups(config, cuts)
        p = groups, _phrase_budget(config, groups)
        tokens = abstract_tokens(*p, d.phrase_length)
        phrases = Phrases(tokens, integers(*p), integers(*p, 2), booleans(*p), integers(r, len(LOST)))
    batch = abstract_composed(config, with_captions=_needs_captions(config))
    return batch._replace(phrases=phrases, masked=batch.captions if "pseudo_word" in weights else None)


def make_phases(config: Any, model: Any, mesh: Any = None) -> list[Phase]:
    """Returns the phases: the objective, led by the captions loss alone where the config says so.

    `mesh` is that of the step; None: the config's, of this machine's devices.

    Raises:
      UserError: no term of the loss has a weight, or a term does not go with the model or the data.
    """
    loss, weights = config.loss, loss_weights(config)
    if not weights:
        raise UserError("No loss term has a weight; give one, as --config.loss.weights.contrastive=1.")
    _check_terms(config, weights)
    if reads_texts_alone(config):
        return [Phase(0, PseudoWordObjective(model, tuple(weights.items())))]
    objective = functools.partial(
        ContextCIRObjective,
        model,
        temperature=None if loss.learned_temperature else loss.temperature,
        epsilon=loss.epsilon,
        normalize_maps=loss.normalize_maps,
        reference_negatives=loss.reference_negatives,
        mask_false_negatives=loss.mask_false_negatives,
        one_direction=loss.one_direction,
        contrastive=pair_loss(config, model, mesh),
        sigmoid=loss.sigmoid,
    )
    phases = [Phase(loss.lead_steps, objective(tuple(sorted(weights.items()))))]
    if loss.lead_steps:
        phases.insert(0, Phase(0, objective((("captions", 1.0),))))
    return phases


def _check_terms(config: Any, weights: dict[str, float]) -> None:
    """Raises a UserError where terms of the loss go with neither the model's query nor the data."""
    model, query, give = config.model, config.model.query, "give another, or set --config.loss.weights"
    if ("pseudo_word" in weights or query == "pseudo_word") and model.template.count("*") != 1:
        raise UserError(
            f"model.template is '{model.template}'; a pseudo-word needs one * in it, as 'a photo of * that {{}}'."
        )
    if "pseudo_word" in weights and query != "pseudo_word":
        raise UserError(f"The pseudo-word loss has a weight, but model.query is '{query}'; {give}.pseudo_word=0.")
    if "reverse" in weights and (query != "composed" or model.reverse_token is None):
        raise UserError(
            "The reverse loss has a weight; it needs the system composed_blip, and a token as model.reverse_token: "
            f"{give}.reverse=0."
        )
    if "reverse" in weights and not weights.keys() & {"contrastive", "recall"}:
        raise UserError("The reverse loss takes the form of the forward one; set loss.weights.contrastive or .recall.")
    if "consistency" in weights and model.template != "{}":
        raise UserError(f"model.template is '{model.template}', in which phrases are not found; {give}.consistency=0.")
    if not config.data.cached:
        return
    if query in ("fusion", "pseudo_word", "qformer", "composed"):
        raise UserError(f"data.cached keeps one feature of a picture, and the query '{query}' reads more; unset it.")
    if odd := sorted(weights.keys() - {"contrastive", "recall"}):
        raise UserError(f"data.cached has no {odd[0]} loss, which needs pictures; {give}.{odd[0]}=0.")
    if config.loss.lead_steps or config.data.augment != "none":
        raise UserError("data.cached has neither a captions loss that leads nor augmentation; unset them.")
