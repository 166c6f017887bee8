"""The benchmark, tiny: its rates agree with its seconds; no time is judged."""

import json
import statistics

import jax
import pytest

from configs.pictogram_sets import get_config as pictogram_sets
from experiments.benchmarks import results, runs
from tests.experiments.benchmarks.conftest import make_record, tiny_recipe

pytestmark = pytest.mark.long


def test_training_is_that_of_fit_and_its_rates_are_its_seconds(trained_timing, tmp_path):
    entries = make_record(trained_timing)
    assert (
        len(trained_timing.seconds) == 4 == entries["steps"]
        and entries["recompiles"] == 0
        and entries["data_wait"] is None
    )
    assert entries["steps_per_second"] == pytest.approx(4 / sum(trained_timing.seconds))
    assert entries["samples_per_second"] == pytest.approx(8 * entries["steps_per_second"])
    step = statistics.median(trained_timing.seconds)
    assert entries["mfu_of_matmul"] == pytest.approx(trained_timing.flops / step / jax.device_count() / 1e9)
    assert entries["mfu_of_peak"] is None and entries["device"] == "cpu"  # of which there is no data sheet
    assert entries["first_step_seconds"] == pytest.approx(5.0) and entries["peak_memory_bytes"] > 1e8
    assert json.loads(json.dumps(entries)) == entries
    lines = results.table([entries]).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1 and "training, S16" in lines[-1]


def test_real_data_is_the_recipe_s_folder_and_its_wait_is_a_share(pictograms, tmp_path):
    config = tiny_recipe(**{"data.folder": str(pictograms), "data.vocabulary": 300})
    timing = runs.training(config, steps=2, real=True, workdir=tmp_path)
    assert len(timing.seconds) == 2 and 0 <= timing.data_wait < 1
    assert not (tmp_path / "loader" / "checkpoints").exists() or not any(
        (tmp_path / "loader" / "checkpoints").iterdir()
    )


def test_embedding_and_evaluation():
    config = tiny_recipe(**{"data.batch_size": 4})
    embedding = runs.embedding(config, steps=2, real=False)
    assert (embedding.samples, embedding.recompiles, len(embedding.seconds)) == (
        4,
        0,
        2,
    ) and 0 < embedding.data_wait < 1
    evaluation = runs.evaluation(config, steps=1, real=False)
    assert (evaluation.samples, evaluation.recompiles) == (4, 0)
    assert evaluation.flops > 2 * embedding.flops  # the gallery, the references, the texts


def test_evaluation_of_candidate_sets():
    config = pictogram_sets("cosine")
    config.update_from_flattened_dict({"data.batch_size": 2, "data.candidates": 3})
    config.model.vision.update({"width": 32, "mlp": 64, "layers": 1, "taps": (1,)})
    config.model.text.update({"width": 32, "mlp": 64, "layers": 1})
    entries = make_record(runs.evaluation(config, steps=1, real=False), mode="evaluation")
    assert entries["samples"] == 2 and entries["flops"] is None and entries["mfu_of_matmul"] is None
