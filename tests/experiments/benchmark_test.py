"""The benchmark, tiny: what a record holds, that its rates agree with its seconds, comparisons; no time is judged."""

import itertools
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.pictogram_sets import get_config as pictogram_sets
from configs.pictograms import get_config as pictograms
from contextjax.types import UserError
from experiments.benchmarks import processes, results, runs
from experiments.benchmarks.clock import Enough, clocked
from experiments.benchmarks.synthetic import synthetic_batch
from experiments.shared import assembly
from experiments.shared.abstract_step import with_sizes

ROOT = Path(__file__).parents[2]
TINY = {
    "data.modifications": 1, "data.text_length": 12, "data.caption_length": 12, "model.query": "sum",
    "loss.weights.captions": 0.0, "loss.lead_steps": 0, "optimizer.name": "adamw",
}  # fmt: skip


def tiny(**changes):
    config = pictograms("no_consistency,tiny")
    config.update_from_flattened_dict(TINY | changes)
    return config


def record(timing, **about):
    about = {"mode": "training", "data": "synthetic", "config": "tiny", "variant": "S16", "batch": 8} | about
    about |= {"dtype": "float32", "mesh": "data:-1"}
    return results.record(timing, about, began=timing.first_step - 5.0, roof=1e9, dtype="float32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return runs.training(tiny(), steps=4, real=False, workdir=tmp_path_factory.mktemp("run"))


def test_training_is_that_of_fit_and_its_rates_are_its_seconds(trained, tmp_path):
    found = record(trained)
    assert len(trained.seconds) == 4 == found["steps"] and found["recompiles"] == 0 and found["data_wait"] is None
    assert found["steps_per_second"] == pytest.approx(4 / sum(trained.seconds))
    assert found["samples_per_second"] == pytest.approx(8 * found["steps_per_second"])
    step = statistics.median(trained.seconds)
    assert found["mfu_of_matmul"] == pytest.approx(trained.flops / step / jax.device_count() / 1e9)
    assert found["mfu_of_peak"] is None and found["device"] == "cpu"  # of which there is no data sheet
    assert found["first_step_seconds"] == pytest.approx(5.0) and found["peak_memory_bytes"] > 1e8
    assert json.loads(json.dumps(found)) == found
    lines = results.table([found]).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1 and "training, S16" in lines[-1]


def test_real_data_is_the_recipe_s_folder_and_its_wait_is_a_share(pictograms, tmp_path):
    config = tiny(**{"data.folder": str(pictograms), "data.vocabulary": 300})
    timing = runs.training(config, steps=2, real=True, workdir=tmp_path)
    assert len(timing.seconds) == 2 and 0 <= timing.data_wait < 1
    assert not (tmp_path / "loader" / "checkpoints").exists() or not any(
        (tmp_path / "loader" / "checkpoints").iterdir()
    )


def test_embedding_and_evaluation():
    config = tiny(**{"data.batch_size": 4})
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
    found = record(runs.evaluation(config, steps=1, real=False), mode="evaluation")
    assert found["samples"] == 2 and found["flops"] is None and found["mfu_of_matmul"] is None


@pytest.mark.parametrize("config", [pictograms(), pictogram_sets("pairs"), pictogram_sets("1"), pictogram_sets("2b")])
def test_synthetic_batches_are_whole_and_within_their_ranges(config):
    config = with_sizes(config)
    shapes = assembly.parts(config).abstract_batch(config, cuts=2)
    batch = synthetic_batch(shapes, vocabulary=50)
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, shapes, batch)
    assert all(jax.tree.leaves(same))
    for path, x in jax.tree_util.tree_leaves_with_path(batch):
        name = path[-1].name
        assert name != "ids" or (x.min() >= 3 and x.max() < 50)
        assert x.dtype != np.bool_ or x.all() == (name != "ordered")
    if hasattr(batch, "target_ids"):
        assert not np.intersect1d(batch.target_ids, batch.reference_ids).size


def test_a_clocked_stream_ends_when_there_were_enough():
    moments, seen = [], []
    with pytest.raises(Enough):
        seen.extend(clocked(moments, limit=3, change=lambda s: itertools.islice(s, 1, None))(itertools.count()))
    assert len(moments) == 4 and moments == sorted(moments)
    assert list(clocked(moments)(iter("ab"))) == ["a", "b"] and len(moments) == 6


def test_two_results_side_by_side(trained, tmp_path):
    first = record(trained)
    second = first | {"samples_per_second": 3 * first["samples_per_second"], "batch": 16, "flops": None}
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, found in zip(paths, (first, second), strict=True):
        path.write_text(json.dumps(found))
    told = results.compare([str(path) for path in paths])
    assert "batch differs: 8 and 16" in told and "mode differs" not in told
    rows = {
        line.split("|")[1].strip(): line.split("|")[-2].strip() for line in told.splitlines() if line.count("|") == 5
    }
    assert rows["samples_per_second"] == "3.000" and rows["steps_per_second"] == "1.000" and rows["flops"] == "-"
    assert "mfu_of_peak" not in rows
    with pytest.raises(UserError, match="got 1 files; expected two"):
        results.compare([str(paths[0])])
    paths[1].write_text("[]")
    with pytest.raises(UserError, match="is no result of one benchmark"):
        results.compare([str(path) for path in paths])


def test_the_command_in_processes_of_its_own(tmp_path, monkeypatch, capsys):
    """A sweep of one-layer towers: each batch in a process, what does not work is told."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from configs import pictograms\n\n\ndef get_config():\n"
        "    config = pictograms.get_config('no_consistency,tiny')\n"
        f"    config.update_from_flattened_dict({TINY!r})\n    return config\n"
    )
    arguments = [f"--config={recipe}", "--mode=embedding", "--steps=1"]
    (found,) = processes.sweep(arguments, batch=2, largest=3)
    assert found["batch"] == 2 and found["mode"] == "embedding" and math.isfinite(found["samples_per_second"])
    with pytest.raises(UserError, match="ended with code 2: error: flag --mode=nothing"):
        processes.run_again("--mode=nothing", arguments=arguments)
    assert not list(processes.sweep([*arguments, "--mode=nothing"], batch=2, largest=4))
    assert "batch 2 does not fit" in capsys.readouterr().out


@pytest.mark.slow
def test_the_first_step_is_timed_without_and_with_what_was_compiled(tmp_path):
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "experiments.benchmark", "--config=configs/pictograms.py:sum", "--batch=2"]
    subprocess.run([*command, "--steps=1", f"--output={output}"], cwd=ROOT, check=True)
    found = json.loads(output.read_text())
    assert 0 < found["first_step_warm_seconds"] < found["first_step_cold_seconds"]
    assert found["recompiles"] == 0 and found["steps"] == 1
