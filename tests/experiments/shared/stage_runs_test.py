"""Settings of stages that do not fit end with one sentence."""

import pytest

from configs.pictogram_sets import LATE_STAGES, PAPER_STAGES
from experiments.shared.stage_runs import stages_of
from tests.commands import in_own_process, in_process

RECIPE = ["--config=configs/pictogram_sets.py", "--argument=tiny"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--stages=1,3"], "has no stage '3'; it has 1, pairs, few, cosine, 2a, 2b"),
        (["--stages=pairs,few"], "has no stage 'few' with 'tiny'; it has 1, pairs, cosine, 2a, 2b"),
        (["--argument=", "--stages=few"], "has no stage 'few' without an argument; it has 1, pairs, cosine, 2a, 2b"),
        (["--set=2c:seed=1"], "has no stage '2c'; it has 1, pairs, few, cosine, 2a, 2b"),
        (["--set=2a:optimizer.lerning_rate=1", "--stages=2a"], "optimizer.learning_rate"),
        (["--config=configs/none.py"], "configs/none.py"),
        (["--config=configs/pictograms.py"], "configs/pictograms.py has no STAGES"),
    ],
)
def test_mistakes_end_with_one_sentence(pictogram_sets, tmp_path, arguments, sentence):
    settings = [*RECIPE, f"--workdir={tmp_path / 'x'}", f"--set=data.folder={pictogram_sets}"]
    run = in_own_process if "--stages=2a" in arguments else in_process  # a stage has a process of its own
    done = run("stages", *settings, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and sentence in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_recipe_says_which_stages_its_arguments_have():
    assert stages_of("configs/pictogram_sets.py") == LATE_STAGES
    assert stages_of("configs/pictogram_sets.py", "paper,tiny") == PAPER_STAGES
    assert stages_of("configs/context_blip.py", "summary") == ("1", "2a", "2b")
    assert stages_of("configs/pictograms.py") == ()
