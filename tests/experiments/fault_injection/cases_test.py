"""Both systems, cut and resumed by the real training, are the uninterrupted run: bit for bit, data order too."""

import functools

import numpy as np
import pytest

from contextjax.training.metrics_log import read_metrics
from contextjax.types import UserError
from experiments.fault_injection import cases, children
from experiments.fault_injection.recipe import SYSTEMS, flags_of, write_data
from experiments.fault_injection.resume import check_resume

STEPS = 12  # two epochs of 48 samples


def test_an_unknown_case_is_refused(tmp_path):
    planned = cases.Cases(["--config=recipe.py"], cases.SHORT, tmp_path)
    with pytest.raises(UserError, match="There is no case 'drop'; expected some of damage, kill"):
        list(planned.outcomes(["kill", "drop"]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "cirr")


@pytest.fixture
def train(data, processes, tmp_path):
    """train(system, **changes): a function that trains the small recipe in a workdir, up to a batch."""

    def make(system, *, mesh="data:4,fsdp:2", **changes):
        changes = {"steps": STEPS, "log_every": 1, "checkpoint_every": 3, "evaluate_every": STEPS, **changes}
        recipe = [*flags_of(system, data), *(f"--config.training.{key}={value}" for key, value in changes.items())]

        def run(workdir, cut=0, mesh=mesh, seed=0):
            through = functools.partial(children.cut_after, count=cut)
            flags = [*recipe, f"--config.mesh={mesh}", f"--config.seed={seed}"]
            return processes.call(children.train, flags, workdir, through, log=tmp_path / "log", devices=8)

        return run

    return make


@pytest.mark.slow
def test_cut_and_resumed_is_the_uninterrupted_run(train, tmp_path):
    """Cut before the first checkpoint, and between two, where lines past the checkpoint have to go."""
    run = train("context_cir")
    records = run(tmp_path / "whole")
    outcome = check_resume("cut", run, tmp_path / "cut", tmp_path / "whole", records, [3, 6])
    assert outcome.passed and outcome.times == 2, outcome


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh_by_the_same_recipe(train, tmp_path):
    run = train("context_cir")
    records = run(tmp_path / "whole")
    run(tmp_path / "run", 5)
    resumed = run(tmp_path / "run", mesh="data:8")
    assert len(resumed) == STEPS - 3 and all(map(np.array_equal, resumed, records[3:]))
    losses = lambda workdir: [line["loss"] for line in read_metrics(workdir) if "loss" in line]
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "whole"), rtol=1e-5)
    assert len(losses(tmp_path / "run")) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_sample_is_seen_once_in_an_epoch(train, tmp_path, system):
    records = train(system)(tmp_path / "run")
    half = len(records) // 2
    for epoch in (records[:half], records[half:]):
        samples, counts = np.unique(np.concatenate([x.ravel() for x in epoch]), return_counts=True)
        assert len(samples) > 40 and set(counts.tolist()) == {1}


@pytest.mark.slow
def test_a_run_of_other_numbers_is_found(train, tmp_path):
    """The check can fail: the cut run has another seed."""
    run = train("context_cir")
    records, other = run(tmp_path / "whole"), functools.partial(run, seed=1)
    outcome = check_resume("cut", other, tmp_path / "cut", tmp_path / "whole", records, [4])
    assert outcome.corrupt == 1 and any("metrics.jsonl differs" in problem for problem in outcome.problems)
