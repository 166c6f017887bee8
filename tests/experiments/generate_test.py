"""generate: the same seed is not written twice, and bad pictures are one sentence."""

import functools
import json
import re

import pytest
from PIL import Image

from data_pipelines.datasets.pictograms import cirr_layout, imagecode_layout
from tests.commands import in_process

NAMES = "ant bee cat dog elk fox grapes hen ibis jay koi lynx mole newt owl pig quail rat scissors toad".split()


@pytest.fixture
def pictures(tmp_path):
    """A folder of twenty pictures of one's own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (20, 20), (12 * number, 99, 255 - 12 * number)).save(folder / f"{name}.png")
    return folder


def generate(folder, *flags):
    return in_process("generate", f"--target={folder.parent / 'set'}", f"--pictograms={folder}", *flags)


@pytest.mark.long
def test_both_layouts_are_made_of_a_folder_with_the_default_flags(pictures, monkeypatch):
    """The splits are small here; the flags are the defaults."""
    write_cirr, write_sets = cirr_layout.write_cirr, imagecode_layout.write_imagecode

    def few_groups(folder, *, train_groups, **options):
        few = {"val_groups": 2, "test_groups": 2, "unseen_groups": 2}
        return write_cirr(folder, train_groups=train_groups // 1500, **few, **options)

    def few_sets(folder, *, train_sets, **options):
        return write_sets(folder, train_sets=train_sets // 1000, val_sets=2, test_sets=1, unseen_sets=1, **options)

    monkeypatch.setattr(cirr_layout, "write_cirr", few_groups)
    monkeypatch.setattr(imagecode_layout, "write_imagecode", few_sets)
    monkeypatch.setattr(imagecode_layout, "comparison_bound", lambda: 43.21)
    done = generate(pictures, "--comparative")
    assert done.returncode == 0, done.stderr
    assert "bound/comparative: 43.2 % for a model that sees one candidate at a time" in done.stdout
    made = pictures.parent / "set"
    assert json.loads((made / "contextual/bounds.json").read_text()) == {"comparative": 43.21}
    queries = json.loads((made / "cirr/captions/cap.rc2.train.json").read_text())
    sets = json.loads((made / "imagecode/train_data.json").read_text())
    texts = [query["caption"] for query in queries] + [text for each in sets.values() for text in each.values()]
    texts += [each["caption"] for each in json.loads((made / "cirr/image_captions/captions.train.json").read_text())]
    assert len(queries) == 4 * 24 and len(sets) == 3
    assert any("pair of scissors" in text or "bunch of grapes" in text for text in texts)
    assert not any(re.search(r"\ban? (?:\w+ )?(grapes|scissors)\b", text.lower()) for text in texts)


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        (("a.svg", "b.SVG"), ("has pictures of kinds that are not read (a.svg, b.SVG)", ".png, .jpg, .jpeg, .webp")),
        (("small.png", "left one.png", "x&y.png"), ("the pictogram names 'left one', 'small', 'x&y'", "rename")),
        (("Dog.webp", "koi.jpg"), ("Dog.webp and dog.png have one name", "koi.jpg and koi.png have one name")),
        (("plural.txt",), ("plural.txt has 'x'; expected lines such as 'grapes: bunch'",)),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_all_that_is_wrong(pictures, name, sentences):
    for each in name:
        path = pictures / each
        path.write_text("x") if path.suffix.lower() in (".svg", ".txt") else Image.new("RGB", (9, 9)).save(path)
    (pictures / "._dog.png").write_text("of macOS")
    (pictures / "LICENSE").write_text("mine")
    done = generate(pictures)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert all(sentence in done.stderr for sentence in sentences), done.stderr
    assert not (pictures.parent / "set").exists()


def test_pictures_that_are_broken_or_not_there_are_named(pictures):
    (pictures / "dog.png").write_bytes((pictures / "dog.png").read_bytes()[:40])
    (pictures / "cat.png").write_bytes(b"")
    assert "cat.png can't be read as a picture, dog.png can't be read as a picture" in generate(pictures).stderr
    assert "/none is not there; expected a folder" in generate(pictures / "none").stderr


def test_too_few_pictures_for_what_is_asked_are_one_sentence(pictures, monkeypatch):
    from data_pipelines.datasets.pictograms import groups

    monkeypatch.setattr(groups, "MAX_TRIES", 20)
    for name in NAMES[13:]:
        (pictures / f"{name}.png").unlink()
    few = functools.partial(cirr_layout.write_cirr, processes=1)
    monkeypatch.setattr(cirr_layout, "write_cirr", few)
    done = generate(pictures, "--train_groups=1")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert re.search(r"Got \d+ pictograms, too few for \d+ groups in the split '\w+' \(\d+ were found\)", done.stderr)


def test_sets_that_compare_need_sets(pictures):
    done = generate(pictures, "--comparative", "--train_sets=0")
    assert done.returncode == 2 and done.stderr.startswith("error: --comparative is given with --train_sets=0")
    assert not (pictures.parent / "set").exists()


def test_a_folder_of_too_few_pictures_is_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    command = ["generate", f"--target={tmp_path / 'set'}", f"--pictograms={tmp_path / 'pictures'}", "--train_groups=1"]
    done = in_process(*command)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert in_process("generate").stderr == "error: --target is missing; give it as --target=...\n"
