"""Tests of the index: it grows, shrinks, is read again, and is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from contextjax.serving import segments
from contextjax.serving.attributes import Attributes
from contextjax.serving.index import Index
from contextjax.serving.segments import Segment
from contextjax.serving.storage import pack
from contextjax.types import UserError
from tests.commands import environment
from tests.serving.conftest import brute_force, vectors

ROOT = Path(__file__).parent.parent.parent


def test_an_index_grows_shrinks_and_is_read_again(tmp_path):
    stored = vectors(60)
    names = [f"{i}.png" for i in range(60)]
    index = Index.create(tmp_path / "index", 16, fingerprint="m-1")
    other = Index(tmp_path / "index")  # opened before; sees the change when it changes something itself
    for begin, end in ((0, 10), (10, 11), (11, 12), (12, 40)):
        index.add(names[begin:end], stored[begin:end])
        assert index.search(stored[end - 1 : end], 1)[0][0][0] == names[end - 1]
    other.add(names[40:], stored[40:])
    index.remove(["3.png", "59.png", "11.png"])
    left = [i for i in range(60) if i not in (3, 59, 11)]
    again = Index(tmp_path / "index")
    assert index.names == again.names == [names[i] for i in left] and len(again) == 57
    assert len(again.manifest.segments) < 4
    rows, _ = brute_force(vectors(4, seed=3), stored[left], 5)
    hits = again.search(vectors(4, seed=3), 5)
    assert [[name for name, _ in one] for one in hits] == [[names[left[row]] for row in one] for one in rows]
    assert hits == index.search(vectors(4, seed=3), 5)
    index.remove(index.names)
    with pytest.raises(UserError, match="empty"):
        index.search(stored[:1], 1)


def test_an_open_index_that_has_moved_on_is_read_as_it_is_now(tmp_path):
    """Two changes remove the files that it was opened with."""
    index, names = Index.create(tmp_path / "index", 16), ["a", "b", "c", "d"]
    index.add(names, vectors(4))
    opened, loaded = Index(tmp_path / "index"), Index(tmp_path / "index")
    loaded.load()
    index.remove(["a"])
    index.remove(["b"])
    assert opened.search(vectors(1), 4) == index.search(vectors(1), 4) and opened.names == ["c", "d"]
    assert loaded.search(vectors(1), 1)[0][0][0] == "a"  # what is in memory stays whole
    (file,) = (tmp_path / "index" / segments.FOLDER).glob(index.manifest.segments[0])
    opened = Index(tmp_path / "index")
    file.unlink()
    with pytest.raises(UserError, match="not a whole segment"):  # and nobody has moved on
        opened.search(vectors(1), 1)


def test_an_index_that_moves_on_while_it_is_opened_is_read_as_it_is_now(tmp_path, monkeypatch):
    index = Index.create(tmp_path / "index", 16)
    index.add(["a", "b", "c"], vectors(3))
    read = segments.read_manifest

    def slow(folder):
        manifest = read(folder)
        monkeypatch.setattr(segments, "read_manifest", read)
        index.remove(["a"])
        index.remove(["b"])
        return manifest

    monkeypatch.setattr(segments, "read_manifest", slow)
    assert Index(tmp_path / "index").names == ["c"]


def test_segments_are_on_the_disk_before_the_manifest_and_it_before_the_change_returns(tmp_path, monkeypatch):
    """Counts an fsync of each file, and one of its folder after it has its name."""
    done, sync, replace = [], os.fsync, Path.replace
    where = lambda handle: Path(f"/proc/self/fd/{handle}").readlink().name
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(("sync", where(handle))), sync(handle)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append(("move", Path(b).name)), replace(a, b))[1])
    index = Index.create(tmp_path / "index", 16)
    done.clear()
    index.add(["a"], vectors(1))
    (file,) = index.manifest.segments
    kinds = [(kind, name if kind == "move" or "partial" not in name else "file") for kind, name in done]
    assert kinds == [
        ("sync", "file"), ("move", file), ("sync", segments.FOLDER),
        ("sync", "file"), ("move", segments.MANIFEST), ("sync", "index"),
    ]  # fmt: skip
    left_behind(index, ["b"], vectors(1))
    done.clear()
    index.update({"a": [0, 0], "b": [0, 0]})
    assert done[0] == ("sync", segments.FOLDER) and done[2:] == [("move", segments.MANIFEST), ("sync", "index")]


def test_searches_have_a_threshold_and_a_filter_by_attributes_that_stay(tmp_path):
    names, stored = [f"{row}.png" for row in range(40)], vectors(40)
    index = Index.create(tmp_path, 16)
    index.add(names[:30], stored[:30])
    query = vectors(1, seed=1)
    prices = Attributes([f"{row}.png" for row in range(10, 60)], {"price": [*range(10, 60)]})
    assert index.kinds == {} and index.set_attributes(prices) == 20 and index.kinds == {"price": "number"}
    best = index.search(query, 30)[0]
    keep = lambda low: [hit for hit in best if low <= int(hit[0][:-4])]
    assert index.search(query, 30, where="price >= 15")[0] == keep(15)
    assert index.search(query, 3, where="price >= 15")[0] == keep(15)[:3]
    assert index.search(query, 30, where="price > 100")[0] == []
    least = best[7][1]
    assert index.search(query, 30, threshold=least)[0] == best[:8]
    index.add(names[30:], stored[30:])
    index.remove(["20.png"])
    for each in (index, Index(tmp_path)):
        hits = each.search(query, 40, where="price >= 15")[0]
        assert {name for name, _ in hits} == {f"{row}.png" for row in range(15, 40) if row != 20}
    with pytest.raises(UserError, match="names the attribute 'size'"):
        index.search(query, 3, where="size = 1")
    with pytest.raises(UserError, match="No row of the table is of a picture in"):
        index.set_attributes(Attributes(["x.png"], {"price": [1]}))


def test_an_index_that_moves_with_its_gallery_finds_it(tmp_path):
    (tmp_path / "one" / "pictures").mkdir(parents=True)
    place = tmp_path / "one" / "pictures"
    assert Index.create(tmp_path / "one" / "index", 16, gallery=str(place)).gallery == str(place)
    (tmp_path / "one").rename(tmp_path / "two")
    assert Index(tmp_path / "two" / "index").gallery == str(tmp_path / "two" / "pictures")
    (tmp_path / "two" / "pictures").rmdir()
    assert Index(tmp_path / "two" / "index").gallery == str(place)


def left_behind(index, names, rows):
    """Writes a segment that does not count yet, as a killed run does."""
    return Segment.write(index.folder, names, np.zeros((len(names), 2), np.int64), pack(rows, index.manifest.storage))


def test_a_name_comes_once_whatever_segments_are_left_behind(tmp_path):
    index = Index.create(tmp_path / "index", 16)
    index.add(["a", "b"], vectors(2))
    old, stored, now = Index(tmp_path / "index"), vectors(6, seed=1), {name: [0, 0] for name in "bcd"}
    for names, rows in ((["b", "c"], stored[:2]), (["d", "c"], stored[[3, 1]]), (["x"], stored[4:5])):
        left_behind(index, names, rows)
    assert index.missing(now | {"e": [0, 0], "a": [0, 1]}) == {"e": [0, 0], "a": [0, 1]}
    with pytest.raises(UserError, match="'e' are in no segment"):
        index.update(now | {"e": [0, 0]})
    assert Index(tmp_path / "index").names == ["a", "b"]
    index.update(now)
    assert index.names == Index(tmp_path / "index").names == ["b", "c", "d"]
    expected = np.concatenate([vectors(2)[1:], stored[1:2], stored[3:4]])
    for row, name in enumerate("bcd"):
        assert index.search(expected[row : row + 1], 1)[0][0][0] == name
    assert {path.name for path in (tmp_path / "index" / segments.FOLDER).iterdir()} == {
        *index.manifest.segments, *old.manifest.segments
    }  # fmt: skip
    with pytest.raises(UserError, match="Another process has changed"):
        old.update(now)


@pytest.mark.parametrize("stamps", [np.zeros((1, 2), np.int64), np.zeros(2, np.int64), np.zeros((2, 2))])
def test_stamps_of_another_length_leave_the_index_as_it_is(tmp_path, stamps):
    index = Index.create(tmp_path, 16)
    with pytest.raises(UserError, match=r"The stamps are .*; expected int64 \[2, 2\]"):
        index.add(["a", "b"], vectors(2), stamps=stamps)
    index.add(["a", "b"], vectors(2))
    assert Index(tmp_path).names == ["a", "b"]


def test_mistakes_are_refused(tmp_path):
    index = Index.create(tmp_path, 16, fingerprint="m-1")
    index.add(["a", "b"], vectors(2))
    for call, sentence in (
        (lambda: index.add(["c", "c"], vectors(2)), "'c' come"),
        (lambda: index.add(["b"], vectors(1)), r"has 'b' already"),
        (lambda: index.add(["c\udcff"], vectors(1)), r"'c\\udcff' can't be written in UTF-8"),
        (lambda: index.add(["c"], vectors(1, 8)), r"\[1, 8\]; expected \[1, 16\]"),
        (lambda: index.add(["c"], np.full((1, 16), np.nan)), "not finite"),
        (lambda: index.remove(["x"]), "has no 'x'"),
        (lambda: index.search(vectors(1, 8), 1), r"\[1, 8\]; expected \[B, 16\]"),
        (lambda: index.search(vectors(1), 0), "k is 0"),
        (lambda: index.check("m-2"), "of the model m-1, but this one is m-2"),
        (lambda: Index.create(tmp_path, 16), "index already"),
        (lambda: Index.create(tmp_path / "new", 16, storage="int4"), "'int4'; expected one of float32"),
        (lambda: Index(tmp_path / "none"), "no index at"),
    ):
        with pytest.raises(UserError, match=sentence):
            call()
    assert index.names == ["a", "b"] == Index(tmp_path).names


@pytest.mark.slow
def test_killed_at_any_moment_it_is_the_old_index_or_the_new(tmp_path):
    """Every state is of whole changes: three of a step are there, or two, and all of the steps before."""
    rng, steps = np.random.default_rng(0), []
    for attempt in range(12):
        folder = tmp_path / str(attempt)
        Index.create(folder, 16)
        command = [sys.executable, "-m", "tests.serving.changes_index", str(folder)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        steps_done = [int(line) for line in process.communicate()[0].split()]
        done = max(steps_done, default=0)
        index = Index(folder)
        states = []
        for last in (done, done + 1):
            whole = [f"{step}-{i}" for step in range(last) for i in (1, 2)]
            states += [whole, [*whole, *(f"{last}-{i}" for i in range(3))]]
        assert index.names in states
        assert sum(len(packed.vectors) for packed in index.embeddings()) == len(index)
        index.add(["after"], np.full((1, 16), 0.25))  # what the killed one left is in nobody's way
        steps.append(done)
    assert max(steps) > 0
