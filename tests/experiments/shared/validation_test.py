"""Evaluations in training: those without a folder are left out, and the rule of the best names what is evaluated."""

import numpy as np
import pytest
from ml_collections import ConfigDict

import contextjax
from configs.base import evaluation
from configs.context_cir import get_config
from configs.pictograms import get_config as get_pictograms
from contextjax.types import UserError
from data_pipelines import protocols
from data_pipelines.datasets.cirr import CirrReader
from experiments.shared.run_config import read_config
from experiments.shared.validation import best_rule, evaluations, make_evaluate, print_left_out


def test_a_benchmark_without_a_folder_is_left_out_and_that_is_said(capsys):
    config = get_config("B32")
    config.data.folder = "CIRR"
    assert evaluations(config) == {"cirr/val": (protocols.CIRR, "CIRR", "val")}
    assert best_rule(config) == {"cirr/val/R@5": 0.5}
    print_left_out(config)
    assert "'circo' has no folder (--config.data.evaluations.circo.folder=DIR)" in capsys.readouterr().out
    config.data.evaluations.circo.folder = "CIRCO"
    assert evaluations(config)["circo/val"] == (protocols.CIRCO, "CIRCO", "val")
    assert best_rule(config) == {"cirr/val/R@5": 0.5, "circo/val/mAP@10": 0.5} and not capsys.readouterr().out
    with config.unlocked():
        config.training.best = {"val/R@5": 1.0}
    with pytest.raises(
        UserError, match="names 'val/R@5', which nothing evaluates; expected a metric of circo/val, cirr/"
    ):
        best_rule(config)


def test_nothing_is_evaluated_where_none_is_wanted(capsys):
    config = get_config("B32")
    config.training.evaluate_every = 0
    print_left_out(config)
    assert evaluations(config) == {} and best_rule(config) == {} and not capsys.readouterr().out
    with config.unlocked():
        config.training.best = {"val/R@5": 1.0}
    with pytest.raises(UserError, match="is set, but nothing is evaluated"):
        best_rule(config)


def test_captions_are_looked_for_beside_the_triplets_in_their_folder():
    """CIRR's captions stand in CIRR's folder; another set's do not."""
    config = get_pictograms("towers")
    assert evaluations(config) == {"captions/val": (protocols.CIRR_CAPTIONS, config.data.folder, "val")}
    config.data.folder = "DIR"
    assert evaluations(config)["captions/val"][1] == "DIR"
    config.data.reader = "lasco"
    assert evaluations(config) == {}
    config.data.val_reader, config.data.val_folder = "cirr", "REAL"
    assert evaluations(config)["captions/val"][1] == "REAL"


def test_captions_and_maps_are_measured_in_training(tiny_run):
    system, config = contextjax.load(tiny_run), read_config(tiny_run)
    with config.unlocked():
        config.data.grounded = 4
        config.data.evaluations = ConfigDict({"captions": evaluation("cirr_captions"), "cirr": evaluation()})
    metrics = make_evaluate(config, system.model, system.tokenizer)(system.params)
    assert 0 <= metrics["cirr/val/grounding/pointing"] <= 100 and "cirr/val/grounding/alone_pointing" in metrics
    assert not any(name.startswith("captions/val/grounding") for name in metrics)
    reader = CirrReader(config.data.folder)
    pictures, captions = reader.pictures("val"), reader.captions("val")
    texts, gallery = system.encode_text([*captions.values()]), system.encode_gallery([*pictures.values()])
    first = [[*pictures][row] for row in (texts @ gallery.T).argmax(axis=1)]
    right = 100 * np.mean([name == own for name, own in zip(first, captions, strict=True)])
    assert metrics["captions/val/R@1"] == pytest.approx(right, abs=100 / len(captions))  # but for a tie
