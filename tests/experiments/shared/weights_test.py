"""Weights of runs and published models are written with what belongs to them."""

import json

import pytest

from configs.pictograms import get_config
from contextjax.spec import SystemSpec
from contextjax.types import UserError
from experiments.shared.weights import _recipe_rows, export
from tests.export.conftest import make_system, write_run


def test_a_run_is_exported_with_its_metrics(tmp_path, capsys):
    """A run is exported with its metrics, if they belong to this checkpoint; mistakes are reported before any work."""
    system, config = make_system("context_cir")
    write_run(tmp_path / "run", system, config)
    evaluation = {"protocol": "cirr", "split": "val", "n_queries": 20, "n_gallery": 30, "query": "fusion",
                  "metrics": {"R@1": 12.34, "mAP": None}, "baselines": {},
                  "config_hash": system.fingerprint.removesuffix("-7"), "step": 7}  # fmt: skip
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation))
    export(str(tmp_path / "run"), tmp_path / "out", formats=["safetensors"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Protocol cirr, split val: 20 queries, 30 pictures" in card and "| R@1 | 12.3 |" in card
    assert SystemSpec.read(tmp_path / "out").fingerprint == system.fingerprint and "wrote" in capsys.readouterr().out
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation | {"step": 6}))
    export(str(tmp_path / "run"), tmp_path / "other", formats=["safetensors"])
    assert "R@1" not in (tmp_path / "other" / "README.md").read_text()
    (tmp_path / "empty").mkdir()
    for source, target, formats, sentence in (
        ("run", "new", ["tensorrt"], "--format is 'tensorrt'"),
        ("run", "out", ["safetensors"], "exists already"),
        ("out", "new", ["safetensors"], "is an export itself"),
        ("empty", "new", ["safetensors"], "no system.json"),
        ("none", "new", ["safetensors"], "nothing at"),
    ):
        with pytest.raises(UserError, match=sentence):
            export(str(tmp_path / source), tmp_path / target, formats=formats)
    assert not (tmp_path / "new").exists()


def test_the_card_says_how_a_run_was_trained():
    config = get_config("tiny")
    rows = _recipe_rows(config)
    assert (
        rows["Started from"] == "random weights"
        and rows["Trained on"] == f"{config.data.reader}, split train, 8 a batch"
    )
    assert rows["Steps"].startswith("12 (muon, learning rate 0.002") and "captions 0.2" in rows["Losses"]
    config.model.pretrained = "openai/clip-vit-base-patch32"
    assert _recipe_rows(config)["Started from"] == "openai/clip-vit-base-patch32"
