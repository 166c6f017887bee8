"""Boxes beside the annotations: readers of both systems hand them on, and boxes outside their picture are refused."""

import json
import shutil

import pytest

from contextjax.types import UserError
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.datasets.imagecode import ImageCodeReader
from data_pipelines.tables import load_split

READERS = {"cirr": (CirrReader, "boxes/boxes.val.json"), "imagecode": (ImageCodeReader, "boxes.json")}


@pytest.fixture(params=READERS)
def boxed(request, pictograms, pictogram_sets, tmp_path):
    """(reader class, a folder of its own, the file of its boxes)."""
    reader, file = READERS[request.param]
    folder = tmp_path / request.param
    source = pictograms if request.param == "cirr" else pictogram_sets
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("prepared"))
    return reader, folder, folder / file


def picture_of(record):
    return record.reference if hasattr(record, "reference") else record.images[record.target]


def test_records_have_the_boxes_of_their_picture(boxed):
    """From the files, and from the prepared tables; of a set without boxes, none."""
    reader, folder, file = boxed
    records, written = reader(folder).records("val"), json.loads(file.read_text())
    for record in records:
        assert record.boxes.size == (32, 32)
        expected = tuple((row["name"], tuple(row["box"])) for row in written[picture_of(record)])
        assert record.boxes.things == expected and expected
    assert load_split(reader(folder), folder, "val", size=32).records == tuple(records)
    file.unlink()
    assert all(record.boxes is None for record in reader(folder).records("val"))
    assert all(record.boxes is None for record in load_split(reader(folder), folder, "val", size=32).records)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"name": "dog", "box": [0, 0, 33, 8]}, r"the box \[0, 0, 33, 8\] of 'dog'.* within 32 x 32 pixels"),
        ({"name": "dog", "box": [-1, 0, 8, 8]}, "within 32 x 32"),
        ({"name": "dog", "box": [8, 0, 8, 8]}, "left < right"),
        ({"name": "dog", "box": [0, 0, "8", 8]}, "not four numbers"),
        ({"name": "dog", "box": [0, 0, 8]}, "no name and box"),
        ({"name": " ", "box": [0, 0, 8, 8]}, "no name and box"),
        ("dog", "no name and box"),
    ],
)
def test_boxes_that_are_none_are_refused_in_one_sentence(boxed, row, fault):
    reader, folder, file = boxed
    name = picture_of(reader(folder).records("val")[0])
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: [row]}))
    with pytest.raises(UserError, match=rf"{file.name} has 1 problem\(s\): {name} has .*{fault}"):
        reader(folder).records("val")
