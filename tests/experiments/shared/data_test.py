"""The data that a config names: mixtures that do not work are refused with one sentence."""

import pytest

from configs.context_cir import get_config
from contextjax.types import UserError
from experiments.shared import models
from experiments.shared.data import load_data


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data.folder": ""}, "data.sources.cirr.folder is empty; give it, as --config.data.sources.cirr.folder=DIR"),
        ({"data.sources.cirr.weight": 0.0, "data.sources.cirr_r.weight": 0.0}, "Every weight of data.sources"),
        ({"data.sources.cirr.weight": -1.0}, "data.sources.cirr.weight is -1.0; expected how often"),
        ({"data.sources.cirr.reader": "nope"}, "The reader is 'nope'; known are"),
        ({"data.records": 5}, "data.records is set, but data.sources has several sets"),
    ],
)
def test_mixtures_that_do_not_work_are_refused(pictograms, changes, sentence):
    config = get_config("tiny,cirr_r")
    with config.unlocked():
        config.data.records = 0
        config.update_from_flattened_dict(
            {"data.folder": str(pictograms), "data.sources.cirr_r.reader": "cirr"} | changes
        )
        config.model = models.resolve_model(config)
    with pytest.raises(UserError, match=sentence):
        load_data(config, "train")
