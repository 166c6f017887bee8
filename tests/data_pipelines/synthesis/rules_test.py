"""The rule-made set of pictograms: true texts, every layout readable, its origin in every record."""

import json

import pytest

from contextjax.types import UserError
from data_pipelines.datasets import READERS
from data_pipelines.datasets.pictograms.scenes import PLACES, Thing, make_scene
from data_pipelines.datasets.pictograms.text_parser import parse_modification
from data_pipelines.prepare import prepare
from data_pipelines.synthesis import rules
from data_pipelines.synthesis.pairs import existing_pairs
from data_pipelines.synthesis.pipeline import Pipeline, run_pipeline
from data_pipelines.synthesis.write import write_set
from data_pipelines.tables import load_split


@pytest.fixture(scope="module")
def made(pictograms, tmp_path_factory):
    """The set made of the pictograms' training pairs, its drafts and what was counted."""
    target = tmp_path_factory.mktemp("synthesis") / "set"
    pictures, pairs = existing_pairs(READERS["cirr"](pictograms), "train")
    make = lambda: rules.with_scenes(pictograms, ("train",))
    pipeline = Pipeline(pictures=pictures, make_model=make, answers=target / "synthesis" / "answers.sqlite", run="test")
    drafts = list(run_pipeline(pairs, pipeline, concurrency=2))
    return target, drafts, write_set(drafts, pictures, target, "train")


def scene_of(rows):
    return make_scene(Thing(PLACES.index(row["place"]), row["name"], row["size"]) for row in rows)


@pytest.mark.long
def test_an_independent_reader_understands_every_text_as_meant(made, pictograms):
    scenes = {k: scene_of(v) for k, v in json.loads((pictograms / "scenes/scenes.train.json").read_text()).items()}
    kept = [(draft, sentence.text) for draft in made[1] for sentence in draft.kept]
    assert len(kept) > 100 and len({text for _, text in kept}) > 60
    for draft, text in kept:
        assert parse_modification(text, scenes[draft.reference]) == scenes[draft.target], text


def test_every_pair_has_different_texts_and_says_that_no_model_made_them(made):
    for draft in made[1]:
        assert len({sentence.text for sentence in draft.kept}) == len(draft.kept) > 0
        assert {reply.model for reply in draft.replies} == {rules.NAME} and "no model" in rules.NAME
    rows = [json.loads(line) for line in (made[0] / "train.jsonl").read_text().splitlines()]
    assert all(step["model"] == rules.NAME for row in rows for step in row["made_by"])
    assert len({row["id"] for row in rows}) == len(rows) == made[2].triplets


@pytest.mark.parametrize("name", ["manifest", "cirr_r", "cirr"])
def test_the_readers_read_it(made, name):
    target, drafts, found = made
    data = load_split(READERS[name](target), target, "train", size=16)
    texts = [sentence.text for draft in drafts for sentence in draft.kept]
    expected = [draft.kept[0].text for draft in drafts] if name == "cirr" else texts
    assert [record.text for record in data.records] == expected
    assert len(data.pictures) == found.pictures
    assert data.has_captions == (name != "manifest")


def test_the_pictures_are_those_of_the_source(made, pictograms):
    target, drafts, _ = made
    ours, theirs = (READERS["cirr_r"](target), READERS["cirr"](pictograms))
    named = {name for draft in drafts for name in (draft.reference, draft.target)}
    assert set(ours.pictures("train")) == named
    for name in named:
        assert ours.pictures("train")[name].read_bytes() == theirs.pictures("train")[name].read_bytes()
    assert prepare(ours, target, "train").ids


def test_rules_are_for_pictograms_only(tmp_path, make_pipeline, pairs):
    with pytest.raises(UserError, match="scene graphs of the pictograms"):
        rules.with_scenes(tmp_path, ("train",))
    with pytest.raises(UserError, match=r"no scene graph of a\.png"):
        list(run_pipeline(pairs, make_pipeline(rules.RulesModel({}))))


@pytest.mark.parametrize(("argument", "parts"), [("synthetic", 1), ("both", 2)])
def test_the_recipe_of_pictograms_trains_on_it(argument, parts, made, pictograms):
    from configs.pictograms import get_config
    from experiments.shared import models
    from experiments.shared.data import load_data, load_evaluated

    config = get_config(argument)
    for place in (config.data, *config.data.sources.values()):
        place.folder = str(made[0] if "synthetic" in place.folder else pictograms)
    config.data.val_folder = config.data.val_folder and str(pictograms)
    with config.unlocked():
        config.model = models.resolve_model(config)
    data, pairs = load_data(config, "train"), len(made[1])
    assert len(data.records) == parts * pairs and data.has_captions
    assert len(load_evaluated(config, "val").records) == len(READERS["cirr"](pictograms).records("val"))
