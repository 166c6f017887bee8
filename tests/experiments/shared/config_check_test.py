"""The check of a config: every kind of fault, all at once, and none in a recipe of ours."""

import pytest

from configs import context_blip, context_cir, pictogram_sets
from configs import pictograms as recipe
from configs.base import SYSTEMS, base, evaluation, source
from contextjax.types import UserError
from experiments.shared.config_check import RULES, check_config, check_values
from experiments.shared.run_config import flat

RECIPES = [
    *((recipe, argument) for argument in ("", *recipe.ARGUMENTS)),
    *((context_cir, argument) for argument in ("", "L14,aggregated,modern", "tiny,fashion_iq")),
    *((context_blip, stage) for stage in context_blip.STAGES),
    *((pictogram_sets, stage) for stage in pictogram_sets.LATE_STAGES),
    *((pictogram_sets, f"{stage},paper") for stage in pictogram_sets.PAPER_STAGES),
    (context_blip, "1,summary"), (pictogram_sets, "2a,tiny"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "argument"), RECIPES, ids=str)
def test_our_recipes_have_no_fault(module, argument):
    check_values(module.get_config(argument))


def test_every_rule_is_of_a_key_and_every_number_and_name_has_one():
    known = {key: value for system in SYSTEMS for key, value in flat(base(system)).items()}
    assert RULES.keys() <= known.keys()
    free = {
        "mesh",
        "data.folder",
        "data.prepared",
        "data.val_folder",
        "model.start",
        "model.pretrained",
        "model.variant",
    }
    checked_by_the_model = {name for name in known if name.startswith("model.")}
    unchecked = {
        name for name, value in known.items()
        if isinstance(value, int | float | str) and not isinstance(value, bool) and not name.startswith("loss.weights.")
    } - RULES.keys()  # fmt: skip
    assert unchecked <= free | checked_by_the_model


CASES = {
    "seed": (-1, "seed is -1, expected a number from 0 to 4294967295"),
    "data.batch_size": (0, "data.batch_size is 0, expected 1 or more"),
    "training.steps": (0, "training.steps is 0, expected 1 or more"),
    "training.log_every": (0, "training.log_every is 0, expected 1 or more"),
    "training.evaluate_every": (-5, "training.evaluate_every is -5, expected 0 or more"),
    "training.max_bad_steps": (0, "training.max_bad_steps is 0"),
    "training.spike_factor": (-1.0, "training.spike_factor is -1.0, expected 0.0 or more"),
    "optimizer.clip_norm": (0.0, "optimizer.clip_norm is 0.0, expected a number above 0"),
    "optimizer.warmup_steps": (-1, "optimizer.warmup_steps is -1, expected 0 or more"),
    "optimizer.learning_rate": (float("nan"), "optimizer.learning_rate is nan, expected a finite number"),
    "optimizer.schedule": ("cosin", "expected one of 'cosine', 'restarts', 'exponential' (the nearest is 'cosine')"),
    "optimizer.name": ("sgd", "optimizer.name is 'sgd', expected one of 'adamw'"),
    "optimizer.restart_period": (0, "optimizer.restart_period is 0"),
    "optimizer.beta2": (1.0, "optimizer.beta2 is 1.0, expected a number from 0 to below 1"),
    "optimizer.freeze": ((3,), "optimizer.freeze is (3,), expected a tuple of names"),
    "optimizer.multipliers": ({"clip": -1.0}, "optimizer.multipliers.clip is -1.0, expected 0.0 or more"),
    "data.phrases_per_text": (0.0, "data.phrases_per_text is 0.0, expected a number above 0"),
    "loss.temperature": (0.0, "loss.temperature is 0.0, expected a number above 0"),
    "loss.weights.consistency": (-0.1, "loss.weights.consistency is -0.1"),
    "loss.contrastive": ("rings", "(the nearest is 'ring')"),
    "data.reader": ("cir", "(the nearest is 'cirr')"),
    "data.text_length": (2, "data.text_length is 2, expected 3 or more"),
    "data.bad_pictures": ("drop", "data.bad_pictures is 'drop', expected one of 'fail', 'skip'"),
    "data.workers": ("two", "data.workers is 'two', expected a whole number"),
    "data.train_split": ("", "data.train_split is '', expected a name"),
    "model.dtype": ("float16", "model.dtype is 'float16', expected one of 'float32', 'bfloat16'"),
    "model.lora.rank": (-2, "model.lora.rank is -2, expected 0 or more"),
    "model.lora.alpha": (0.0, "model.lora.alpha is 0.0, expected a number above 0"),
    "model.lora.paths": ((3,), "model.lora.paths is (3,), expected a tuple of names"),
    "model.fusion_self_attention": (1, "model.fusion_self_attention is 1, expected True or False"),
    "model.system": ("blip", "model.system is 'blip', expected one of"),
    "training.stepz": (3, "'training.stepz' is not a key of the config; the nearest is 'training.steps'; training has"),
    "nothing": (3, "'nothing' is not a key of the config; its sections and keys are data, loss, mesh"),
    "data.sources": ({"a": source("cirr", weight=-1.0)}, "data.sources.a.weight is -1.0"),
    "data.pronouns": ("no", "data.pronouns is 'no', expected True or False"),
    "training.best": ("cirr/val/R@5", "training.best is 'cirr/val/R@5', expected a section"),
    "model.vision": (3, "model.vision is 3, expected a section"),
    "data.vocabulary": (258, "data.vocabulary is 258, expected 0, or 259 or more"),
    "data.evaluations": ({"a": evaluation(split="")}, "data.evaluations.a.split is '', expected a name"),
}  # fmt: skip


@pytest.mark.parametrize("key", CASES)
def test_a_wrong_value_is_named_with_what_was_expected(key):
    value, sentence = CASES[key]
    with pytest.raises(UserError) as error:
        check_values(changed({key: value}))
    assert sentence in str(error.value) and "has a fault" in str(error.value)


def test_all_faults_are_named_at_once():
    wrong = {key: value for key, (value, _) in CASES.items() if key != "model.system"}
    with pytest.raises(UserError) as error:
        check_values(changed(wrong))
    assert str(error.value).startswith(f"The config has {len(wrong)} faults: ")
    for sections in ({"data": None}, {"optimizer.multipliers": 3}, {"data.sources": "cirr"}):
        with pytest.raises(UserError, match=r"is (None|3|'cirr'), expected a section"):
            check_values(changed(sections))
    with pytest.raises(UserError, match=r"model\.system is '', expected one of"):
        check_values(changed({"model": None}))
    config = changed({})
    del config.data.workers
    with pytest.raises(UserError, match=r"data\.workers is missing, expected a value such as 0"):
        check_values(config)


def test_what_needs_the_model_the_mesh_and_the_data_is_named_at_once_too(pictograms, tmp_path):
    sizes = {
        "data.folder": str(tmp_path / "no"), "data.text_length": 900, "data.batch_size": 9, "model.vision.width": 33,
        "training.best": {"circo/mAP@10": 1.0}, "model.start": str(tmp_path),
    }  # fmt: skip
    with pytest.raises(UserError) as error:
        check_config(changed(sizes))
    for sentence in (
        "The config has 6 faults: ", f"--config.data.folder={tmp_path / 'no'} is not there", "system.json is missing",
        "data.text_length is 900, but the text tower has 36 positions", "batch_size is 9, but the mesh cuts a batch",
        "model.vision.width is 33, which 4 heads do not divide", "training.best names 'circo/mAP@10'",
    ):  # fmt: skip
        assert sentence in str(error.value)
    for key in ("optimizer.freeze", "optimizer.multipliers"):
        value = ("clip/visoin",) if key == "optimizer.freeze" else {"clip/visoin": 0.1}
        with pytest.raises(UserError, match="names 'clip/visoin', where the model has nothing"):
            check_config(changed({key: value, "data.folder": str(pictograms)}))


ADAPTERS = {  # settings beside a rank of 2 -> sentence
    "there is nothing that adapters could be added to; give a run": {"model.lora.paths": ("clip/vision",)},
    "model.lora.rank is 2, but model.lora.paths is empty": {},
    "model.lora.paths names 'clip/visoin', where the model has nothing; it has clip": {
        "model.lora.paths": ("clip/visoin",)
    },
    "names 'clip/logit_scale', where there is no matrix": {"model.lora.paths": ("clip/logit_scale",)},
    "attention/out/kernel has an adapter and is trained itself; add it": {
        "model.lora.paths": ("clip/vision",), "optimizer.freeze": ("clip/text",)
    },
}  # fmt: skip


def test_adapters_that_do_not_fit_are_named(pictograms):
    for sentence, settings in ADAPTERS.items():
        given = {"model.lora.rank": 2, "optimizer.freeze": ("clip",), "data.folder": str(pictograms), **settings}
        with pytest.raises(UserError) as error:
            check_config(changed(given))
        assert sentence in str(error.value)


SIZES = {  # of a ContextBLIP: value, sentence
    "model.vision.taps": ((), "model.adapter is 'taps', but model.vision.taps names no block"),
    "model.adapter_reduction": (1000, "model.adapter_reduction is 1000, and model.vision.width 32"),
    "model.decoder_layers": (0, "model.masking is 'pixels', but model.decoder_layers is 0"),
    "model.fused_token": (300, "model.fused_token is 300, but the vocabulary has 300 ids"),
    "model.vision.layers": (0, "model.vision.layers is 0; expected at least 1"),
    "model.text.epsilon": (0.0, "model.text.epsilon is 0.0; expected more than 0"),
    "model.vision.std": ((1.0, 0.0, 1.0), "expected more than 0"),
}  # fmt: skip


@pytest.mark.parametrize("key", SIZES)
def test_sizes_that_make_no_model_are_named(key, tmp_path):
    value, sentence = SIZES[key]
    with pytest.raises(UserError) as error:
        check_config(changed({key: value}, context_blip.get_config("1,tiny")), reads_data=False)
    assert str(error.value).count(sentence) == 1


def test_a_loss_without_a_weight_and_sets_beyond_the_positions_are_named():
    nothing = {f"loss.weights.{name}": 0.0 for name in ("contrastive", "consistency", "captions")}
    with pytest.raises(UserError, match="No loss term has a weight"):
        check_config(changed(nothing), reads_data=False)
    recipe_2b = context_blip.get_config("2b,tiny")
    with pytest.raises(UserError, match=r"data\.candidates is 11, but the inter-context encoder has 10 positions"):
        check_config(changed({"data.candidates": 11}, recipe_2b), reads_data=False)


def test_a_picture_of_any_size_is_checked_without_memory():
    check_config(changed({"model.vision.image_size": 16 * 60_000}), reads_data=False)


def test_a_warm_up_that_the_run_does_not_end_is_said(pictograms, capsys):
    config = changed({"optimizer.warmup_steps": 12, "data.folder": str(pictograms)})
    check_config(config)
    assert "optimizer.warmup_steps is 12 and training.steps 12: its rate is not reached." in capsys.readouterr().out
    assert config.model.vision.width == 32 and config.model.vision.heads == 4  # every size stands in it


def changed(values, config=None):
    config = config or recipe.get_config("tiny")
    with config.unlocked(), config.ignore_type():
        for key, value in values.items():
            section, _, name = key.rpartition(".")
            place = config
            for each in filter(None, section.split(".")):
                place = place[each]
            place[name] = value
    return config


def test_the_number_of_a_sources_records_is_checked():
    with pytest.raises(UserError, match=r"data.sources.a.records is -1, expected 0 or more"):
        check_values(changed({"data.sources": {"a": source("cirr", records=-1)}}))
