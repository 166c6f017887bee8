"""Both systems, cut and resumed by the real training, are the uninterrupted run: bit for bit, data order too."""

import jax
import numpy as np
import pytest

from contextjax.training.metrics_log import read_metrics
from experiments.fault_injection.cuts import attempt, resumed
from experiments.fault_injection.plan import SYSTEMS
from experiments.fault_injection.recipes import small_config, write_data, write_recipe

pytestmark = pytest.mark.slow  # tests/experiments/fault_injection/drills_test.py does the same to a toy
STEPS = 12  # two epochs of 48 samples


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("drills") / "cirr")


@pytest.fixture(autouse=True, scope="module")
def compiled(tmp_path_factory):
    """Programs are compiled once, and not by each start."""
    from jax.experimental.compilation_cache import compilation_cache

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0.0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def recipe(data, tmp_path):
    """recipe(system, name, **changes): a file of the small recipe."""

    def write(system, name, **changes):
        changes = {"mesh": "data:4,fsdp:2", **changes}
        return str(
            write_recipe(tmp_path / f"{name}.py", small_config(system, data), steps=STEPS, every=3, changes=changes)
        )

    return write


def test_cut_and_resumed_is_the_uninterrupted_run(recipe, tmp_path):
    """Cut before the first checkpoint, and between two, where lines past the checkpoint have to go."""
    whole = recipe("context_cir", "whole")
    run = {"drill": "cut", "recipe": whole, "reference": whole, "cuts": [3, 6]}
    (row,) = resumed([run], str(tmp_path))
    assert row["problems"] == [] and row["corrupt"] == 0 and row["times"] == 2


def test_a_run_goes_on_on_another_mesh_by_the_same_recipe(recipe, tmp_path):
    whole, run = recipe("context_cir", "whole"), tmp_path / "run"
    rows = attempt(whole, str(tmp_path / "whole"), 0)
    attempt(whole, str(run), 5)
    assert attempt(whole, str(run), 0, mesh="data:8") == rows[3:]
    losses = lambda workdir: [line["loss"] for line in read_metrics(workdir) if "loss" in line]
    np.testing.assert_allclose(losses(run), losses(tmp_path / "whole"), rtol=1e-5)
    assert len(losses(run)) == STEPS


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_sample_is_seen_once_in_an_epoch(recipe, tmp_path, system):
    rows = attempt(recipe(system, "whole"), str(tmp_path / "run"), 0)
    half = len(rows) // 2
    for epoch in (rows[:half], rows[half:]):
        seen, counts = np.unique(np.concatenate([np.asarray(x).ravel() for x in epoch]), return_counts=True)
        assert len(seen) > 40 and set(counts.tolist()) == {1}


def test_a_run_of_other_numbers_is_found_out(recipe, tmp_path):
    """The drill can fail: the cut run has another seed."""
    whole, other = recipe("context_cir", "whole"), recipe("context_cir", "other", seed=1)
    (row,) = resumed([{"drill": "cut", "recipe": other, "reference": whole, "cuts": [4]}], str(tmp_path))
    assert row["corrupt"] == 1 and any("metrics.jsonl differs" in problem for problem in row["problems"])
