"""SystemSpec: a file says the same as the system, and every wrong value in it ends with one sentence."""

import dataclasses
import json
import random

import pytest

from contextjax.loading import load
from contextjax.pretrained import write_own
from contextjax.spec import FILE, SystemSpec
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from contextjax.variants import make_model, spec_of
from tests.pretrained.conftest import BLIP_CONFIG

JUNK = (None, True, -1, 0, 3, 10**9, 0.5, "", "x", "full", [], [1], [1, 2, 3], {}, {"a": 1})


@pytest.fixture(scope="module")
def model(tiny):
    return tiny.model()


@pytest.fixture(scope="module")
def folder(model, tiny, tmp_path_factory):
    """A converted system; read only."""
    place = tmp_path_factory.mktemp("spec") / "system"
    write_own(place, spec_of(model, text_length=8, fingerprint="abc-7"), tiny.params(model))
    train_tokenizer(["a dog"], vocabulary=300, length=8).save(place / "tokenizer.json")
    return place


@pytest.fixture
def edit(folder, tmp_path):
    """Returns a function that changes the contents of system.json, in a copy of the folder."""
    for file in folder.iterdir():
        if file.name != FILE:
            (tmp_path / file.name).symlink_to(file)
    content = json.loads((folder / FILE).read_text())

    def edited(*path, value):
        changed = json.loads(json.dumps(content))
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (tmp_path / FILE).write_text(json.dumps(changed))
        return tmp_path

    return edited


def test_a_file_says_the_same_as_the_system(model, folder):
    spec = SystemSpec.read(folder)
    assert spec == spec_of(model, text_length=8, fingerprint="abc-7")
    assert make_model(spec).config == model.config
    system = load(folder)
    assert system.fingerprint == "abc-7" and dataclasses.replace(system.spec, text=spec.text) == spec
    assert spec.title == "ConText-CIR" and not spec.is_plain and spec.scores == ("itc",)


def test_plain_towers_have_a_spec_too(tiny):
    from contextjax.models.blip import BLIP
    from contextjax.models.clip import CLIP

    for module, config, scores in ((CLIP, tiny.clip, ("itc",)), (BLIP, BLIP_CONFIG, ("itc", "itm", "sum"))):
        spec = spec_of(module(config))
        assert make_model(spec).config == config and spec.is_plain and spec.scores == scores
        assert spec.query == "sum" and spec.score == scores[-1]


@pytest.mark.parametrize("values", [2, pytest.param(5, marks=pytest.mark.long)])
def test_every_wrong_value_is_a_user_error(edit, folder, values):
    """Random wrong values in every place of the file: it is refused, or describes a system that loads."""
    content, rng = json.loads((folder / FILE).read_text()), random.Random(0)
    paths = [(key,) for key in content] + [
        (key, name) for key in ("vision", "text", "options") for name in content[key]
    ]
    refused = 0
    for path in paths:
        for value in rng.sample(JUNK, values):
            try:
                load(edit(*path, value=value))
            except UserError as error:
                refused += 1
                assert "system.json" in str(error) or "does not fit the model" in str(error), (path, value, error)
    assert refused > 0.6 * values * len(paths)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("family",), "clap", "family is 'clap'; expected one of context_cir"),
        (("dtype",), "float8", "dtype is 'float8'"),
        (("vision",), [], "vision is .*; expected an object"),
        (("vision", "fit"), "stretch", "vision.fit is 'stretch'"),
        (("vision", "std"), [1, 0, 1], "vision.std"),
        (("vision", "layers"), 10**6, "at most 512"),
        (("vision", "width"), 17, "heads do not divide"),
        (("vision", "widht"), 17, "widht is no such field"),
        (("text", "heads"), 0, "0 heads do not divide"),
        (("text", "width"), 16, "does not fit the model"),
        (("options", "fusion_head"), "other", "model.fusion_head is 'other'"),
        (("options", "query"), "sum", "The query is 'fusion', but model.query is 'sum'"),
        (("score",), "itm", "The score is 'itm'; expected one of itc"),
        (("propositions",), [3, 0], "both or neither"),
        (("text_length",), 0, "text_length is 0"),
        (("more",), 1, "unknown 'more'"),
        (("fingerprint",), 7, "fingerprint is 7"),
    ],
)
def test_the_sentence_names_the_value(edit, path, value, sentence):
    with pytest.raises(UserError, match=sentence):
        load(edit(*path, value=value))
