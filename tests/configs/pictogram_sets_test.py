"""The recipe of the pictograms' candidate sets; context_blip_test has what it shares with the published one."""

import pytest

from configs.pictogram_sets import DUAL_STAGES, LATE_STAGES, PAPER, PAPER_STAGES, get_config, stages


@pytest.mark.parametrize("stage", ["pairs", "2a", "2b"])
def test_a_dual_encoder_has_no_such_stages(stage):
    with pytest.raises(ValueError, match=f"'dual' with {stage}; its form has the stages 1, cosine"):
        get_config(f"{stage},dual")


@pytest.mark.parametrize("argument", ["3", "1,2a", "2a,summary", "cosine,paper", "few", "2b,2a_longer", "2a,demo"])
def test_other_arguments_are_refused(argument):
    wrong = "no argument" if argument == "few" else f"'{argument.split(',')[-1]}'"
    with pytest.raises(ValueError, match=rf"pictogram_sets\.py got {wrong}.*(1, |pairs, cosine)"):
        get_config(argument)


def test_a_refused_stage_names_all_arguments():
    with pytest.raises(
        ValueError, match="got '2a_longer,no_adapter' with 2b; its form has the stages 1, pairs, few, 2a"
    ):
        get_config("2b,2a_longer,no_adapter")


def test_stages_are_parts_of_one_system():
    configs = {stage: get_config(stage) for stage in LATE_STAGES}
    assert {config.model.system for config in configs.values()} == {"context_blip"}
    assert [stage for stage, config in configs.items() if config.data.cached] == ["2b"]
    assert all(get_config(f"{stage},dual").model.system for stage in DUAL_STAGES)
    assert configs["2b"].model.context_layers and not configs["2a"].model.context_layers
    assert get_config("2a,paper").model.context_layers == get_config("2b,paper").model.context_layers > 0
    assert not any(get_config(f"{stage},no_context").model.context_layers for stage in PAPER_STAGES)
    shorter = get_config("cosine,demo")
    assert shorter.training.steps < configs["cosine"].training.steps


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("", LATE_STAGES), ("tiny", LATE_STAGES), ("demo", ("pairs", "cosine")),
     ("dual", DUAL_STAGES), ("dual,demo", DUAL_STAGES),
     *((name, PAPER_STAGES) for name in PAPER[:-1]), ("2a_longer,tiny", PAPER_STAGES[:-1])],
)  # fmt: skip
def test_arguments_have_stages(argument, expected):
    assert stages(argument) == expected
    assert all(get_config(f"{stage},{argument}".strip(",")).training.steps > 0 for stage in expected)
