"""Preparation: bad pictures, the census, interruptions, two processes at once, pictures that come later."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextjax.types import UserError
from data_pipelines import census
from data_pipelines.datasets import READERS
from data_pipelines.datasets.captions import CaptionsReader
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.datasets.imagecode import ImageCodeReader
from data_pipelines.prepare import prepare
from data_pipelines.records import named_pictures
from data_pipelines.tables import load_split
from tests.data_pipelines.layouts import LAYOUTS

ROOT = Path(__file__).parents[2]


def write_captions(folder: Path, count: int, *, size: int = 12) -> None:
    """Pictures 0.png, 1.png, ... with a caption of as many words as its number says, and one more."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        pixels = rng.integers(0, 256, (size, size + number % 3, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")

        rows.append({"image": f"{number}.png", "caption": " ".join(["word"] * (number + 1))})
    (folder / "train.json").write_text(json.dumps(rows))


def written(folder: Path) -> dict[str, bytes]:
    """All that was prepared, by path, but for the caches of hashes, which hold times."""
    place = folder / "prepared"
    files = (p for p in sorted(place.rglob("*")) if p.is_file() and not p.name.startswith("hashes."))
    return {str(p.relative_to(place)): p.read_bytes() for p in files}


def test_skip_leaves_out_bad_pictures_and_the_records_that_name_them(pictograms_copy):
    reader = CirrReader(pictograms_copy)
    sources, records = reader.pictures("train"), reader.records("train")
    missing, junk = next(iter(sources)), list(sources)[3]
    sources[missing].unlink()
    sources[junk].write_bytes(b"no picture")
    found = load_split(reader, pictograms_copy, "train", size=8, bad_pictures="skip")
    assert found.pictures.ids == [name for name in sources if name not in (missing, junk)]
    assert list(found.records) == [r for r in records if not {missing, junk} & set(named_pictures(r))]
    assert 0 < len(found.records) < len(records)
    assert found.census["records_left_out"] == len(records) - len(found.records)
    assert found.census["left_out"].keys() == {missing, junk}
    assert "has no file" in found.census["left_out"][missing]
    printed = "\n".join(census.lines("train", found.census))
    assert f"2 pictures: {missing}, {junk}" in printed
    with pytest.raises(UserError, match=r"2 problem\(s\)"):  # what skipping has written is never a gallery
        load_split(reader, pictograms_copy, "train", size=8)


def test_mended_pictures_are_taken_in(pictograms_copy):
    reader = CirrReader(pictograms_copy)
    path = list(reader.pictures("val").values())[3]
    content = path.read_bytes()
    path.write_bytes(b"")
    assert len(prepare(reader, pictograms_copy, "val", bad_pictures="skip").ids) == 11
    path.write_bytes(content)
    for policy in ("fail", "skip"):
        found = prepare(reader, pictograms_copy, "val", bad_pictures=policy)
        assert len(found.ids) == 12 and len(found.records) == 12 and not found.census["left_out"]


def test_a_split_without_a_sound_record_is_reported(tmp_path):
    write_captions(tmp_path, 1)
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match="no readable picture"):
        prepare(CaptionsReader(tmp_path), tmp_path, "train", bad_pictures="skip")


def test_an_unknown_policy_is_reported(tmp_path):
    write_captions(tmp_path, 1)
    with pytest.raises(UserError, match=r"data\.bad_pictures is 'ignore'; expected one of fail, skip"):
        prepare(CaptionsReader(tmp_path), tmp_path, "train", bad_pictures="ignore")


def test_the_census_counts(tmp_path):
    write_captions(tmp_path, 5)
    (tmp_path / "4.png").write_bytes((tmp_path / "1.png").read_bytes())
    rows = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps([*rows, rows[2]]))
    found = prepare(CaptionsReader(tmp_path), tmp_path, "train")
    read = json.loads((found.place / "census.captions.train.json").read_text())
    assert read.items() >= found.census.items()
    texts, pictures = read["records"], read["pictures"]
    assert (texts["records"], texts["different_texts"], texts["duplicates"]) == (6, 5, 1)
    assert texts["words"] == {"min": 1, "median": 3, "max": 5} and texts["longest"] == "word word word word word"
    assert pictures["pictures"] == 5 and pictures["duplicates"] == [["1.png", "4.png"]]
    assert pictures["sizes"] == {"smallest": [12, 12], "median": [13, 12], "largest": [14, 12], "different": 3}
    assert pictures["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.png"))


def test_pictures_that_came_later_are_taken_in(tmp_path):
    """The annotations, whose fingerprint names the tables, stay as they are."""
    for number in range(2):
        (tmp_path / "image-sets" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "image-sets" / "a" / f"img{number}.png")
    (tmp_path / "train_data.json").write_text('{"a": {"0": "first", "1": "second"}}')
    ids = lambda: load_split(ImageCodeReader(tmp_path), tmp_path, "train", size=8).records[0].images
    assert ids() == ("a/img0", "a/img1")
    Image.new("RGB", (8, 8)).save(tmp_path / "image-sets" / "a" / "img5.png")
    assert ids() == ("a/img0", "a/img1", "a/img5")
    before = written(tmp_path)
    (tmp_path / "image-sets" / "a" / "img5.png").unlink()  # the table has it: originals may be removed
    assert ids() == ("a/img0", "a/img1", "a/img5") and written(tmp_path) == before


def test_another_picture_under_a_name_is_taken_in_whatever_its_size_and_time(tmp_path):
    write_captions(tmp_path, 4)
    prepared = lambda: prepare(CaptionsReader(tmp_path), tmp_path, "train")
    first = prepared()
    made, status = first.census["made_with"], (tmp_path / "2.png").stat()
    content = (tmp_path / "2.png").read_bytes()
    Image.new("RGB", (14, 12), (0, 0, 255)).save(tmp_path / "2.png")
    with (tmp_path / "2.png").open("ab") as file:
        file.write(b" " * (status.st_size - (tmp_path / "2.png").stat().st_size))
    os.utime(tmp_path / "2.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    second = prepared()
    assert images_of(second)[2] == (tmp_path / "2.png").read_bytes() != content
    assert second.census["made_with"] != made and "1 pictures of split 'train'" in second.notes[0]
    assert "(2.png); it is prepared again" in second.notes[0] and not prepared().notes
    (tmp_path / "2.png").write_bytes(content)
    assert prepared().census["made_with"] == made
    (tmp_path / "2.png").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"2\.png can't be read as a picture"):
        prepared()
    skipped = prepare(CaptionsReader(tmp_path), tmp_path, "train", bad_pictures="skip")
    assert skipped.ids == ["0.png", "1.png", "3.png"] and skipped.census["made_with"] != made


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_touching_copying_and_moving_change_no_identity_and_write_nothing(tmp_path, policy):
    write_captions(tmp_path / "set", 4)
    if policy == "skip":
        (tmp_path / "set" / "1.png").write_bytes(b"junk")
    prepared = lambda folder: prepare(CaptionsReader(folder), folder, "train", bad_pictures=policy)
    first = prepared(tmp_path / "set")
    for path in (tmp_path / "set").glob("*.*"):
        os.utime(path, (9, 9))
    before = written(tmp_path / "set")
    assert prepared(tmp_path / "set").census == first.census and written(tmp_path / "set") == before
    for copy in (shutil.copytree(tmp_path / "set", tmp_path / "copy"), (tmp_path / "set").rename(tmp_path / "moved")):
        found = prepared(copy)
        assert found.census["made_with"] == first.census["made_with"] and not found.notes
        assert found.place.name == first.place.name and written(copy) == before
    shutil.rmtree(copy / "prepared")
    assert prepared(copy).census["made_with"] == first.census["made_with"]


def test_damaged_tables_are_prepared_again(tmp_path):
    write_captions(tmp_path, 4)
    prepared = lambda: prepare(CaptionsReader(tmp_path), tmp_path, "train")
    first, rng = prepared(), np.random.default_rng(0)
    expected = (images_of(first), list(first.records), first.census)
    files = [p for p in first.place.rglob("*") if p.is_file() and p.name != ".lock"]
    for file in files:
        whole = file.read_bytes()
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 4
        for damaged in (b"", whole[:-1], whole + b" ", bytes(flipped)) if whole else (b"x",):
            file.write_bytes(damaged)
            try:
                found = prepared()
                assert (images_of(found), list(found.records), found.census) == expected
            except UserError as error:  # inside a block, which is checked when it is read
                assert "is damaged" in str(error) and "remove it, and it is prepared again" in str(error)
                shutil.rmtree(first.place)
                prepared()
            file = next(p for p in first.place.rglob(file.name) if p.parent == file.parent)


def test_tables_go_to_another_place_where_the_data_can_not_be_written(tmp_path, monkeypatch):
    write_captions(tmp_path / "set", 2)
    (tmp_path / "set" / "prepared").write_text("in the way, whoever runs this")
    reader = CaptionsReader(tmp_path / "set")
    with pytest.raises(UserError, match=r"--prepared=DIR, or --config\.data\.prepared=DIR"):
        prepare(reader, tmp_path / "set", "train")
    found = prepare(reader, tmp_path / "set", "train", place=tmp_path / "tables")
    assert len(found.pictures) == 2 and found.place.is_relative_to(tmp_path / "tables")
    write_captions(tmp_path / "other" / "set", 3)
    other = prepare(CaptionsReader(tmp_path / "other/set"), tmp_path / "other/set", "train", place=tmp_path / "tables")
    assert (
        len(other.pictures) == 3 and len(prepare(reader, tmp_path / "set", "train", place=tmp_path / "tables").ids) == 2
    )


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_composed_in_another_way_are_found(tmp_path, listed, on_disk):
    name = lambda form: unicodedata.normalize(form, "bücher/café.png")
    (tmp_path / name(on_disk)).parent.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / name(on_disk))
    (tmp_path / "train.json").write_text(json.dumps([{"image": name(listed), "caption": "a cup"}]))
    assert prepare(CaptionsReader(tmp_path), tmp_path, "train").ids == [name(listed)]


def files_of(found) -> list[tuple[int, int]]:
    """Device and inode of the files of the pictures."""
    paths = sorted(path for path in found.pictures.folder.rglob("*") if path.is_file())
    assert any(".array_record" in path.name for path in paths)
    return [(path.stat().st_dev, path.stat().st_ino) for path in paths]


@pytest.mark.parametrize(
    ("one", "other"), [(("cirr", "val"), ("cirr_r", "val")), (("circo", "test"), ("circo", "val"))]
)
def test_pictures_that_several_sets_list_are_on_the_disk_once(tmp_path, one, other, edit_json):
    """CIRR's, which have further texts; CIRCO's two splits."""
    LAYOUTS[other[0]](tmp_path)
    load = lambda name, split: prepare(READERS[name](tmp_path), tmp_path, split)
    first, second = load(*one), load(*other)
    assert files_of(first) == files_of(second) and first.pictures.folder != second.pictures.folder
    assert list(first.pictures) == list(second.pictures) and first.ids == second.ids
    assert second.census["pictures"] == first.census["pictures"] and len(second.records)
    before = written(tmp_path)
    assert files_of(load(*other)) == files_of(load(*one)) and written(tmp_path) == before
    READERS[one[0]](tmp_path).pictures(one[1])[first.ids[0]].write_bytes(images_of(first)[1])  # another picture
    edit_json(READERS[other[0]](tmp_path)._files(other[1])[0], lambda rows: rows[:1])
    third = load(*other)
    assert images_of(third)[0] == images_of(third)[1] != images_of(first)[0] and files_of(third) != files_of(first)


def images_of(found) -> list[bytes]:
    return [row["image"] for row in found.pictures]


def test_a_disk_that_can_not_link_has_copies(tmp_path, monkeypatch):
    LAYOUTS["circo"](tmp_path)
    reader = READERS["circo"](tmp_path)
    first = prepare(reader, tmp_path, "test")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    second = prepare(reader, tmp_path, "val")
    assert images_of(second) == images_of(first) and not set(files_of(first)) & set(files_of(second))


def test_a_twin_of_bad_records_is_not_kept(tmp_path, edit_json):
    LAYOUTS["circo"](tmp_path)
    prepare(READERS["circo"](tmp_path), tmp_path, "test")
    edit_json(tmp_path / "annotations/val.json", lambda rows: [rows[0] | {"reference_img_id": 55}])
    prepare(READERS["circo"](tmp_path), tmp_path, "test")
    with pytest.raises(UserError, match="unknown picture 55"):
        prepare(READERS["circo"](tmp_path), tmp_path, "val")
    assert not list((tmp_path / "prepared").rglob("pictures.val.json"))


def test_a_manifest_that_leaves_the_folder_reads_nothing(tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    folder = tmp_path / "set"
    write_captions(folder, 1)
    reader = CaptionsReader(folder)
    reader.pictures = lambda split: {"0.png": folder / "0.png", "x": folder / ".." / "secret.png", "y": secret}
    with pytest.raises(UserError, match=r"2 problem\(s\).*x is .*outside.*y is .*outside"):
        prepare(reader, folder, "train")


def test_a_folder_that_cannot_be_written_is_read_where_it_is_prepared(tmp_path, monkeypatch):
    write_captions(tmp_path, 2)
    reader = CaptionsReader(tmp_path)
    before = prepare(reader, tmp_path, "train")
    (before.place / ".lock").unlink()
    (before.place / ".lock").mkdir()  # can't be opened, whoever runs this
    assert prepare(reader, tmp_path, "train").ids == before.ids


def start(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.data_pipelines.prepares", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    return process


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.001)


MOMENTS = {
    "begun": "tables",
    "incomplete": "*incomplete*",
    "records": "*.array_record*",
    "pictures": "pictures.train.json",
    "captions": "captions.train",
}


@pytest.mark.parametrize(
    "moment",
    [pytest.param("records", marks=pytest.mark.long), *(pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS)],
)
def test_killed_and_run_again_gives_the_same_tables(tmp_path, moment):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write_captions(folder, 60, size=120)
    prepare(CaptionsReader(whole), whole, "train")
    process = start(killed)
    wait_for(lambda: any((killed / "prepared").rglob(MOMENTS[moment])), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    prepare(CaptionsReader(killed), killed, "train")
    assert written(killed) == written(whole)


def test_two_processes_at_once_write_the_tables_of_one(tmp_path):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    for folder in (whole, shared):
        write_captions(folder, 40, size=60)
    prepare(CaptionsReader(whole), whole, "train")
    processes = [start(shared) for _ in range(2)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    assert written(shared) == written(whole)


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_table_is_not_written_again_without_pictures_that_it_alone_holds(tmp_path, policy):
    write_captions(tmp_path, 4)
    prepared = lambda: load_split(CaptionsReader(tmp_path), tmp_path, "train", size=8, bad_pictures=policy)
    before = prepared().identity, written(tmp_path)
    changed = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes((tmp_path / "2.png").read_bytes())
    (tmp_path / "3.png").unlink()
    with pytest.raises(
        UserError, match=r"1 pictures have come or changed \(1.png\).* 1 that were there are gone \(3.png\)"
    ):
        prepared()
    assert written(tmp_path) == before[1]
    (tmp_path / "1.png").write_bytes(changed)
    assert prepared().identity == before[0]
