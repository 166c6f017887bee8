"""Tests of embedding a gallery: new, changed and removed pictures, bad ones, interrupted work, memory."""

import concurrent.futures
import contextlib
import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextjax.serving import embedding, segments
from contextjax.serving.embedding import embed
from contextjax.serving.gallery import Gallery, folder_gallery, listed_gallery
from contextjax.serving.index import Index
from contextjax.types import UserError
from tests.commands import environment
from tests.photographs import NAMES, photograph

ROOT = Path(__file__).parent.parent.parent


class Colours:
    """Embeds a picture as its mean colour; counts the pictures it is given, and stops after some, as one killed."""

    image_size, fit = 8, "crop"

    def __init__(self, *, last=10**9, identity="colours-1", seconds=0):
        self.encoded, self.last, self.identity, self.seconds = [], last, identity, seconds

    def encode_gallery(self, images):
        if sum(self.encoded) > self.last:
            raise KeyboardInterrupt
        self.encoded.append(len(images))
        time.sleep(self.seconds)
        means = np.stack([1 + image.mean((0, 1)) for image in images]).astype(np.float32)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(embedding, "SEGMENT", 6)
    monkeypatch.setattr(embedding, "BATCH", 4)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "gallery"
    place.mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).save(place / f"{i:02d}.png")
    return place


def rows(index):
    """Returns the embedding of each name."""
    return {
        name: row
        for segment, packed in zip(index.segments, index.embeddings(), strict=True)
        for name, row in zip(segment.names, packed.vectors.tolist(), strict=True)
    }


def files(index):
    """Returns the contents of the index's files."""
    return {segment.path.name: segment.path.read_bytes() for segment in index.segments}


def counts(index):
    return [len(segment.names) for segment in index.segments]


def test_only_what_changed_is_embedded_again(folder, tmp_path):
    system, target = Colours(), tmp_path / "index"
    index = embed(system, folder_gallery(folder), target)
    assert index.names == [f"{i:02d}.png" for i in range(20)] and sum(system.encoded) == 21  # one tells the dimension
    assert counts(embed(system, folder_gallery(folder), target)) == [6, 6, 6, 2]
    assert sum(system.encoded) == 21 and not (target / embedding.TODO).exists()
    before = rows(index)
    (folder / "03.png").unlink()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(folder / "07.png")
    Image.new("RGB", (9, 9), (200, 2, 3)).save(folder / "20.png")
    after = rows(embed(system, folder_gallery(folder), target))
    assert sum(system.encoded) == 23 and list(after)[-2:] == ["07.png", "20.png"] and "03.png" not in after
    assert all(after[name] == value for name, value in before.items() if name not in ("03.png", "07.png"))
    assert after["07.png"] != before["07.png"] and len(after) == 20


def test_a_moved_copied_or_renamed_gallery_is_not_embedded_again(folder, tmp_path):
    system, target = Colours(), tmp_path / "index"
    before = rows(embed(system, folder_gallery(folder), target))
    moved = folder.rename(tmp_path / "moved")
    for path in moved.iterdir():
        os.utime(path, (7, 7))
    assert rows(embed(system, folder_gallery(moved), target)) == before and Index(target).gallery == str(moved)
    (moved / "00.png").rename(moved / "zero.png")
    assert rows(embed(system, folder_gallery(moved), target)) == {
        **{name: row for name, row in before.items() if name != "00.png"}, "zero.png": before["00.png"]
    }  # fmt: skip
    assert sum(system.encoded) == 21
    copied = Path(shutil.copytree(moved, tmp_path / "copied"))
    index = embed(system, folder_gallery(copied), tmp_path / "second", others=[target, tmp_path / "none"])
    assert rows(index) == rows(Index(target)) and sum(system.encoded) == 22  # one tells the dimension
    (target / segments.MANIFEST).write_text("{")
    index = embed(Colours(), folder_gallery(copied), tmp_path / "third", others=[target])
    assert rows(index) == rows(Index(tmp_path / "second"))


def test_an_index_follows_a_copy_of_its_gallery_and_no_other_one(folder, tmp_path):
    system, target = Colours(), tmp_path / "index"
    before = rows(embed(system, folder_gallery(folder), target))
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    for row in range(9):
        (copied / f"{row:02d}.png").unlink()
    assert len(embed(system, folder_gallery(copied), target)) == 11 and Index(target).gallery == str(copied)
    assert rows(embed(system, folder_gallery(copied), target)).items() <= before.items()
    for row in range(9, 20):
        Image.new("RGB", (9, 9), (row, 200, 3)).save(folder / f"{row:02d}.png")  # equal names, other contents
    with pytest.raises(UserError, match=r"is an index of the gallery .*copied, not"):
        embed(system, folder_gallery(folder), target)
    assert Index(target).gallery == str(copied)


def test_another_picture_of_the_same_size_and_time_is_embedded(folder, tmp_path):
    target, status = tmp_path / "index", (folder / "03.png").stat()
    before = rows(embed(Colours(), folder_gallery(folder), target))
    content = (folder / "04.png").read_bytes()[: status.st_size].ljust(status.st_size)
    (folder / "03.png").write_bytes(content)
    os.utime(folder / "03.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    after = embed(Colours(), folder_gallery(folder), target)
    assert rows(after).get("03.png") != before["03.png"] and len(after) + len(after.skipped) == 20


def test_bad_pictures_are_skipped_and_named_once(folder, tmp_path):
    (folder / "04.png").write_bytes(b"")
    (folder / "05.png").write_bytes((folder / "06.png").read_bytes()[:60])
    system, target = Colours(), tmp_path / "index"
    index = embed(system, folder_gallery(folder), target)
    assert len(index) == 18 and [bad.name for bad in index.skipped] == ["04.png", "05.png"]
    assert "04.png can't be read" in embedding.describe_skipped(index.skipped)
    embed(system, folder_gallery(folder), target)
    assert sum(system.encoded) == 19
    Image.new("RGB", (9, 9)).save(folder / "04.png")
    again = embed(system, folder_gallery(folder), target)
    assert again.names[-1] == "04.png" and [bad.name for bad in again.skipped] == ["05.png"]
    assert Index(target).skipped == again.skipped


def test_a_disk_that_fails_ends_the_run_and_no_picture_is_lost(folder, tmp_path, monkeypatch):
    target, read = tmp_path / "index", Path.read_bytes
    (folder / "14.png").unlink()
    gallery = folder_gallery(folder)
    (folder / "16.png").unlink()  # it is bad, not the disk

    def failing(path):
        if path.name == "15.png":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    system = Colours()
    with pytest.raises(UserError, match=r"15\.png can't be read .*Input/output error.* run the same command again"):
        embed(system, gallery, target)
    monkeypatch.setattr(Path, "read_bytes", read)
    index = embed(rest := Colours(), gallery, target)
    assert "15.png" in index.names and [bad.name for bad in index.skipped] == ["16.png"]
    assert sum(system.encoded) >= 12 and sum(rest.encoded) <= 6  # the first segments are kept


def test_a_name_that_no_file_can_have_is_a_bad_picture(folder, tmp_path):
    (folder / "list.txt").write_text(f"00.png\n{'x' * 300}.png\n00.png/y.png\n")
    index = embed(Colours(), listed_gallery(folder / "list.txt"), tmp_path / "index")
    assert index.names == ["00.png"] and len(index.skipped) == 2


@pytest.mark.parametrize("last", [0, 1, 7, 9, 14, 16])
def test_interrupted_it_goes_on_and_the_index_is_the_same(folder, tmp_path, last):
    (folder / "04.png").write_bytes(b"")
    whole = embed(Colours(), folder_gallery(folder), tmp_path / "whole")
    target = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        embed(system := Colours(last=last), folder_gallery(folder), target)
    rest = Colours()
    index = embed(rest, folder_gallery(folder), target)
    assert files(index) == files(whole) and index.manifest.segments == whole.manifest.segments
    assert sum(system.encoded) + sum(rest.encoded) <= 20 + embedding.SEGMENT + 1  # a part is lost, no more


@pytest.mark.parametrize("committed", [False, True])
def test_a_kill_around_the_change_of_the_index_adds_nothing_twice(folder, tmp_path, monkeypatch, committed):
    target, update = tmp_path / "index", Index.update

    def killed(*given):
        if committed:
            update(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Index, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        embed(Colours(), folder_gallery(folder), target)
    monkeypatch.setattr(Index, "update", update)
    index = embed(Colours(last=-1), folder_gallery(folder), target)  # encodes nothing
    assert index.names == [f"{i:02d}.png" for i in range(20)] and not (target / embedding.TODO).exists()


def test_pictures_that_change_meanwhile_are_seen_by_the_next_run(folder, tmp_path):
    target = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        embed(Colours(last=9), folder_gallery(folder), target)
    (folder / "19.png").unlink()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(folder / "00.png")
    index = embed(Colours(), folder_gallery(folder), target)
    fresh = embed(Colours(), folder_gallery(folder), tmp_path / "fresh")
    assert rows(index) == rows(fresh) and index.skipped == []


def test_two_at_once_take_turns_and_the_index_is_that_of_one(folder, tmp_path):
    target, systems = tmp_path / "index", [Colours(seconds=0.05), Colours(seconds=0.05)]
    alone = embed(Colours(), folder_gallery(folder), tmp_path / "alone")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda system: embed(system, folder_gallery(folder), target), systems))
    assert sorted(sum(system.encoded) for system in systems) == [0, 21]  # one had it all done
    assert files(made[0]) == files(made[1]) == files(Index(target)) == files(alone)


def test_an_index_that_changes_meanwhile_is_left_as_it_is(folder, tmp_path, monkeypatch):
    """On a file system without locks; elsewhere the change waits."""
    target = tmp_path / "index"
    monkeypatch.setattr(embedding, "locked", lambda place: contextlib.nullcontext())

    class Meddling(Colours):
        def encode_gallery(self, images):
            if sum(self.encoded) == 17:
                Index(target).add(["19.png"], np.full((1, 3), 0.5))
            return super().encode_gallery(images)

    with pytest.raises(UserError, match=r"changed .* meanwhile; run the same command again"):
        embed(Meddling(), folder_gallery(folder), target)
    assert Index(target).names == ["19.png"]
    assert sorted(embed(Colours(), folder_gallery(folder), target).names) == [f"{i:02d}.png" for i in range(20)]


def test_a_kill_loses_no_segment_when_the_gallery_changes_or_segments_have_another_size(folder, tmp_path, monkeypatch):
    target = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        embed(Colours(last=13), folder_gallery(folder), target)  # two segments are done
    Image.new("RGB", (9, 9), (1, 2, 3)).save(folder / "000.png")
    monkeypatch.setattr(embedding, "SEGMENT", 5)
    index = embed(rest := Colours(), folder_gallery(folder), target)
    assert rows(index) == rows(embed(Colours(), folder_gallery(folder), tmp_path / "fresh"))
    assert sum(rest.encoded) == 9 and sorted(counts(index)) == [4, 5, 6, 6]


def test_a_damaged_segment_of_a_killed_run_is_made_again(folder, tmp_path):
    target = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        embed(Colours(last=13), folder_gallery(folder), target)
    file = next((target / segments.FOLDER).iterdir())
    file.write_bytes(file.read_bytes()[:-5])
    index = embed(Colours(), folder_gallery(folder), target)
    assert files(index) == files(embed(Colours(), folder_gallery(folder), tmp_path / "whole"))


@pytest.mark.parametrize("changed", ["system", "storage"])
def test_segments_of_another_system_or_storage_are_not_taken(folder, tmp_path, changed):
    """The killed run's manifest is gone, its segments are not."""
    target = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        embed(Colours(last=13), folder_gallery(folder), target)
    (target / segments.MANIFEST).unlink()
    system, storage = (Colours(identity="colours-2"), None) if changed == "system" else (Colours(), "int8")
    assert len(embed(system, folder_gallery(folder), target, storage=storage)) == 20 and sum(system.encoded) == 21


def test_a_process_that_does_not_see_the_first_one_s_folder_ends(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "is_first_process", lambda: False)
    with pytest.raises(UserError, match=r"no todo\.json in .*; give a folder that all processes see"):
        embed(Colours(), folder_gallery(folder), tmp_path / "index")


def test_few_pictures_are_decoded_at_a_time(tmp_path):
    """Counts the pictures that were asked for and are not yet embedded."""
    asked, system = [], Colours()
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)

    def picture(name):
        asked.append(name)
        assert len(asked) - sum(system.encoded) <= 2 * embedding.BATCH + 8
        return noise

    names = [str(i) for i in range(500)]
    gallery = Gallery("made up", names, picture, np.zeros((500, 2), np.int64))
    assert embed(system, gallery, tmp_path / "index").names == names == sorted(asked, key=int)


def test_mistakes_are_refused(folder, tmp_path):
    target = tmp_path / "index"
    embed(Colours(), folder_gallery(folder), target, storage="int8")
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.png").write_bytes(b"")
    for system, gallery, options, sentence in (
        (Colours(identity="colours-2"), folder, {}, "of the model colours-1, but this one is colours-2"),
        (Colours(), folder, {"storage": "float32"}, "storage int8, not float32"),
    ):
        with pytest.raises(UserError, match=sentence):
            embed(system, folder_gallery(gallery), target, **options)
    with pytest.raises(UserError, match=r"1 picture.* can't be read"):
        embed(Colours(), folder_gallery(other), tmp_path / "bad")
    Image.new("RGB", (4, 4)).save(other / "x.png")
    with pytest.raises(UserError, match="of the gallery"):
        embed(Colours(), folder_gallery(other), target)
    with pytest.raises(UserError, match="int4"):
        embed(Colours(), folder_gallery(other), tmp_path / "new", storage="int4")
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_several_processes_share_the_work_and_the_index_is_the_same(folder, tmp_path):
    """Segments 0 and 2 are the first process's, which also encodes a blank picture; 1 and 3 the second's."""
    alone = embed(Colours(), folder_gallery(folder), tmp_path / "alone")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    of = {"CONTEXTJAX_COORDINATOR": address, "CONTEXTJAX_PROCESSES": "2"}
    command = [sys.executable, "-m", "tests.serving.embeds", str(folder), str(tmp_path / "index"), "0"]
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environment(**of, CONTEXTJAX_PROCESS=str(i)), stdout=subprocess.PIPE)
        for i in range(2)
    ]
    said = [process.communicate(timeout=120)[0].split() for process in running]
    assert said == [[b"ready", b"13", b"20"], [b"ready", b"8", b"20"]]
    assert files(Index(tmp_path / "index")) == files(alone)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_the_index_is_the_same(folder, tmp_path):
    """Kills the command and starts it again, until it is through."""
    rng, kills = np.random.default_rng(0), 0
    alone = files(embed(Colours(), folder_gallery(folder), tmp_path / "alone"))
    for attempt in range(3):
        target = tmp_path / str(attempt)
        command = [sys.executable, "-m", "tests.serving.embeds", str(folder), str(target), "0.1"]
        for tries in range(10):
            process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE)
            assert process.stdout.readline() == b"ready\n"
            try:
                process.wait(rng.uniform(0.2, 0.5) * (1 + tries))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            process.communicate()
            if process.returncode == 0:
                break
        assert process.returncode == 0 and files(Index(target)) == alone
    assert kills >= 3


def test_a_photograph_that_is_smaller_and_compressed_again_finds_itself(system, tmp_path):
    """In a gallery of crops of four photographs, of which some overlap."""
    (tmp_path / "crops").mkdir()
    for name in NAMES:
        picture = photograph(name)
        side = min(picture.size)
        for part, left in enumerate(np.linspace(0, picture.width - side, 3)):
            cut = picture.crop((int(left), 0, int(left) + side, side - 60 * part))
            cut.save(tmp_path / "crops" / f"{name}-{part}.png")
    index = embed(system, folder_gallery(tmp_path / "crops"), tmp_path / "index")
    for path in sorted((tmp_path / "crops").iterdir()):
        picture = Image.open(path)
        picture.resize((picture.width // 2, picture.height // 2)).save(tmp_path / "query.jpg", quality=85)
        vector = system.encode_gallery([Image.open(tmp_path / "query.jpg")])
        assert index.search(vector, k=1)[0][0][0] == path.name
