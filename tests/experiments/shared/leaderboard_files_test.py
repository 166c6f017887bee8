"""Submission files: what a benchmark does not take is refused with one sentence."""

import json
import shutil

import pytest

from contextjax.types import UserError
from data_pipelines.datasets.cirr import CirrReader
from experiments.shared.leaderboard_files import check_file
from tests.data_pipelines.layouts import LAYOUTS


@pytest.mark.parametrize(
    ("protocol", "split", "sentence"),
    [
        ("cirr", None, "--split is None; expected the one that the file answers"),
        ("mmvp", "val", "has no leaderboard that takes files"),
        ("", "val", "--data or --protocol is missing"),
        ("cirr", "val", "There is no submission"),
    ],
)
def test_files_that_cannot_be_checked_are_refused(pictograms, tmp_path, protocol, split, sentence):
    with pytest.raises(UserError, match=sentence):
        check_file(tmp_path / "x.json", protocol, pictograms, split)


def test_a_published_split_with_a_blank_caption_is_checked_as_it_is(tmp_path, edit_json):
    """CIRR's own test1 has one; every pair is to be answered."""
    LAYOUTS["cirr"](tmp_path)
    for kind in ("captions/cap.rc2.{}.json", "image_splits/split.rc2.{}.json"):
        shutil.copy(tmp_path / kind.format("val"), tmp_path / kind.format("test1"))
    keys = ("pairid", "reference", "caption", "img_set")
    hide = lambda rows: [
        {key: row[key] for key in keys} | ({"caption": " "} if i else {}) for i, row in enumerate(rows)
    ]
    edit_json(tmp_path / "captions/cap.rc2.test1.json", hide)
    records = CirrReader(tmp_path).records("test1")
    answers = {r.id: [name for name in r.subset if name != r.reference][:3] for r in records}
    file = tmp_path / "subset.json"
    file.write_text(json.dumps({"version": "rc2", "metric": "recall_subset", **answers}))
    assert check_file(file, "cirr", tmp_path, "test1") == len(records) == 3
    edit_json(file, lambda content: {key: value for key, value in content.items() if key != records[1].id})
    with pytest.raises(UserError, match=f"pair {records[1].id} is missing"):
        check_file(file, "cirr", tmp_path, "test1")
