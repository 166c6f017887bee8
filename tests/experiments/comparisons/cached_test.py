"""Stage 2b, timed from cached features and from pictures."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from contextjax.types import UserError
from experiments.comparisons import cached, harness

pytestmark = pytest.mark.long

OPTIONS = cached.Options(size="tiny", batch=4, sets=2, steps=2, pairs=2)


@pytest.mark.long
def test_stage_2b_from_features_and_from_pictures():
    tables = cached.compare(OPTIONS, descriptions=100)
    assert tables["checked"]["loss"]["difference"] < 1e-5
    programs = tables["programs"]
    assert programs[cached.CACHED]["flops"] / OPTIONS.batch < programs[cached.AGAIN]["flops"] / OPTIONS.sets
    assert tables["epochs"][cached.CACHED]["timed descriptions"] == 8
    epoch, timed = (tables[title][cached.AGAIN]["seconds"] for title in ("epochs", "programs"))
    assert epoch == pytest.approx([50 * seconds for seconds in timed])
    assert all(0 < row["min"] <= row["median"] <= row["max"] for row in tables["ratios"].values())
    assert "| epochs | seconds | timed descriptions |" in harness.markdown(tables)


def test_too_many_steps_are_refused():
    with pytest.raises(UserError, match="30 steps of 4 are more than the 100 descriptions"):
        cached.compare(dataclasses.replace(OPTIONS, steps=30), descriptions=100)


def test_only_the_context_encoder_changes():
    stage = cached.Stage2b("tiny")
    before = jax.tree.map(jnp.array, stage.training.state.params)
    samples = stage.features(8)
    stage.steps("cached", samples.collate(range(4)), lambda: [samples.collate(range(4))])()
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, stage.training.state.params)
    assert {name for name, tree in changed.items() if any(jax.tree.leaves(tree))} == {"context"}
