"""ContextBLIP's recipes: settings that do not fit are refused before anything is trained."""

import jax
import pytest

from configs import context_blip
from contextjax.optim import make_optimizer
from contextjax.types import UserError
from experiments.shared import systems
from tests.configs.context_blip_test import whole


@pytest.mark.parametrize(
    ("argument", "changes", "sentence"),
    [
        ("1", {"loss.weights.matching": 0.0, "loss.weights.masking": 0.0}, "No loss term of this stage has a weight"),
        ("1", {"model.masking": "none"}, "masking loss has a weight, but model.masking is 'none'"),
        ("1", {"loss.learned_temperature": True}, "model.selection is 'none', which has none"),
        ("2a", {"model.selection": "none"}, "model.selection is 'none'; candidate sets are trained with"),
        ("2a", {"loss.learned_temperature": True}, "learned_temperature is set, but model.selection is 'head'"),
        ("1", {"model.adapter": "tap"}, "model.adapter is 'tap'; known are taps, convolutions, none"),
        ("1", {"model.decoder_heads": 7}, "width is 768, which 7 heads do not divide"),
        ("2b", {"optimizer.freeze": ("blip", "decoder")}, "names 'decoder', where the model has nothing"),
        ("2a", {"model.vision.taps": (3, 13)}, "taps names block 13, but there are 12"),
    ],
)
def test_settings_that_do_not_fit_are_refused(argument, changes, sentence):
    config = context_blip.get_config(argument)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=sentence):
        _, params, _ = whole(config)
        jax.eval_shape(make_optimizer(config.optimizer, steps=10).init, params)


def test_cached_features_need_the_run_that_makes_them(tmp_path):
    """Reported before anything is trained."""
    from contextjax.tokenizers import train_tokenizer
    from contextjax.types import CandidateRecord
    from data_pipelines.tables import PictureTable, SplitData

    config = context_blip.get_config("2b")
    pictures = PictureTable(None, ["a", "b"], size=16)
    data = SplitData("train", pictures, ("", ""), (CandidateRecord("s/0", ("a", "b"), "a dog", 1),), tmp_path)
    tokenizer = train_tokenizer(["a dog"], vocabulary=280, length=30)
    with pytest.raises(UserError, match=r"data.cached is set, but model.start is empty; give the run"):
        systems.of(config).make_samples(config, data, tokenizer, tmp_path)
