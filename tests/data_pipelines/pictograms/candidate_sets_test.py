"""Candidate sets: fair, split by combination, and written the same whatever the processes."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets.pictograms import candidate_sets
from data_pipelines.datasets.pictograms.candidate_sets import set_of, write_imagecode
from data_pipelines.datasets.pictograms.description_reading import all_true, read
from data_pipelines.datasets.pictograms.scenes import EXTENT, folder_pictograms, share_of, twemoji_pictograms
from data_pipelines.datasets.pictograms.names import choose

SEEN, HELD_OUT = choose(twemoji_pictograms())
SMALL = {"train_sets": 6, "val_sets": 3, "test_sets": 3, "unseen_sets": 2}


@pytest.fixture(scope="module")
def many():
    return [set_of("valid", index, SEEN, HELD_OUT) for index in range(1000)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_imagecode(tmp_path_factory.mktemp("data") / "one", processes=1, **SMALL)


def _features(candidates):
    """The ten scenes as vectors [10, features]: what is where, and how much ink it leaves."""
    names = sorted({name for scene in candidates.scenes for name in scene.names})
    vectors = np.zeros((10, 4, len(names)))
    for row, scene in zip(vectors, candidates.scenes, strict=True):
        for thing in scene.things:
            row[thing.place, names.index(thing.name)] = EXTENT[thing.size] ** 2
    return vectors.reshape(10, -1)


def _distances(candidates):
    features = _features(candidates)
    return np.abs(features[:, None] - features[None]).sum((1, 2))


SCORERS = {
    "first": lambda candidates: -np.arange(10),
    "hub": lambda candidates: -_distances(candidates),
    "odd one out": _distances,
    "most ink": lambda candidates: _features(candidates).sum(1),
    "least ink": lambda candidates: -_features(candidates).sum(1),
    "most things": lambda candidates: np.array([len(scene.things) for scene in candidates.scenes]),
    "fewest things": lambda candidates: -np.array([len(scene.things) for scene in candidates.scenes]),
    "base": lambda candidates: np.arange(10) == candidates.base,
}


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_blind_to_the_text_guess(many, name):
    """Picking by the pictures alone hits 10 %, within 4 sigma; ties share the point."""
    points = []
    for candidates in many:
        scores = np.asarray(SCORERS[name](candidates), dtype=float)
        best = np.isclose(scores, scores.max())
        points += [best[index] / best.sum() for index, _ in candidates.descriptions]
    assert abs(np.mean(points) - 0.1) < 4 * math.sqrt(0.1 * 0.9 / len(points))


def test_a_reader_is_right_with_a_sets_own_texts_and_guesses_with_those_of_others(many):
    """It picks the scene of which most is true; ties share the point."""

    def accuracy(shift):
        points = []
        for candidates, other in zip(many[:300], many[shift : 300 + shift], strict=True):
            for (index, _), (_, text) in zip(candidates.descriptions, other.descriptions, strict=True):
                true = np.asarray([sum(all_true([one], scene) for one in read(text)) for scene in candidates.scenes])
                points.append((true[index] == true.max()) / np.sum(true == true.max()))
        return np.mean(points)

    assert accuracy(0) == 1
    assert accuracy(1) <= 0.13


def test_sets_have_ten_different_scenes_and_different_targets(many):
    for candidates in many[:200]:
        assert len(set(candidates.scenes)) == 10
        assert len({index for index, _ in candidates.descriptions}) == 2


def test_pairs_are_true_of_the_one_and_false_of_the_other(many):
    """By the reader that knows nothing of the statements behind the texts; every kind of statement comes up."""
    texts = []
    for candidates in many[:200]:
        assert {right for right, _, _ in candidates.pairs} <= {index for index, _ in candidates.descriptions}
        for right, wrong, text in candidates.pairs:
            predicates = read(text)
            assert all_true(predicates, candidates.scenes[right])
            assert not all_true(predicates, candidates.scenes[wrong])
            texts.append(text)
    assert len(texts) >= 1900
    for word in ("not", "exactly", "no", "left", "above", "large", "same size", "both", "nothing", "one of the"):
        assert any(word in text for text in texts), word


def test_the_base_may_be_anywhere(many):
    counts = np.bincount([candidates.base for candidates in many], minlength=10) / len(many)
    assert np.all(np.abs(counts - 0.1) < 4 * math.sqrt(0.1 * 0.9 / len(many)))


def test_members_differ_little_from_the_base(many):
    for candidates in many[:200]:
        base = candidates.scenes[candidates.base]
        for scene in candidates.scenes:
            changed = set(scene.things) ^ set(base.things)
            assert len({thing.place for thing in changed}) <= 4
            assert 1 <= len(scene.things) <= 4


def test_splits_share_no_combination_of_names():
    for split in candidate_sets.SPLITS:
        for index in range(30):
            for scene in set_of(split, index, SEEN, HELD_OUT).scenes:
                if split == "unseen":
                    assert set(scene.names) <= set(HELD_OUT)
                    continue
                low, high = candidate_sets.RANGES[split]
                assert low <= share_of(scene.names) < high
                assert set(scene.names) <= set(SEEN)


def test_sets_depend_on_the_seed_and_on_nothing_else():
    assert set_of("test", 3, SEEN, HELD_OUT) == set_of("test", 3, SEEN, HELD_OUT)
    assert set_of("test", 3, SEEN, HELD_OUT) != set_of("test", 3, SEEN, HELD_OUT, seed=1)


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
            assert all(0 <= int(index) < 10 and read(text) for index, text in texts.items())
            assert len(scenes[name]) == 10
        with Image.open(written / "image-sets" / name / "img0.jpg") as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
    unlabelled = json.loads((written / "test_data_unlabeled.json").read_text())
    labels = json.loads((written / "test_data.json").read_text())
    assert unlabelled == {name: list(texts.values()) for name, texts in labels.items()}
    assert "CC-BY 4.0" in (written / "LICENSE-pictograms.txt").read_text()


def test_bytes_do_not_depend_on_the_number_of_processes(written, monkeypatch):
    monkeypatch.setattr(candidate_sets, "CHUNK", 2)
    other = write_imagecode(written.parent / "two", processes=2, **SMALL)
    files = sorted(p.relative_to(written) for p in written.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    assert all((written / p).read_bytes() == (other / p).read_bytes() for p in files)


def test_written_once_and_never_over_other_settings(written):
    before = (written / "train_data.json").stat().st_mtime_ns
    assert write_imagecode(written, processes=1, **SMALL) == written
    assert (written / "train_data.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"seed.*choose another folder"):
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
    folder = write_imagecode(tmp_path / "out", processes=1, pictograms=folder_pictograms(pictures), **SMALL)
    assert not (folder / "LICENSE-pictograms.txt").exists()  # not Twemoji's
    held_out = set(json.loads((folder / "pictograms.json").read_text())["held_out"])
    for scenes in json.loads((folder / "unseen_scenes.json").read_text()).values():
        assert all(held_out & {thing["name"] for thing in scene} for scene in scenes)


def test_a_name_the_texts_use_is_refused(tmp_path):
    pictograms = {
        name: Image.new("RGBA", (8, 8)) for name in "ant bee cat dog elk fox gnu hen ibis jay koi lynx".split()
    }
    pictograms["number one"] = Image.new("RGBA", (8, 8))
    with pytest.raises(ValueError, match=r"'number one'.*rename"):
        write_imagecode(tmp_path / "out", processes=1, pictograms=pictograms, **SMALL)
