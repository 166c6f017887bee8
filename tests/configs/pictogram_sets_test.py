"""The recipe of the pictograms' candidate sets; context_blip_test has what it shares with the published one."""

import pytest

from configs.pictogram_sets import DUAL_STAGES, STAGES, get_config


@pytest.mark.parametrize("stage", ["pairs", "2a", "2b"])
def test_a_dual_encoder_has_no_such_stages(stage):
    with pytest.raises(ValueError, match=f"'dual' with {stage}; it has 1, cosine"):
        get_config(f"{stage},dual")


@pytest.mark.parametrize("argument", ["3", "1,2a", "2a,summary", "cosine,paper"])
def test_other_arguments_are_refused(argument):
    wrong = argument.split(",")[-1]
    with pytest.raises(ValueError, match=rf"pictogram_sets\.py .*'{wrong}'.*1.*2a"):
        get_config(argument)


def test_stages_are_parts_of_one_system():
    configs = {stage: get_config(stage) for stage in STAGES}
    assert {config.model.system for config in configs.values()} == {"context_blip"}
    assert [stage for stage, config in configs.items() if config.data.cached] == ["2b"]
    assert all(get_config(f"{stage},dual").model.system for stage in DUAL_STAGES)
    assert configs["2b"].model.context_layers and not configs["2a"].model.context_layers
    assert get_config("2a,paper").model.context_layers == get_config("2b,paper").model.context_layers > 0
    assert not any(get_config(f"{stage},no_context").model.context_layers for stage in ("2a", "2b"))
    shorter = get_config("cosine,demo")
    assert shorter.training.steps < configs["cosine"].training.steps
