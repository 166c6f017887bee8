"""Zero-shot classification against a plain loop; the probe's minimum, its choice of strength, and scikit-learn's."""

import numpy as np
import pytest

from contextjax.evaluation.classification import STRENGTHS, class_embeddings, classification_metrics, fit_probe
from contextjax.types import UserError


class Texts:
    def __init__(self, seed=0):
        self.rng, self.known = np.random.default_rng(seed), {}

    def encode_text(self, texts):
        for text in texts:
            vector = self.rng.normal(size=5)
            self.known.setdefault(text, vector / np.linalg.norm(vector))
        return np.stack([self.known[text] for text in texts]).astype(np.float32)


def test_a_class_is_the_mean_of_its_templates():
    system = Texts()
    rows = class_embeddings(system, ["dog", "cat {}"], ["a {}.", "the {} {}"])
    for row, name in zip(rows, ("dog", "cat {}"), strict=True):
        mean = system.known[f"a {name}."] + system.known[f"the {name} {name}"]
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)
    with pytest.raises(UserError, match=r"The template is 'a photo'; expected \{\}"):
        class_embeddings(system, ["dog"], ["a {}", "a photo"])


def test_metrics_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(60, 7)), rng.integers(0, 6, 60)  # one class has no picture
    right = [np.argsort(-row)[0] == label for row, label in zip(scores, labels, strict=True)]
    within = [label in np.argsort(-row)[:5] for row, label in zip(scores, labels, strict=True)]
    per_class = [np.mean([r for r, label in zip(right, labels, strict=True) if label == c]) for c in range(6)]
    values = classification_metrics(scores, labels)
    assert values["low95"] < values["top1"] < values["high95"]
    expected = {"top1": 100 * np.mean(right), "top5": 100 * np.mean(within), "per_class": 100 * np.mean(per_class)}
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert "top5" not in classification_metrics(scores[:, :5], labels % 5)


def clusters(rng, count, noise=1.0):
    labels = rng.integers(0, 3, count)
    return (np.eye(3, 6)[labels] + noise * rng.normal(size=(count, 6))).astype(np.float32), labels


def test_the_probe_is_at_the_minimum_of_its_loss():
    x, labels = clusters(np.random.default_rng(1), 80)
    probe = fit_probe(x, labels, classes=3, strengths=(0.1,))
    logits = probe.scores(x)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (shares - np.eye(3)[labels]) / len(x)
    assert np.abs(x.T @ error + 0.1 * probe.weights).max() < 1e-4 and np.abs(error.sum(axis=0)).max() < 1e-4


def test_the_strength_is_chosen_on_held_out_pictures():
    rng = np.random.default_rng(3)
    x, labels = clusters(rng, 60, noise=0.8)
    other, truth = clusters(rng, 2000, noise=0.8)

    def accuracy(*strengths):
        probe = fit_probe(x, labels, classes=3, strengths=strengths)
        return classification_metrics(probe.scores(other), truth)["top1"]

    assert accuracy(*STRENGTHS) > max(accuracy(each) for each in STRENGTHS) - 3
    few = fit_probe(x[:3], np.arange(3), classes=3)  # nothing to hold out
    assert few.strength == 1.0 and few.scores(x).shape == (60, 3)
