"""What ContextBLIP is trained on: captions (stage 1), candidate sets (2a), their cached features (2b)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contextjax.losses.contrastive import LOWEST, contrastive_loss, contrastive_loss_of
from contextjax.losses.matching import (
    draw_negatives,
    matching_loss,
    selection_accuracy,
    selection_loss,
    truth_loss,
)
from contextjax.losses.reconstruction import attended_loss, reconstruction_loss
from contextjax.models.context_blip import ContextBLIP
from contextjax.models.masking import mask_scores, scramble, split_patches
from contextjax.types import CandidateBatch, CaptionBatch, FeatureBatch, Terms


class Draws(NamedTuple):
    """What is random in a step of stage 1."""

    negative_image: Any  # int [B]: the picture that each text is wrongly paired with
    negative_text: Any  # int [B]: the text that each picture is wrongly paired with
    position: Any  # int [B]: the token whose attention chooses the patches to mask
    noise: Any  # float [B, patches], uniform in [0, 1): see models.masking.mask_scores


@dataclasses.dataclass(frozen=True)
class CaptionObjective:
    """Stage 1, intra-contextual: matching and masking, which the paper weighs alike; BLIP's contrastive term too.

    Attributes:
      model: the module that `params` belong to.
      weights: (name, weight) pairs out of "matching", "masking", "contrastive".
      temperature: of the contrastive term; None: the model's own.
      real_tokens: the masking's token is a real one of each text; else, as published, one position for all texts,
        which may be padding.
      scrambled: show the visible patches as the published code does, their pixels out of order.
      mask_false_negatives: a text's negatives are never its own picture (which may stand in the batch twice).
      contrastive: contrastive_loss, or a form of it that holds no matrix of logits.
    """

    model: ContextBLIP
    weights: tuple[tuple[str, float], ...]
    temperature: float | None = 0.07
    real_tokens: bool = True
    scrambled: bool = False
    mask_false_negatives: bool = True
    contrastive: Callable[..., Any] = contrastive_loss

    @property
    def is_rowwise(self) -> bool:
        """Not where negatives are drawn from the batch."""
        return set(dict(self.weights)) <= {"contrastive"}

    def represent(self, params: Any, batch: CaptionBatch, rng: Any, draws: Draws | None = None) -> dict[str, Any]:
        """Everything the terms compare. `draws`: instead of random ones."""
        run = _runner(self.model, params)
        names = dict(self.weights)
        image, text = run("encode_image", batch.images), run("encode_text", *batch.texts)
        out = {"image": run("embed_image", image), "text": run("embed_text", text)}
        out["temperature"] = run("temperature") if self.temperature is None else jnp.float32(self.temperature)
        if "matching" not in names and "masking" not in names:
            return out
        if draws is None:
            draws = self._draw(rng, out["text"] @ out["image"].T, batch)
        # Three pairs of each row: its own, its text with a wrong picture, its picture with a wrong text. The wrong
        # pictures' tokens are all that devices exchange; keys and values of every block would be many times that.
        tokens = run("adapt", image)
        pictures = jnp.stack([tokens, tokens[draws.negative_image]], axis=1)
        texts = (jnp.stack([x, x, x[draws.negative_text]], axis=1) for x in batch.texts)
        fused = run("read", pictures, *texts, np.array([0, 1, 0]))
        out["matching"] = run("match_states", fused)
        if "masking" in names:
            positive = jax.tree.map(lambda x: x[:, 0], fused)
            out |= self._mask(run, batch, draws, tokens, positive)
        return out

    def _draw(self, rng: Any, similarity: Any, batch: CaptionBatch) -> Draws:
        keys = jax.random.split(rng, 4)
        similarity, ids = jax.lax.stop_gradient(similarity), batch.image_ids
        same = ids[:, None] == ids[None, :] if self.mask_false_negatives else jnp.eye(len(ids), dtype=bool)
        real = batch.texts.mask
        if self.real_tokens:
            position = jax.random.categorical(keys[2], jnp.where(real, 0.0, -jnp.inf), axis=-1)
        else:
            position = jnp.broadcast_to(jax.random.randint(keys[2], (), 0, real.shape[1]), (len(ids),))
        side = self.model.config.blip.vision.image_size // self.model.config.blip.vision.patch_size
        return Draws(
            negative_image=draw_negatives(keys[0], similarity, ~same),
            negative_text=draw_negatives(keys[1], similarity.T, ~same),
            position=position,
            noise=jax.random.uniform(keys[3], (len(ids), side**2)),
        )

    def _mask(self, run: Any, batch: CaptionBatch, draws: Draws, tokens: Any, fused: Any) -> dict[str, Any]:
        scores = mask_scores(jax.lax.stop_gradient(fused.attention), draws.position, draws.noise)
        masked, visible = split_patches(scores, round(self.model.config.mask_rate * scores.shape[1]))
        if self.model.config.masking == "attended":
            attended = jnp.zeros(scores.shape, bool).at[jnp.arange(len(scores))[:, None], masked].set(True)
            logits = run(lambda model, x: model.attended(x)[..., 0], tokens[:, 1:])
            return {"attended_logits": logits, "attended": attended}
        patches = run("patchify", batch.images)
        shown = scramble(patches) if self.scrambled else patches
        seen = run("encode_visible", shown, visible)
        decode = lambda model, *inputs: model.decoder(*inputs)
        pixels = run(decode, seen, masked, visible, fused.states, batch.texts.mask)
        return {"pixels": pixels, "truth": jnp.take_along_axis(patches, masked[..., None], axis=1)}

    def terms(self, representations: dict[str, Any], batch: CaptionBatch) -> Terms:
        """(sum, count) of every weighted term, and of what is only logged."""
        r, names = representations, dict(self.weights)
        terms = {}
        if "contrastive" in names:
            every = jnp.ones(len(r["text"]), bool)
            terms["contrastive"] = self.contrastive(
                r["text"], r["image"], temperature=r["temperature"], valid=every, target_ids=batch.image_ids,
                mask_false_negatives=True,
            )  # fmt: skip
            terms["temperature"] = (r["temperature"], jnp.float32(1))
        if "matching" in r:
            logits = r["matching"].reshape(-1, 2)
            is_match = jnp.arange(len(logits)) % 3 == 0
            terms["matching"] = matching_loss(logits, is_match)
            right = (logits[:, 1] > logits[:, 0]) == is_match
            terms["matching_accuracy"] = (right.sum().astype(jnp.float32), jnp.float32(len(right)))
        if "pixels" in r:
            terms["masking"] = reconstruction_loss(r["pixels"], r["truth"])
        if "attended" in r:
            terms["masking"] = attended_loss(r["attended_logits"], r["attended"])
        return terms


@dataclasses.dataclass(frozen=True)
class SelectionObjective:
    """Stages 2a and 2b: which candidate of a set is described.

    Attributes:
      model: the module that `params` belong to.
      weights: (name, weight) pairs out of "selection" (cross-entropy over a set's candidates of the model's score),
        "contrastive" (the base score of the text and all candidates of the batch; not in the paper) and "truth" (binary
        cross-entropy of each candidate by itself, of a model that reads propositions; not in the paper).
    """

    model: ContextBLIP
    weights: tuple[tuple[str, float], ...]

    @property
    def is_rowwise(self) -> bool:
        """Not where a text is scored with all candidates of the batch."""
        return "contrastive" not in dict(self.weights)

    def represent(self, params: Any, batch: CandidateBatch | FeatureBatch, rng: Any) -> dict[str, Any]:
        """Scores [S, K] of the candidates; of a CandidateBatch what the base score makes of them too."""
        run = _runner(self.model, params, rng)
        if isinstance(batch, FeatureBatch):
            return {"scores": run("select", batch.features, batch.base, batch.valid, batch.ordered, batch.text)}
        found = run("represent_sets", batch.images, *batch.texts, None, batch.propositions)
        out = {"scores": run("select", found.features, found.base, batch.valid, batch.ordered, found.summary)}
        if "truth" in dict(self.weights):
            out["base"] = found.base
        if "contrastive" in dict(self.weights):
            images = found.image.reshape(1, -1, *found.image.shape[2:])
            out["similarity"] = run("base_score", images, found.text, found.real)  # [S, U * K]
            out["temperature"] = run("temperature")
        return out

    def terms(self, representations: dict[str, Any], batch: CandidateBatch | FeatureBatch) -> Terms:
        """(sum, count) of every weighted term, and of what is only logged."""
        r, names = representations, dict(self.weights)
        scored = (r["scores"], batch.target, batch.valid)
        terms = {"selection": selection_loss(*scored), "accuracy": selection_accuracy(*scored)}
        if "truth" in names:
            terms["truth"] = truth_loss(r["base"], batch.target, batch.valid)
        if "contrastive" in names:
            texts, count = batch.valid.shape
            unique = r["similarity"].shape[1] // count
            sets = jnp.arange(texts) // (texts // unique)
            own = sets * count + batch.target
            # What fills up a small set is nobody's negative, and of a text's own set only what it is about is one.
            known = batch.valid.reshape(unique, -1, count).any(1)
            known = jnp.broadcast_to(known, (texts, unique, count)).at[jnp.arange(texts), sets].set(batch.valid)
            known = known.reshape(texts, -1)
            similarity = jnp.where(known, r["similarity"], LOWEST)
            terms["contrastive"] = contrastive_loss_of(
                similarity[:, own], valid=jnp.ones(texts, bool), target_ids=own, mask_false_negatives=True,
                negatives=similarity, negative_ids=jnp.arange(unique * count),
            )  # fmt: skip
            terms["temperature"] = (r["temperature"], jnp.float32(1))
        return terms


def _runner(model: Any, params: Any, dropout: Any = None) -> Any:
    """(method, *inputs) -> what the model's method of that name gives."""
    rngs = {} if dropout is None else {"rngs": {"dropout": dropout}}

    def run(method: Any, *inputs: Any) -> Any:
        return model.apply({"params": params}, *inputs, method=method, **rngs)

    return run
