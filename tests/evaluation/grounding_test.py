"""Grounding over records: which phrases count, of which picture, and that maps on the boxes are at 100 %."""

import dataclasses

import numpy as np
import pytest

from contextjax.evaluation import evaluate_grounding
from contextjax.evaluation.grounding import named_things
from contextjax.system import TokenMap
from contextjax.types import CandidateRecord, ComposedRecord, PictureBoxes
from data_pipelines.datasets.pictograms.names import plural
from data_pipelines.datasets.pictograms.scenes import twemoji_pictograms

BOXES = PictureBoxes((8, 8), (("dog", (0.0, 0.0, 4.0, 4.0)), ("red apple", (4.0, 4.0, 8.0, 8.0))))


@dataclasses.dataclass
class Looker:
    """Maps of 2 x 2 patches by what each word is; pictures are numbers."""

    looks: dict
    fit: str = "squash"
    has_attention_maps: bool = True
    asked: tuple = ()

    def attention_maps(self, images, texts, *, layers="all"):
        self.asked += ((tuple(images), tuple(texts), layers),)
        return [self._map(text) for text in texts]

    def _map(self, text):
        words = text.split()
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1]
        offsets = np.asarray([(a, a + len(word)) for a, word in zip(starts, words, strict=True)])
        maps = [self.looks.get(word, (1.0, 1.0, 1.0, 1.0)) for word in words]
        return TokenMap(np.asarray(maps, np.float32).T, offsets, 2)


class Pictures:
    """Pictures by row; a picture is its number."""

    def __init__(self):
        self.ids, self.row = ["a", "b"], {"a": 0, "b": 1}

    def __len__(self):
        return 2

    def __getitem__(self, row):
        return row


PICTURES = Pictures()
LOOKS = {"dog": (1.0, 0, 0, 0), "red": (0, 0, 0, 3.0), "apple": (0, 0, 1.0, 3.0)}


def test_the_maps_of_names_lie_on_their_things():
    """They are of a query's reference, and of the picture that is described; a name counts once a text."""
    system = Looker(LOOKS)
    queries = [ComposedRecord("1", "a", "the dog and the red apple and the dog", "b", boxes=BOXES)]
    sets = [CandidateRecord("1", ("a", "b"), "a dog and the red apple and", 1, boxes=BOXES)]
    for records, picture in ((queries, 0), (sets, 1)):
        system.asked = ()
        got = evaluate_grounding(system, records, PICTURES)
        assert system.asked[0][0] == (picture,) and system.asked[0][2] == "last"
        alone = {"grounding/alone_pointing": 100, "grounding/alone_mass": 100 * (1 + 6 / 7) / 2}
        assert got == pytest.approx({
            "grounding/pointing": 100, "grounding/mass": 100 * (1 + 6 / 7) / 2, "grounding/pointing_chance": 25,
            "grounding/mass_chance": 25, "grounding/phrases": 2, **(alone if records is queries else {}),
        })  # fmt: skip
        if records is queries:  # its phrases are texts by themselves, too, and read the same picture
            assert system.asked[1:] == (((0, 0), ("red apple", "dog"), "last"),)
    evaluate_grounding(system, sets, PICTURES, layers="all")
    assert system.asked[-1][2] == "all"


def test_a_phrase_alone_may_look_elsewhere():
    class Distracted(Looker):
        def _map(self, text):
            return (
                Looker({"dog": (0, 0, 0, 1.0)} if text == "dog" else LOOKS)._map(text)
                if text == "dog"
                else super()._map(text)
            )

    got = evaluate_grounding(Distracted(LOOKS), [ComposedRecord("1", "a", "a dog", boxes=BOXES)], PICTURES)
    assert (got["grounding/pointing"], got["grounding/alone_pointing"], got["grounding/alone_mass"]) == (100, 0, 0)


def test_maps_that_know_nothing_are_at_chance():
    got = evaluate_grounding(Looker({"dog": (0, 0, 0, 0)}), [ComposedRecord("1", "a", "a dog", boxes=BOXES)], PICTURES)
    assert got["grounding/pointing"] == got["grounding/pointing_chance"] == 25
    assert got["grounding/mass"] == got["grounding/mass_chance"] == 25


@pytest.mark.parametrize(
    "records",
    [
        [],
        [ComposedRecord("1", "a", "a dog")],
        [ComposedRecord("1", "a", "a cat", boxes=BOXES)],
        [CandidateRecord("1", ("a", "b"), "a dog", None, boxes=BOXES)],
    ],
)
def test_without_boxes_names_or_a_target_nothing_is_measured(records):
    assert evaluate_grounding(Looker(LOOKS), records, PICTURES) == {}
    named = [ComposedRecord("1", "a", "a dog", boxes=BOXES)]
    assert evaluate_grounding(Looker(LOOKS, has_attention_maps=False), named, PICTURES) == {}


def test_boxes_are_those_of_what_the_model_sees():
    """The middle of a wide picture is seen: half of the box is outside, and the map is of the middle alone."""
    wide = PictureBoxes((16, 8), (("dog", (0.0, 0.0, 8.0, 4.0)), ("cat", (0.0, 0.0, 4.0, 8.0))))
    records = [ComposedRecord("1", "a", "dog and cat", boxes=wide)]
    got = evaluate_grounding(Looker(LOOKS, fit="crop"), records, PICTURES)
    assert got["grounding/phrases"] == 1 and got["grounding/pointing"] == 100 and got["grounding/mass_chance"] == 25


@pytest.mark.parametrize(("fit", "share"), [("squash", 50), ("squarepad", 25), ("targetpad", 31.25)])
def test_boxes_of_a_wide_picture_under_other_fits(fit, share):
    """The left half of it: padding above and below makes the picture square, or 5 to 4, of which the middle is seen."""
    wide = PictureBoxes((160, 80), (("dog", (0.0, 0.0, 80.0, 80.0)),))
    got = evaluate_grounding(Looker(LOOKS, fit=fit), [ComposedRecord("1", "a", "a dog", boxes=wide)], PICTURES)
    assert got["grounding/mass_chance"] == pytest.approx(share)


def test_a_text_that_was_cut_before_the_name_is_left_out():
    class Short(Looker):
        def attention_maps(self, images, texts, *, layers="all"):
            return super().attention_maps(images, [text[:5] for text in texts], layers=layers)

    assert evaluate_grounding(Short(LOOKS), [ComposedRecord("1", "a", "there is a dog", boxes=BOXES)], PICTURES) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red apple, an apple", {"red apple": "red apple", "apple": "apple"}),
        ("red apples", {"red apple": "red apples"}),
        ("doghouse", {}),
        ("Two DOGS here", {"dog": "DOGS"}),
        ("two cacti", {"cactus": "cacti"}),
        ("pairs of scissors", {"pair of scissors": "pairs of scissors"}),
    ],
)
def test_names_stand_in_a_text_as_whole_words_the_longer_first(text, expected):
    names = ("apple", "red apple", "dog", "pair of scissors", "cactus")
    assert {name: text[start:end] for name, start, end in named_things(text, names)} == expected


def test_plurals_of_the_pictograms_are_seen():
    names = list(twemoji_pictograms())
    unseen = [name for name in names if not [*named_things(f"the {plural(name)} here", [name])]]
    assert len(unseen) <= 0.02 * len(names), unseen
