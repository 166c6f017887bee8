"""A training run: its identity, its task, and mistakes that are refused first."""

import pytest

from configs.pictograms import get_config
from contextjax.types import UserError
from contextjax.variants import make_model
from experiments.shared import models, training
from experiments.shared.run_config import config_hash


def test_a_checkpoint_says_what_it_is_of(tmp_path):
    config = get_config("tiny")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "system.json").write_text("{}")
    fit = training.fit_config(config, tmp_path, data="abc", step_timeout=5, profile=(1, 2))
    assert (fit.steps, fit.mesh, fit.step_timeout, fit.profile) == (12, config.mesh, 5, (1, 2))
    assert fit.meta["config_hash"] == config_hash(config) and fit.meta["data"] == "abc"
    assert {"jax", "flax", "optax", "orbax-checkpoint", "contextjax"} == set(fit.meta["versions"])
    assert set(fit.meta["files"]) == {"tokenizer.json", "system.json"}


def test_a_task_is_of_the_config(tmp_path):
    config = get_config("tiny")
    model = make_model(models.make_spec(config, vocabulary=300))
    task = training.make_task(config, model, lambda start: iter([start]))
    assert [phase.start for phase in task.phases] == [0, 4] and task.seed == config.seed
    assert float(task.schedule(4)) == pytest.approx(config.optimizer.learning_rate, rel=0.5)
    assert task.start_from is None and list(task.batches(3)) == [3]


def test_a_profile_is_recorded_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "is_remote", lambda workdir: True)
    with pytest.raises(UserError, match="--profile needs a workdir on this machine"):
        training.train(get_config("tiny"), tmp_path, profile="1:2")
