"""Robustness probes: what each changes and leaves, that strength 0 is the picture, and what the results say."""

import dataclasses

import numpy as np
import pytest

from contextjax.evaluation.probes import (
    DISTRACTORS,
    ORDER_PROBE,
    PICTURE_PROBES,
    SAME_SCORES,
    STRENGTHS,
    TEXT_PROBE,
    DisturbedPictures,
    disturb,
    permuted,
    run_probes,
    with_distractors,
)
from contextjax.types import CandidateRecord

PATCH, SIDE = 4, 4
PICTURE = np.random.default_rng(0).integers(0, 256, (PATCH * SIDE, PATCH * SIDE, 3), np.uint8)


def cells(picture):
    """The pixels of each patch, [patches, pixels, 3]."""
    rows = [picture[a : a + PATCH, b : b + PATCH] for a in range(0, 16, 4) for b in range(0, 16, 4)]
    return np.stack([cell.reshape(-1, 3) for cell in rows])


def bag(pixels):
    return sorted(map(tuple, pixels.reshape(-1, 3).tolist()))


def change(probe, strength, seed=0):
    return disturb(PICTURE, probe, strength, patch=PATCH, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("probe", PICTURE_PROBES)
def test_a_probe_changes_its_share_and_no_more(probe):
    before = PICTURE.copy()
    np.testing.assert_array_equal(change(probe, 0.0), PICTURE)
    for strength in (0.5, 1.0):
        changed = change(probe, strength)
        assert changed.shape == PICTURE.shape and changed.dtype == np.uint8
        differs = (cells(changed) != cells(PICTURE)).any(-1)
        if probe == "all pixels":
            assert 0.8 * strength < differs.mean() <= strength
        else:
            assert 0.6 * strength < differs.any(1).mean() <= strength
        np.testing.assert_array_equal(changed, change(probe, strength))
        if (probe, strength) != ("masked patches", 1.0):
            assert (changed != change(probe, strength, seed=1)).any()
    np.testing.assert_array_equal(PICTURE, before)


def test_what_the_probes_keep():
    within, whole, every = (change(probe, 1.0) for probe in list(PICTURE_PROBES)[:3])
    assert [bag(cell) for cell in cells(within)] == [bag(cell) for cell in cells(PICTURE)]
    assert sorted(map(bag, cells(whole))) == sorted(map(bag, cells(PICTURE)))
    assert {cell.tobytes() for cell in cells(whole)} == {cell.tobytes() for cell in cells(PICTURE)}
    assert bag(every) == bag(PICTURE) and sorted(map(bag, cells(every))) != sorted(map(bag, cells(PICTURE)))
    masked = change("masked patches", 0.5)
    grey = (masked == PICTURE.reshape(-1, 3).mean(0).round().astype(np.uint8)).all(-1)
    assert grey.mean() == pytest.approx(0.5, abs=0.02)


RECORDS = [
    CandidateRecord(f"{name}/{i}", tuple(f"{name}{k}" for k in range(4)), f"text {name} {i}", i, set=name)
    for name in "abc"
    for i in range(2)
]


def test_distractors_are_texts_of_other_sets():
    for count in (1, 3):
        for record, changed in zip(RECORDS, with_distractors(RECORDS, count), strict=True):
            assert changed.text.startswith(f"{record.text} text ") and changed.text.count("text") == 1 + count
            assert changed.text.count(f"text {record.set}") == 1
            assert dataclasses.replace(changed, text=record.text) == record
    assert with_distractors(RECORDS, 3) == with_distractors(RECORDS, 3) != with_distractors(RECORDS, 3, seed=1)
    assert len(with_distractors(RECORDS, 4)) == len(RECORDS) and with_distractors(RECORDS, 5) == []
    assert with_distractors(RECORDS[:3], 2) == [] and len(with_distractors(RECORDS[:3], 1)) == 3  # of two and one
    assert with_distractors(RECORDS[:2], 1) == [] and with_distractors(RECORDS[:2], 0) == RECORDS[:2]


def test_permuted_candidates_keep_their_target():
    moved, orders = permuted(RECORDS)
    assert any(m.images != r.images for m, r in zip(moved, RECORDS, strict=True))
    for record, other, order in zip(RECORDS, moved, orders, strict=True):
        assert other.images == tuple(record.images[i] for i in order) and sorted(order) == [0, 1, 2, 3]
        assert other.images[other.target] == record.images[record.target]


class Pictures:
    """A picture is filled with its number, its upper left pixel being 255."""

    def __init__(self):
        self.ids = [name for record in RECORDS[::2] for name in record.images]
        self.row = {name: row for row, name in enumerate(self.ids)}

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, row):
        picture = np.full((16, 16, 3), row, np.uint8)
        picture[0, 0] = 255
        return picture


@dataclasses.dataclass
class Scorer:
    """Finds the picture whose number in its set the text's last word says; it reads two corners of the picture."""

    by_place: bool = False
    words: int = 99

    def truncated(self, texts):
        return [text for text in texts if len(text.split()) > self.words]

    def score_sets(self, sets, texts, ordered):
        scores = []
        for pictures, text in zip(sets, texts, strict=True):
            wanted = int(text.split()[-1])
            right = [int(p[-1, -1, 0]) % 4 == wanted and p[0, 0, 0] == 255 for p in pictures]
            scores.append([k == wanted for k in range(len(pictures))] if self.by_place else right)
        return np.asarray(scores, np.float32)


def test_results_have_accuracies_by_strength():
    """The picture with its corner is always found; texts that end otherwise mislead; candidates may move."""
    got = run_probes(Scorer(), RECORDS, Pictures(), patch=PATCH)
    assert list(got) == [*PICTURE_PROBES, TEXT_PROBE, ORDER_PROBE]
    for probe in PICTURE_PROBES:
        assert [row["strength"] for row in got[probe]] == list(STRENGTHS)
        assert got[probe][0]["accuracy"] == 100 and got[probe][-1]["accuracy"] < 100
        assert all(row["low95"] <= row["accuracy"] <= row["high95"] for row in got[probe])
    assert [row["strength"] for row in got[TEXT_PROBE]] == list(DISTRACTORS) and got[TEXT_PROBE][1]["accuracy"] < 100
    assert got[ORDER_PROBE]["accuracy"] == 100 and got[ORDER_PROBE]["difference"] == 0
    assert got[ORDER_PROBE]["n_queries"] == len(RECORDS) and not any(row["cut"] for row in got[TEXT_PROBE])
    by_place = run_probes(Scorer(by_place=True), RECORDS, Pictures(), patch=PATCH)[ORDER_PROBE]
    assert by_place["difference"] > SAME_SCORES and by_place["accuracy"] < 100


def test_a_picture_is_changed_alike_whenever_it_comes():
    pictures = Pictures()
    disturbed = DisturbedPictures(pictures, "all pixels", 1.0, PATCH)
    assert len(disturbed) == len(pictures) and disturbed.ids == pictures.ids and disturbed.row == pictures.row
    np.testing.assert_array_equal(disturbed[3], disturbed[3])


def test_distractors_that_are_not_read_are_said_and_missing_ones_leave_a_strength_out():
    """A text has three words; two sets of two texts have no more than two distractors."""
    got = run_probes(Scorer(words=6), RECORDS[:4], Pictures(), patch=PATCH)[TEXT_PROBE]
    assert [(row["strength"], row["cut"]) for row in got] == [(0, 0), (1, 0), (2, 100)]
