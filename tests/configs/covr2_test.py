"""CoVR-2's recipe is the paper's, trains, and is evaluated by both protocols."""

import json

import numpy as np
import pytest

import contextjax
from configs.covr2 import get_config
from contextjax.optim import make_schedule
from contextjax.training.metrics_log import read_metrics
from contextjax.types import UserError
from contextjax.variants import make_model, make_spec
from experiments.shared import systems
from tests.commands import in_process, interpreter


@pytest.mark.parametrize(("name", "steps", "query"), [("cirr", 330, "token_max"), ("fashion_iq", 210, "token_mean")])
def test_the_published_recipe_is_the_papers(name, steps, query):
    config = get_config(name)
    assert config.model.variant == "BLIP2-G" and config.model.query == query and config.training.steps == steps
    assert (config.data.batch_size, config.data.text_length, config.model.dtype) == (512, 32, "float32")
    config.model.pretrained = ""
    model = make_model(make_spec(config.model))
    (phase,) = systems.of(config).make_phases(config, model)
    objective = phase.objective
    assert objective.weights == (("hard_negative", 1.0),)
    assert (objective.temperature, objective.alpha, objective.beta) == (0.07, 1.0, 0.5)
    schedule = make_schedule(config.optimizer, steps=steps)
    assert float(schedule(0)) == pytest.approx(1e-4) and float(schedule(steps // 2)) == pytest.approx(5e-5)
    assert config.optimizer.freeze == ("blip2",)


@pytest.mark.parametrize(("argument", "sentence"), [("cir", "no argument 'cir'"), ("cirr,fashion_iq", "two data sets")])
def test_other_arguments_are_refused(argument, sentence):
    with pytest.raises(ValueError, match=sentence):
        get_config(argument)


@pytest.fixture(scope="module")
def covr2_run(made_once, pictograms):
    """The workdir of a CoVR-2, trained by configs/covr2.py:tiny. Read only."""
    from tests.conftest import train_tiny

    return made_once("covr2_run", lambda folder: train_tiny("covr2.py:tiny", folder, pictograms))


@pytest.mark.long
def test_it_trains_is_evaluated_by_both_protocols_and_loads(covr2_run, pictograms, tmp_path):
    *_, trained, evaluated = read_metrics(covr2_run)
    assert trained["step"] == evaluated["step"] == 12
    assert np.isfinite(trained["hard_negative"]) and np.isfinite(evaluated["val/Avg"])
    done = in_process("evaluate", f"--workdir={covr2_run}")
    assert done.returncode == 0, done.stderr
    result = json.loads((covr2_run / "evaluation.json").read_text())
    assert result["query"] == "token_max" and {"token_mean", "image", "text", "sum"} == set(result["baselines"])
    system = contextjax.load(covr2_run)
    pictures = sorted((pictograms / "img_raw" / "dev").iterdir())[:3]
    query, gallery = system.encode_query(pictures, ["a b", "c", "d"]), system.encode_gallery(pictures)
    tokens = system.encode_query_tokens(pictures, ["a b", "c", "d"])
    assert query.shape == gallery.shape == (3, 16) and tokens.shape == (3, 8, 16)
    np.testing.assert_allclose(query, tokens.mean(1), atol=1e-6)
    with pytest.raises(UserError, match="no fusion"):
        system.with_query("fusion")


@pytest.mark.long
def test_its_programs_are_exported(covr2_run, tmp_path, pictograms):
    done = interpreter("export", f"--workdir={covr2_run}", f"--target={tmp_path / 'export'}", "--format=stablehlo")
    assert done.returncode == 0, done.stderr
    exported, system = contextjax.load(tmp_path / "export"), contextjax.load(covr2_run)
    pictures = sorted((pictograms / "img_raw" / "dev").iterdir())[:2]
    np.testing.assert_allclose(
        exported.encode_query(pictures, ["a b", "c"]), system.encode_query(pictures, ["a b", "c"]), atol=1e-5
    )
    with pytest.raises(UserError, match="no vectors of tokens"):
        exported.encode_query_tokens(pictures, ["a", "b"])
