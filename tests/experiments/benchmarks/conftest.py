"""A tiny recipe, a trained run of it and its record, for the tests of the benchmark."""

import pytest

from configs.pictograms import get_config as pictograms
from experiments.benchmarks import results, runs

TINY = {
    "data.modifications": 1, "data.text_length": 12, "data.caption_length": 12, "model.query": "sum",
    "loss.weights.captions": 0.0, "loss.lead_steps": 0, "optimizer.name": "adamw",
}  # fmt: skip


def tiny_recipe(**changes):
    """Returns the recipe of pictograms in its tiny form, without what takes long to compile."""
    config = pictograms("no_consistency,tiny")
    config.update_from_flattened_dict(TINY | changes)
    return config


def make_record(timing, **about):
    """Returns the record of a timing."""
    about = {"mode": "training", "data": "synthetic", "config": "tiny", "variant": "S16", "batch": 8} | about
    about |= {"dtype": "float32", "mesh": "data:-1"}
    return results.record(timing, about, began=timing.first_step - 5.0, roof=1e9, dtype="float32")


@pytest.fixture(scope="session")
def trained_timing(tmp_path_factory):
    """The timing of four training steps."""
    return runs.training(tiny_recipe(), steps=4, real=False, workdir=tmp_path_factory.mktemp("run"))
