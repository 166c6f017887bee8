"""Candidate sets are written in ImageCoDe's layout, and the same bytes for the same settings."""

import inspect
import json

import pytest
from PIL import Image

from data_pipelines.datasets.imagecode import ImageCodeReader
from data_pipelines.datasets.pictograms import imagecode_layout
from data_pipelines.datasets.pictograms.comparisons import COMPARISONS
from data_pipelines.datasets.pictograms.description_parser import parse
from data_pipelines.datasets.pictograms.imagecode_layout import write_imagecode

SMALL = {"train_sets": 6, "val_sets": 3, "test_sets": 3, "unseen_sets": 2}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_imagecode(tmp_path_factory.mktemp("data") / "one", processes=1, **SMALL)


def test_official_layout(written):
    for split, count in {"train": 6, "valid": 3, "test": 3, "unseen": 2}.items():
        labels = json.loads((written / f"{split}_data.json").read_text())
        scenes = json.loads((written / f"{split}_scenes.json").read_text())
        assert len(labels) == count
        for name, texts in labels.items():
            assert "open-images" in name
            assert sorted(p.name for p in (written / "image-sets" / name).iterdir()) == [
                f"img{n}.jpg" for n in range(10)
            ]
            assert len(texts) == (10 if split == "train" else 2)
            assert all(0 <= int(index) < 10 and parse(text) for index, text in texts.items())
            assert len(scenes[name]) == 10
        with Image.open(written / "image-sets" / name / "img0.jpg") as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
    unlabelled = json.loads((written / "test_data_unlabeled.json").read_text())
    labels = json.loads((written / "test_data.json").read_text())
    assert unlabelled == {name: list(texts.values()) for name, texts in labels.items()}
    assert "CC-BY 4.0" in (written / "LICENSE-pictograms.txt").read_text()


@pytest.mark.long
def test_bytes_do_not_depend_on_the_number_of_processes(written, monkeypatch):
    monkeypatch.setattr(imagecode_layout, "CHUNK", 2)
    other = write_imagecode(written.parent / "two", processes=2, **SMALL)
    files = sorted(p.relative_to(written) for p in written.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    assert all((written / p).read_bytes() == (other / p).read_bytes() for p in files)


def test_written_once_and_never_over_other_settings(written):
    before = (written / "train_data.json").stat().st_mtime_ns
    assert write_imagecode(written, processes=1, **SMALL) == written
    assert (written / "train_data.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"seed=0, expected seed=1.*choose another one"):
        write_imagecode(written, processes=1, seed=1, **SMALL)


def test_never_into_a_folder_of_something_else(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match=r"expected an empty or absent folder"):
        write_imagecode(tmp_path, processes=1, **SMALL)
    assert (tmp_path / "mine.txt").exists()


def test_own_pictures(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n, name in enumerate("ant bee cat dog elk fox gnu hen ibis jay koi lynx mole newt".split()):
        Image.new("RGB", (20, 20), (17 * n, 99, 255 - 17 * n)).save(pictures / f"{name}.png")
    folder = write_imagecode(tmp_path / "out", processes=1, pictograms=pictures, **SMALL)
    assert not (folder / "LICENSE-pictograms.txt").exists()  # not Twemoji's
    held_out = set(json.loads((folder / "pictograms.json").read_text())["held_out"])
    for scenes in json.loads((folder / "unseen_scenes.json").read_text()).values():
        assert all(held_out & {thing["name"] for thing in scene} for scene in scenes)


def test_a_name_the_texts_use_is_refused(tmp_path):
    for name in [*"ant bee cat dog elk fox gnu hen ibis jay koi lynx".split(), "number one"]:
        Image.new("RGBA", (8, 8)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"'number one'.*rename"):
        write_imagecode(tmp_path / "out", processes=1, pictograms=tmp_path, **SMALL)


def test_comparative_sets_are_written_beside_absolute_ones_with_kinds_and_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(imagecode_layout, "comparison_bound", lambda: 43.21)
    folder = write_imagecode(tmp_path / "out", processes=1, comparative=True, **SMALL)
    kinds = json.loads((folder / "kinds.json").read_text())
    assert json.loads((folder / "bounds.json").read_text()) == {"comparative": 43.21}
    reader = ImageCodeReader(folder)
    for split, count in {"train": 6, "val": 3, "test": 3, "unseen": 2}.items():
        records = reader.records(split)
        assert len({record.set for record in records}) == 2 * count
        for record in records:
            assert record.kinds == ("static", *kinds[record.set][str(record.target)])
            assert ("comparative" in record.kinds) == ("comparative" in record.set) != ("absolute" in record.kinds)
            known = {"static", "absolute", "comparative", "superlative", "ordinal", "unlike"}
            assert set(record.kinds) - known <= {"negation", "relation", "size", "counting"}
    absolute = sum("absolute" in record.kinds for record in reader.records("train"))
    assert absolute == 4 * 6
    for split in ("train", "val"):
        some = {size: reader.records(f"{split}_{name}") for size, name in ((2, "simple"), (5, "few"))}
        assert all({len(record.images) for record in records} == {size} for size, records in some.items())
        assert all({"comparative" in record.set for record in records} == {True, False} for records in some.values())


def test_validation_has_600_texts_that_compare():
    """An accuracy of 50 % then has a standard error of two points."""
    assert inspect.signature(write_imagecode).parameters["val_sets"].default * COMPARISONS >= 600


def test_kinds_of_absolute_sets(written):
    kinds = json.loads((written / "kinds.json").read_text())
    assert not (written / "bounds.json").exists()
    assert all(own[0] == "absolute" for each in kinds.values() for own in each.values())
    assert imagecode_layout.families_of("There are exactly two owls, but there is only one key.") == ["counting"]
