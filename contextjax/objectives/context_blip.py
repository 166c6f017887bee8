"""The objectives of ContextBLIP: captions (stage 1), candidate sets (stage 2a), their cached features (stage 2b)."""

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
from contextjax.objectives.runner import runner
from contextjax.types import CandidateBatch, CaptionBatch, FeatureBatch, Terms


class Draws(NamedTuple):
    """The random choices of a step of stage 1."""

    negative_image: Any  # int [B]: the picture that is the negative of each text
    negative_text: Any  # int [B]: the text that is the negative of each picture
    position: Any  # int [B]: the token whose attention chooses the patches to mask
    noise: Any  # float [B, patches], uniform in [0, 1): see models.masking.mask_scores


@dataclasses.dataclass(frozen=True)
class CaptionObjective:
    """Stage 1, intra-contextual alignment: matching and masking, which the paper weighs alike, and a contrastive term.

    Attributes:
      model: the module that `params` belong to; for the contrastive term alone, any DualEncoder with a temperature.
      weights: (name, weight) pairs out of "matching", "masking" and "contrastive" (BLIP's; not in the paper).
      temperature: temperature of the contrastive term; None: the model's learned one.
      real_tokens: choose patches to mask by the attention of a random real token of each text; False, as published: of
        one position for all texts, which may be padding.
      fixed_masks: hide random patches of a picture, the same ones whenever it comes, instead of those that its text
        attends to.
      scrambled: show visible patches with their pixels out of order, as the published code does.
      mask_false_negatives: never pair a text with its own picture as a negative (which may be in the batch twice).
      contrastive: `contrastive_loss`, or another form of it with the same signature.
      sigmoid: `contrastive` is `sigmoid_loss`, which takes the model's learned bias, too.
    """

    model: Any
    weights: tuple[tuple[str, float], ...]
    temperature: float | None = 0.07
    real_tokens: bool = True
    fixed_masks: bool = False
    scrambled: bool = False
    mask_false_negatives: bool = True
    contrastive: Callable[..., Any] = contrastive_loss
    sigmoid: bool = False

    @property
    def is_rowwise(self) -> bool:
        """False where negatives are drawn from the batch: a row's representations then depend on the other rows."""
        return set(dict(self.weights)) <= {"contrastive"}

    def represent(self, params: Any, batch: CaptionBatch, rng: Any, draws: Draws | None = None) -> dict[str, Any]:
        """Returns what the terms compare; `draws` replaces the random choices that `rng` makes."""
        run = runner(self.model, params)
        names = dict(self.weights)
        image, text = run("encode_image", batch.images), run("encode_text", *batch.texts)
        out = {"image": run("embed_image", image), "text": run("embed_text", text)}
        out["temperature"] = run("temperature") if self.temperature is None else jnp.float32(self.temperature)
        if self.sigmoid:
            out["bias"] = run("pair_bias")
        if "matching" not in names and "masking" not in names:
            return out
        if draws is None:
            draws = self._draw(rng, out["text"] @ out["image"].T, batch)
        # Each row makes three pairs: its own, its text with a negative picture, its picture with a negative text.
        # Devices exchange the tokens of negative pictures only; keys and values of every block would be much larger.
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
        noise = jax.random.uniform(keys[3], (len(ids), side**2))
        if self.fixed_masks:
            draw = lambda id: jax.random.uniform(jax.random.fold_in(jax.random.key(0), id), (side**2,))
            noise = jax.vmap(draw)(ids)
        return Draws(
            negative_image=draw_negatives(keys[0], similarity, ~same),
            negative_text=draw_negatives(keys[1], similarity.T, ~same),
            position=position,
            noise=noise,
        )

    def _mask(self, run: Any, batch: CaptionBatch, draws: Draws, tokens: Any, fused: Any) -> dict[str, Any]:
        scores = mask_scores(jax.lax.stop_gradient(fused.attention), draws.position, draws.noise)
        scores = draws.noise if self.fixed_masks else scores
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
        """Returns (sum, count) of every weighted term, and of further terms for the log."""
        r, names = representations, dict(self.weights)
        terms = {}
        if "contrastive" in names:
            every = jnp.ones(len(r["text"]), bool)
            scale = {name: r[name] for name in ("temperature", "bias") if name in r}
            terms["contrastive"] = self.contrastive(
                r["text"], r["image"], **scale, valid=every, target_ids=batch.image_ids, mask_false_negatives=True
            )
            terms |= {name: (value, jnp.float32(1)) for name, value in scale.items()}
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
    """Stages 2a and 2b: selection of the candidate that a text describes.

    Attributes:
      model: the module that `params` belong to.
      weights: (name, weight) pairs out of "selection" (cross-entropy over a set's candidates), "contrastive" (of the
        base score of a text and all candidates of the batch; not in the paper) and "truth" (binary cross-entropy of
        each candidate by itself, for a model that reads propositions; not in the paper).
    """

    model: ContextBLIP
    weights: tuple[tuple[str, float], ...]

    @property
    def is_rowwise(self) -> bool:
        """False where a text is scored with all candidates of the batch."""
        return "contrastive" not in dict(self.weights)

    def represent(self, params: Any, batch: CandidateBatch | FeatureBatch, rng: Any) -> dict[str, Any]:
        """Returns scores [S, K] of the candidates and, for a CandidateBatch, what the other terms need."""
        run = runner(self.model, params, rng)
        if isinstance(batch, FeatureBatch):
            return {"scores": run("select", batch.features, batch.base, batch.valid, batch.ordered, batch.text)}
        sets = run("represent_sets", batch.images, *batch.texts, None, batch.propositions)
        out = {"scores": run("select", sets.features, sets.base, batch.valid, batch.ordered, sets.summary)}
        if "truth" in dict(self.weights):
            out["base"] = sets.base
        if "contrastive" in dict(self.weights):
            images = sets.image.reshape(1, -1, *sets.image.shape[2:])
            out["similarity"] = run("base_score", images, sets.text, sets.real)  # [S, U * K]
            out["temperature"] = run("temperature")
        return out

    def terms(self, representations: dict[str, Any], batch: CandidateBatch | FeatureBatch) -> Terms:
        """Returns (sum, count) of every weighted term, and of further terms for the log."""
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
            # Padding of small sets is no negative; in a text's own set, only candidates that its batch marks as valid.
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
