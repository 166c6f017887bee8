"""Triplets are written in CIRR's layout, and the same bytes for the same settings."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets.pictograms.cirr_layout import write_cirr
from data_pipelines.datasets.pictograms.names import PICTOGRAMS
from data_pipelines.datasets.pictograms.scenes import twemoji_pictograms

SMALL = {"train_groups": 6, "val_groups": 4, "test_groups": 3, "unseen_groups": 2, "multi_groups": 2}
GROUPS = {"train": 6, "val": 4, "test1": 3, "unseen": 2, "multi": 2}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_cirr(tmp_path_factory.mktemp("pictograms") / "cirr", **SMALL, processes=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def load(path: Path):
    return json.loads(path.read_text())


@pytest.mark.long
def test_same_seed_same_bytes_whatever_the_number_of_processes(written, tmp_path):
    again = write_cirr(tmp_path / "again", **SMALL, processes=2)
    assert contents(again) == contents(written)
    other = write_cirr(tmp_path / "other", **SMALL, processes=1, seed=1)
    assert contents(other)["captions/cap.rc2.val.json"] != contents(written)["captions/cap.rc2.val.json"]


@pytest.mark.parametrize("split", GROUPS)
def test_the_layout_is_cirrs(written, split):
    pairs = load(written / "captions" / f"cap.rc2.{split}.json")
    paths = load(written / "image_splits" / f"split.rc2.{split}.json")
    scenes = load(written / "scenes" / f"scenes.{split}.json")
    captions = load(written / "image_captions" / f"captions.{split}.json")
    assert len(paths) == 6 * GROUPS[split]
    assert len(pairs) == len(paths) * (4 if split == "train" else 1)
    assert list(scenes) == list(paths)
    assert [c["image"] for c in captions] == [path.removeprefix("./") for path in paths.values()]
    for path in paths.values():
        picture = Image.open(written / "img_raw" / path)
        assert (picture.size, picture.mode, picture.format) == ((64, 64), "RGB", "PNG")
        assert np.asarray(picture).std() > 0
    for pair in pairs:
        members = pair["img_set"]["members"]
        assert set(pair) == {"pairid", "reference", "target_hard", "target_soft", "caption", "img_set", "edit"}
        assert len(set(members)) == 6 and set(members) <= set(paths)
        assert members[pair["img_set"]["reference_rank"]] == pair["reference"]
        assert members[pair["img_set"]["target_rank"]] == pair["target_hard"] != pair["reference"]
        assert pair["target_soft"] == {pair["target_hard"]: 1.0}


def test_pair_ids_are_unique_over_all_splits(written):
    ids = [pair["pairid"] for split in GROUPS for pair in load(written / "captions" / f"cap.rc2.{split}.json")]
    assert len(set(ids)) == len(ids)


def test_the_pictograms_are_credited(written):
    assert "CC-BY 4.0" in (written / "LICENSE-pictograms.txt").read_text()
    assert load(written / "pictograms.json")["seed"] == 0


def test_a_finished_data_set_is_left_alone_and_another_one_is_not_overwritten(written):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_cirr(written, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    with pytest.raises(ValueError, match=r"seed=0, expected seed=5.*remove the folder"):
        write_cirr(written, **SMALL, seed=5)


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear reader")
    with pytest.raises(ValueError, match="no pictograms data set"):
        write_cirr(tmp_path, **SMALL)


def test_an_interrupted_run_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data_pipelines.datasets.pictograms.cirr_layout._save", fail)
    with pytest.raises(KeyboardInterrupt):
        write_cirr(tmp_path / "cirr", **SMALL, processes=1)
    assert not (tmp_path / "cirr").exists()
    monkeypatch.undo()
    write_cirr(tmp_path / "cirr", **SMALL, processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["cirr"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"train_groups": 0}, "Got 0 groups for the split 'train'"), ({"canvas": 33}, "Got canvas=33")],
)
def test_bad_settings_are_refused_in_one_sentence(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        write_cirr(tmp_path / "cirr", **{**SMALL, **settings})


def test_pictograms_of_ones_own(tmp_path):
    (tmp_path / "mine").mkdir()
    for number, name in enumerate(PICTOGRAMS[:30]):
        twemoji_pictograms()[name].save(tmp_path / "mine" / f"my {name}.png", compress_level=number % 9)
    written = write_cirr(tmp_path / "cirr", **SMALL, pictograms=tmp_path / "mine", processes=1)
    settings = load(written / "pictograms.json")
    assert (len(settings["seen"]), len(settings["held_out"])) == (25, 5)
    assert "folder of yours" in (written / "LICENSE-pictograms.txt").read_text()


def test_too_few_pictograms_for_so_many_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.datasets.pictograms.groups.MAX_TRIES", 60)
    (tmp_path / "mine").mkdir()
    for name in PICTOGRAMS[:12]:
        twemoji_pictograms()[name].save(tmp_path / "mine" / f"{name}.png")
    with pytest.raises(ValueError, match="Got 10 pictograms, too few for 300 groups"):
        write_cirr(tmp_path / "cirr", **{**SMALL, "val_groups": 300}, pictograms=tmp_path / "mine", processes=1)
