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


def test_fewer_triplets_are_whole_references_and_a_part_of_more(pictograms):
    config = get_config("tiny")
    config.data.folder = str(pictograms)
    with config.unlocked():
        config.model = models.resolve_model(config)
    every = load_data(config, "train")
    kept = {0: [*every.records]}
    for count in (6, 30, len(every.records)):
        config.data.records = count
        kept[count] = [*load_data(config, "train").records]
        assert len(kept[count]) == count
    assert kept[len(every.records)] == kept[0]
    assert {record.id for record in kept[6]} < {record.id for record in kept[30]}
    of = {record.reference: sum(r.reference == record.reference for r in every.records) for record in every.records}
    shown = [record.reference for record in kept[30]]
    assert sum(shown.count(reference) < of[reference] for reference in {*shown}) <= 1  # the last one is cut
    assert len({*shown}) < 30


def test_a_source_may_have_a_number_of_its_own(pictograms):
    config = get_config("tiny,cirr_r")
    with config.unlocked():
        config.update_from_flattened_dict(
            {"data.folder": str(pictograms), "data.sources.cirr_r.reader": "cirr", "data.sources.cirr_r.records": 5}
        )
        config.model = models.resolve_model(config)
    data = load_data(config, "train")
    names = [record.id.split("/")[0] for record in data.records]
    assert names.count("cirr_r") == 5 and names.count("cirr") > 5
