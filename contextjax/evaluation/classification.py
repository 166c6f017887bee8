"""Classification of pictures by embeddings: zero-shot by the names of classes, and a linear probe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import logsumexp

from contextjax import metrics
from contextjax.types import UserError

TEMPLATES = ("a photo of a {}.",)
STRENGTHS = tuple(
    10.0**power for power in range(-7, 1)
)  # of the probe's L2 term; the best on held-out pictures is kept
HELD_OUT = 5  # every so many-th picture of a class is held out for that
MOST_STEPS = 1000


class TextEncoder(Protocol):
    """A system as zero-shot classification needs it."""

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Returns embeddings [B, D], L2-normalised."""
        ...


def class_embeddings(
    system: TextEncoder, names: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> Float[np.ndarray, "c d"]:
    """Returns an embedding of each class, L2-normalised: the mean of its name in each template, as CLIP's authors do.

    Raises:
      UserError: a template has no place for the name.
    """
    if odd := [template for template in templates if "{}" not in template]:
        raise UserError(f"The template is '{odd[0]}'; expected {{}} where the class's name goes, as '{TEMPLATES[0]}'.")
    texts = [template.replace("{}", name) for name in names for template in templates]
    means = system.encode_text(texts).reshape(len(names), len(templates), -1).mean(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def classification_metrics(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> dict[str, float]:
    """Returns top-1 and top-5 accuracy and the mean accuracy over classes, in percent, and top1's interval of 95 %."""
    ranks = metrics.rank_of_truth(scores, labels)
    low, high = metrics.share_interval(int((ranks == 0).sum()), len(ranks))
    per_class = [float((ranks[labels == label] == 0).mean()) for label in np.unique(labels)]
    values = {"top1": metrics.recall_at(ranks, 1), "low95": low, "high95": high}
    if scores.shape[1] > 5:
        values["top5"] = metrics.recall_at(ranks, 5)
    return values | {"per_class": float(100 * np.mean(per_class))}


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of embeddings, and the strength of the L2 term that it was trained with."""

    weights: np.ndarray  # [D, C]
    bias: np.ndarray  # [C]
    strength: float

    def scores(self, embeddings: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """Returns the logits of each class."""
        return embeddings @ self.weights + self.bias


def fit_probe(
    embeddings: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    *,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearProbe:
    """Trains a linear probe: multinomial logistic regression by L-BFGS, as for CLIP (arXiv 2103.00020, appendix A.3).

    Minimises the mean cross-entropy plus strength / 2 times the squared weights; biases are free.

    Args:
      embeddings: of the training pictures.
      labels: the class of each, from 0.
      classes: how many classes there are.
      strengths: of the L2 term. Of several, the one with the lowest cross-entropy on every HELD_OUT-th picture of a
        class is kept, and trained on all pictures.
    """
    x, strength = embeddings.astype(np.float64), max(strengths)
    if len(strengths) > 1 and (held_out := _held_out(labels)).any():
        probe, losses = None, {}
        for each in sorted(strengths, reverse=True):
            probe = _fit(x[~held_out], labels[~held_out], classes, each, start=probe)
            logits = probe.scores(x[held_out])
            losses[each] = float((logsumexp(logits, axis=1) - logits[range(len(logits)), labels[held_out]]).mean())
        strength = min(losses, key=lambda each: losses[each])
    return _fit(x, labels, classes, strength)


def _held_out(labels: np.ndarray) -> np.ndarray:
    """Returns bool [N]: every HELD_OUT-th picture of a class."""
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[HELD_OUT - 1 :: HELD_OUT]] = True
    return held_out


def _fit(x: np.ndarray, labels: np.ndarray, classes: int, strength: float, start: Any = None) -> LinearProbe:
    count, width = x.shape
    rows = np.arange(count)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[:-classes].reshape(width, classes), flat[-classes:]
        logits = x @ weights + bias
        totals = np.asarray(logsumexp(logits, axis=1, keepdims=True))
        value = (totals[:, 0] - logits[rows, labels]).mean() + strength / 2 * (weights**2).sum()
        error = np.exp(logits - totals)
        error[rows, labels] -= 1
        error /= count
        return value, np.concatenate([(x.T @ error + strength * weights).ravel(), error.sum(axis=0)])

    begin = np.zeros((width + 1) * classes) if start is None else np.concatenate([start.weights.ravel(), start.bias])
    flat = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": MOST_STEPS}).x
    return LinearProbe(flat[:-classes].reshape(width, classes), flat[-classes:], strength)
