"""The objective of composed queries: named loss terms of a batch. ConText-CIR's first (arXiv 2505.20764)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from contextjax.losses.consistency import consistency_loss, phrase_attention
from contextjax.losses.contrastive import contrastive_loss, recall_at_one
from contextjax.losses.recall_surrogate import recall_surrogate_loss
from contextjax.losses.sigmoid import sigmoid_loss
from contextjax.models.layers import normalize
from contextjax.models.vision import VisionOutput
from contextjax.objectives.pseudo_word import represent_words, word_loss
from contextjax.objectives.runner import runner
from contextjax.types import LOST, ComposedBatch, FeaturePairs, Phrases, Terms


@dataclasses.dataclass(frozen=True)
class ContextCIRObjective:
    """The terms of a batch of composed queries and their weights; only terms with a weight are computed.

    Attributes:
      model: the module that `params` belong to, a ContextCIR or another one that composes a query.
      weights: (name, weight) pairs out of "contrastive", "recall" (the Recall@K surrogate), "reverse" (that of the two
        that has a weight: target and text, which lead back to the reference), "consistency", "captions" (contrastive,
        of captions and their pictures; not in the paper) and "pseudo_word" (of captions alone).
      temperature: a fixed temperature; None: the learned one.
      epsilon: threshold of the consistency loss.
      normalize_maps: normalise maps over the patches in the consistency loss.
      reference_negatives: use references as pure negatives of every query.
      mask_false_negatives: leave out what is the row's positive among the other candidates, by id.
      one_direction: the contrastive loss is of queries against targets alone.
      contrastive: `contrastive_loss`, or another form of it with the same signature. Those hold no matrix of logits,
        which the batch's recall needs: it is then not logged.
      sigmoid: `contrastive` is `sigmoid_loss`, which takes the model's learned bias, too.
    """

    model: Any
    weights: tuple[tuple[str, float], ...]
    temperature: float | None = 0.07
    epsilon: float = 0.0
    normalize_maps: bool = False
    reference_negatives: bool = True
    mask_false_negatives: bool = False
    one_direction: bool = False
    contrastive: Callable[..., Any] = contrastive_loss
    sigmoid: bool = False
    is_rowwise = True

    def represent(
        self, params: Any, batch: ComposedBatch | FeaturePairs, rng: Any = None, *, by_block: bool = False
    ) -> dict[str, Any]:
        """Returns the embeddings that the terms compare; each picture is encoded once. `rng` is of dropout.

        `by_block`: the phrases' maps of each fusion block, too ("blocks").
        """
        names = dict(self.weights)
        run = runner(self.model, params, rng)
        if isinstance(batch, FeaturePairs):
            query = run("compose_features", batch.reference, batch.text)
            out = {"query": query, "target": batch.target, "reference": batch.reference}
            return {name: normalize(x) for name, x in out.items()} | self._scale(run)
        # Pictures are grouped by reference, [R, 1 + M]: each of several devices keeps its own.
        count, modifications = batch.target_ids.shape
        by_reference = lambda x: x.reshape(count, 1 + modifications, *x.shape[1:])
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        pictures = jnp.concatenate([batch.references[:, None], batch.targets], axis=1)
        images = run("encode_image", flat(pictures))
        embedded = by_reference(run("embed_image", images))
        out = {
            "reference": embedded[:, 0],
            "target": flat(embedded[:, 1:]),
            **self._scale(run),
        }
        if names.keys() & {"contrastive", "recall"}:
            # [R, 1, ...] meets the texts' [R, M, ...]
            source = jax.tree.map(lambda x: by_reference(x)[:, :1], images)
            composition = run("compose", source, *batch.texts)
            out["query"] = normalize(flat(composition.query))
            if "consistency" in names:
                every = composition.by_block if by_block else ()
                (in_context, alone), *blocks = self._phrase_maps(run, source, (composition.attention, *every), batch)
                out |= {"in_context": in_context, "alone": alone} | ({"blocks": blocks} if by_block else {})
        if "reverse" in names:
            back = run("compose", jax.tree.map(lambda x: by_reference(x)[:, 1:], images), *batch.texts, True)
            out["back"] = normalize(flat(back.query))
        if "captions" in names:
            out["picture"] = flat(embedded)
            out["caption"] = run("embed_text", run("encode_text", *jax.tree.map(flat, batch.captions)))
        if "pseudo_word" in names:
            captions, masked = jax.tree.map(flat, (batch.captions, batch.masked))
            out |= represent_words(self.model, params, captions, masked, rng)
        return out

    def _scale(self, run: Callable[..., Any]) -> dict[str, Any]:
        """Returns what makes logits of cosines, by the names of the losses' arguments."""
        temperature = run("temperature") if self.temperature is None else jnp.float32(self.temperature)
        return {"temperature": temperature} | ({"bias": run("pair_bias")} if self.sigmoid else {})

    def _phrase_maps(
        self, run: Callable[..., Any], source: VisionOutput, attentions: Sequence[Any], batch: ComposedBatch
    ) -> list[tuple[Any, Any]]:
        """Returns maps [G * P, patches] of each phrase in its sentence and alone, over the same image tokens.

        They are those of the mean over the blocks, then of each block where `attentions` has more than the mean.
        """
        phrases = batch.phrases
        assert phrases is not None, "the consistency loss needs batches with phrases"
        groups, modifications = len(phrases.text), batch.target_ids.shape[1]
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        # Taken group by group: each of several devices has the texts and pictures of its own phrases.
        take = lambda x, rows: flat(jax.vmap(lambda x, rows: x[rows])(x.reshape(groups, -1, *x.shape[2:]), rows))
        tokens = take(source.tokens, phrases.text // modifications)
        ids, mask = map(flat, phrases.tokens)
        _, mean, _, blocks = run("fuse", tokens, run("encode_text", ids, mask).states, mask)
        length, own = mask.sum(-1), _towers(self.model)
        begin = 1 if getattr(own.text, "pad_token", None) is None else 0  # a SigLIP's texts have no BOS
        # BOS and EOS are in the softmax, not in the mean.
        inner = jnp.stack([jnp.full_like(length, begin), length - 1], axis=-1)
        maps = functools.partial(phrase_attention, class_tokens=own.vision.class_tokens)
        return [
            (maps(take(attention, phrases.text), flat(phrases.span)), jax.lax.stop_gradient(maps(alone, inner)))
            for attention, alone in zip(attentions, (mean, *blocks), strict=False)
        ]

    def terms(self, representations: dict[str, Any], batch: ComposedBatch | FeaturePairs) -> Terms:
        """Returns (sum, count) of every weighted term, and of further terms for the log."""
        r = representations
        names = dict(self.weights)
        target_ids = batch.target_ids.reshape(-1)
        is_pairs = isinstance(batch, FeaturePairs)
        valid = jnp.ones(len(target_ids), bool) if is_pairs else batch.valid.reshape(-1)
        scale = {name: r[name] for name in ("temperature", "bias") if name in r}
        terms = {name: (value, jnp.float32(1)) for name, value in scale.items()}
        marks = {"valid": valid, "target_ids": target_ids, "mask_false_negatives": self.mask_false_negatives}
        if "contrastive" in names:
            terms["contrastive"] = self.contrastive(
                r["query"],
                r["target"],
                negatives=r["reference"] if self.reference_negatives else None,
                negative_ids=batch.reference_ids,
                **({"one_direction": True} if self.one_direction else {}),
                **scale,
                **marks,
            )
        if "recall" in names:
            terms["recall"] = recall_surrogate_loss(r["query"], r["target"], **marks)
        if "query" in r and self.contrastive in (contrastive_loss, sigmoid_loss):
            terms["batch_recall"] = recall_at_one(r["query"], r["target"], valid)
        if "back" in r:
            repeated = lambda x: jnp.repeat(x, len(valid) // len(x), axis=0)  # of each of a reference's modifications
            sides = r["back"], repeated(r["reference"])
            # The modifications of a reference have the same positive.
            marks |= {"target_ids": repeated(batch.reference_ids), "mask_false_negatives": True}
            terms["reverse"] = (
                recall_surrogate_loss(*sides, **marks) if "recall" in names
                else self.contrastive(*sides, **scale, **marks)
            )  # fmt: skip
        if "rebuilt" in r:
            terms["pseudo_word"] = word_loss(r)
        if not isinstance(batch, ComposedBatch):
            return terms
        if "in_context" in r and batch.phrases is not None:
            maps = (r["in_context"], r["alone"], batch.phrases.valid.reshape(-1))
            terms["consistency"] = consistency_loss(*maps, epsilon=self.epsilon, normalize=self.normalize_maps)
            terms |= _phrase_shares(batch.phrases)
        if "captions" in names:
            by_reference = lambda of_reference, of_targets: jnp.concatenate(
                [of_reference[:, None], of_targets], axis=1
            ).reshape(-1)
            terms["captions"] = self.contrastive(
                r["caption"],
                r["picture"],
                **scale,
                valid=by_reference(jnp.ones_like(batch.reference_ids, bool), batch.valid),
                target_ids=by_reference(batch.reference_ids, batch.target_ids),
                mask_false_negatives=True,
            )
        return terms

    def diagnose(self, params: Any, batch: ComposedBatch | FeaturePairs) -> dict[str, Any]:
        """Returns weighted gradient norms of each term, their ratio, consistency values and shares of false negatives.

        Norms are of all parameters, and of the layers of each part ("grad_norm/consistency/fusion_0",
        ".../clip/text/layer_1"); consistency values are of the mean over the fusion blocks, and of each block. There
        is one forward pass, and one backward pass for each term.
        """
        names = [name for name, _ in self.weights]

        def means(params):
            representations = self.represent(params, batch, by_block="consistency" in names)
            terms = self.terms(representations, batch)
            return {name: terms[name][0] / jnp.maximum(terms[name][1], 1.0) for name in names}, representations

        values, pull, representations = jax.vjp(means, params, has_aux=True)
        metrics: dict[str, Any] = {}
        for name, weight in self.weights:
            one_term = {other: jnp.asarray(float(other == name), values[other].dtype) for other in names}
            gradient = pull(one_term)[0]
            metrics[f"grad_norm/{name}"] = weight * optax.tree.norm(gradient)
            for layer, leaves in _layers(gradient).items():
                metrics[f"grad_norm/{name}/{layer}"] = weight * optax.tree.norm(leaves)
        if "consistency" in names and isinstance(batch, ComposedBatch) and batch.phrases is not None:
            ratio = metrics["grad_norm/consistency"] / jnp.maximum(metrics["grad_norm/contrastive"], 1e-12)
            metrics["grad_norm/consistency_to_contrastive"] = ratio
            valid = batch.phrases.valid.reshape(-1)
            every = {"": (representations["in_context"], representations["alone"])}
            every |= {f"/fusion_{i}": maps for i, maps in enumerate(representations["blocks"])}
            for (block, maps), form in itertools.product(every.items(), ("raw", "normalized")):
                total, count = consistency_loss(*maps, valid, epsilon=0.0, normalize=form == "normalized")
                metrics[f"consistency/{form}{block}"] = total / jnp.maximum(count, 1.0)
        targets, valid = batch.target_ids.reshape(-1), jnp.ones(batch.target_ids.size, bool)
        valid = batch.valid.reshape(-1) if isinstance(batch, ComposedBatch) else valid
        another = (targets[:, None] == targets) & valid & ~jnp.eye(len(targets), dtype=bool)
        a_reference = targets[:, None] == batch.reference_ids
        for name, same in (("another_target", another), ("a_reference", a_reference)):
            metrics[f"false_negatives/{name}"] = (same.any(axis=1) & valid).sum() / jnp.maximum(valid.sum(), 1)
        return metrics


def _towers(model: Any) -> Any:
    """Returns the config of the towers that a model composes queries on."""
    return next(getattr(model.config, name) for name in ("clip", "blip") if hasattr(model.config, name))


def _layers(params: Any) -> dict[str, list[Any]]:
    """Returns the leaves of each numbered layer, "clip/text/layer_1", and of every other module, by path."""
    layers: dict[str, list[Any]] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        names = [str(getattr(entry, "key", entry)) for entry in path]
        ends = (i + 1 for i, name in enumerate(names) if name[-1].isdigit() or name == "layers")  # a stack of them
        layers.setdefault("/".join(names[: next(ends, len(names) - 1)] or names), []).append(leaf)
    return layers


def _phrase_shares(phrases: Phrases) -> Terms:
    """Returns the shares of all phrases of the batch's texts that take part, and that are missing, by reason."""
    kept, lost = phrases.valid.sum(), phrases.lost.sum(axis=0)
    count = (kept + lost.sum()).astype(jnp.float32)
    numbers = {"matched": kept} | {cause: lost[i] for i, cause in enumerate(LOST)}
    shares = {f"phrases/{name}": (number.astype(jnp.float32), count) for name, number in numbers.items()}
    return {**shares, "phrases": (count, jnp.float32(1))}
