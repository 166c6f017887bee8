"""A recorded run: measured between two matrix products, and described by the recipe."""

from types import SimpleNamespace

import pytest

from experiments.benchmarks import recorded_run, results, runs
from tests.experiments.benchmarks.conftest import tiny_recipe


@pytest.mark.parametrize(("mode", "steps"), [("training", 3), ("embedding", 3), ("evaluation", 0)])
def test_a_run_is_described_and_its_roof_is_the_larger_of_two(monkeypatch, mode, steps):
    calls, rates = [], iter([2e9, 3e9])
    made = SimpleNamespace()
    monkeypatch.setattr(recorded_run, "matmul_rate", lambda dtype: next(rates))
    monkeypatch.setattr(runs, mode, lambda recipe, **options: calls.append(options) or made)
    monkeypatch.setattr(results, "record", lambda timing, about, **more: {"timing": timing, **about, **more})
    recipe = tiny_recipe()
    found = recorded_run.recorded_run(recipe, mode=mode, data="real", steps=steps, began=1.5, note="x")
    assert found["timing"] is made and (found["mode"], found["data"], found["note"]) == (mode, "real", "x")
    assert found["batch"] == recipe.data.batch_size and found["began"] == 1.5
    assert found["roof"] == (3e9 if steps else None)
    (options,) = calls
    assert options["steps"] == steps and options["real"] and ("workdir" in options) == (mode == "training")
