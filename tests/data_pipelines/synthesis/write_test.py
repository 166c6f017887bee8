"""Files are whole or not there, and pictures of any name and place are copied."""

import json
import os
import resource
import signal

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from contextjax.types import UserError
from data_pipelines.datasets import READERS
from data_pipelines.synthesis.drafts import Draft, Sentence, Thing
from data_pipelines.synthesis.pairs import folder_pictures
from data_pipelines.synthesis.pipeline import run_pipeline
from data_pipelines.synthesis.write import check_source, check_target, cirr_names, remove_stale, write_set
from data_pipelines.tables import load_split
from tests.data_pipelines.synthesis.conftest import saying


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def written(draft_texts, folder, target, split="train"):
    drafts = [
        Draft(
            a,
            b,
            reference_things=(Thing("x", a),),
            target_things=(Thing("x", b),),
            sentences=tuple(map(Sentence, texts)),
        )
        for a, b, texts in draft_texts
    ]
    return write_set(drafts, folder_pictures(folder), target, split)


def test_any_folder_becomes_a_set_in_three_layouts(make_pipeline, pairs, pictures_folder, tmp_path):
    target = tmp_path / "set"
    pipeline = make_pipeline(saying("Add a dog.", "Make it \N{SNOWMAN}."))
    found = write_set(run_pipeline(pairs, pipeline), pipeline.pictures, target, "train")
    # of the two pairs with one reference, the same texts are ambiguous
    assert (found.pairs, found.triplets, found.pictures, dict(found.removed)) == (3, 2, 2, {"ambiguous": 4})
    for reader in ("manifest", "cirr_r", "cirr"):
        data = load_split(READERS[reader](target), target, "train", size=8)
        assert [r.text for r in data.records] == ["Add a dog.", "Make it \N{SNOWMAN}."][: 1 if reader == "cirr" else 2]
    assert (target / "img_raw/sub/d.webp").read_bytes() == (pictures_folder / "sub/d.webp").read_bytes()
    assert not any(".partial" in name for name in files_of(target))


def test_unreadable_pictures_and_pairs_of_one_are_reported_and_the_rest_goes_on(
    make_pipeline, pictures_folder, tmp_path
):
    (pictures_folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no")
    (pictures_folder / "same.png").write_bytes((pictures_folder / "a.png").read_bytes())
    (pictures_folder / "huge.png").write_bytes(b"")
    os.truncate(pictures_folder / "huge.png", 300_000_000)
    bad = [Draft("a.png", "broken.png"), Draft("a.png", "same.png"), Draft("huge.png", "a.png")]
    pairs = [*bad[:2], Draft("b.jpg", "a.png"), bad[2], Draft("sub/c.png", "sub/c.png")]
    model = saying("Add a dog.")
    pipeline = make_pipeline(model)
    drafts = list(run_pipeline(pairs, pipeline))
    found = write_set(drafts, pipeline.pictures, tmp_path / "set", "train")
    assert (found.triplets, dict(found.problems)) == (1, {"check pair": 4})
    assert [bool(draft.problem) for draft in drafts] == [True, True, False, True, True]
    assert "can't be read" in drafts[0].problem and "are one" in drafts[1].problem and "bytes" in drafts[3].problem
    assert len(model.asked) == 3  # nothing is paid for such pairs


@hypothesis.given(st.lists(st.text("ab/.-", min_size=1).map(lambda s: s + ".png") | st.just("a.jpg"), unique=True))
def test_names_are_as_cirr_has_them_and_different(ids):
    names = cirr_names(ids)
    assert len(set(names.values())) == len(ids)
    assert all(name and "/" not in name for name in names.values())


def test_a_split_beside_another_and_the_same_again(pictures_folder, tmp_path):
    target = tmp_path / "set"
    rows = [("a.png", "b.jpg", ["Add a dog."]), ("b.jpg", "sub/c.png", [])]
    written(rows, pictures_folder, target)
    before = {name: (target / name).read_bytes() for name in files_of(target)}
    written(rows, pictures_folder, target)
    assert before == {name: (target / name).read_bytes() for name in files_of(target)}
    written(rows[:1], pictures_folder, target, "val")
    assert READERS["manifest"](target).splits == ("train", "val")
    check_target(target)
    check_source(target, pictures_folder)


def test_pictures_of_another_folder_may_have_the_same_names(pictures_folder, tmp_path):
    target = tmp_path / "set"
    written([("a.png", "b.jpg", ["Add a dog."])], pictures_folder, target)
    with pytest.raises(UserError, match=r"made of the pictures of .*pictures, and this run's are of .*others"):
        check_source(target, tmp_path / "others")


def test_what_killed_runs_have_left_is_removed(pictures_folder, tmp_path):
    target = tmp_path / "set"
    written([("a.png", "sub/c.png", ["Add a dog."])], pictures_folder, target)
    before, kept = files_of(target), "synthesis/galleries/x/.index.json.7.partial"
    for name in (".train.jsonl.7.partial", "img_raw/sub/.c.png.7.partial", "synthesis/.drafts.7.partial", kept):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("half")
    remove_stale(target)
    assert files_of(target) == before | {kept}


def test_a_picture_that_changed_is_written_again(pictures_folder, tmp_path):
    rows = [("a.png", "b.jpg", ["Add a dog."])]
    written(rows, pictures_folder, tmp_path / "set")
    replaced = pictures_folder / "new.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(replaced)
    replaced.replace(pictures_folder / "a.png")
    written(rows, pictures_folder, tmp_path / "set")
    assert (tmp_path / "set/img_raw/a.png").read_bytes() == (pictures_folder / "a.png").read_bytes()


def test_no_triplet_leaves_the_last_set_alone_and_says_why(pictures_folder, tmp_path):
    target = tmp_path / "set"
    written([("a.png", "b.jpg", ["Add a dog."])], pictures_folder, target)
    before = (target / "train.jsonl").read_text()
    assert written([("a.png", "b.jpg", [])], pictures_folder, target).triplets == 0
    assert (target / "train.jsonl").read_text() == before
    assert json.loads((target / "synthesis/drafts.train.jsonl").read_text())["sentences"] == []


def test_a_full_disk_is_reported_and_leaves_no_half_of_a_set(pictures_folder, tmp_path):
    """The system refuses what is written beyond a limit, as it does on a full disk."""
    target, rows = tmp_path / "set", [("a.png", "b.jpg", ["Add a dog."])]
    written(rows, pictures_folder, target)
    before = {name: (target / name).read_bytes() for name in files_of(target)}
    many = [("a.png", "b.jpg", [f"Add dog {number}."]) for number in range(4000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(UserError, match=r"can't be written .*make room"):
            written(many, pictures_folder, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert before == {name: (target / name).read_bytes() for name in files_of(target)}


def test_a_folder_of_something_else_is_left_alone(pictures_folder):
    with pytest.raises(UserError, match="holds something else"):
        check_target(pictures_folder)


def test_a_folder_without_pictures_is_reported(tmp_path):
    with pytest.raises(UserError, match="holds no pictures"):
        folder_pictures(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        folder_pictures(tmp_path / "nowhere")
