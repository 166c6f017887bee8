"""A set is written whole or not at all, and once for given settings."""

import json

import pytest
from PIL import Image

from data_pipelines.datasets.pictograms.written_set import SETTINGS_FILE, fingerprint, write_once


def write(folder):
    (folder / "a.txt").write_text("a")


def test_it_is_written_once_and_never_over_other_settings(tmp_path):
    folder = tmp_path / "new" / "set"
    assert write_once(folder, {"seed": 0}, write) == folder
    assert json.loads((folder / SETTINGS_FILE).read_text()) == {"seed": 0}
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", SETTINGS_FILE]
    write_once(folder, {"seed": 0}, lambda _: pytest.fail("written again"))
    with pytest.raises(ValueError, match="written with seed=0, expected seed=1"):
        write_once(folder, {"seed": 1}, write)


def test_an_interrupted_writer_leaves_nothing_under_the_name(tmp_path):
    def fail(folder):
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_once(tmp_path / "set", {}, fail)
    assert not (tmp_path / "set").exists()
    write_once(tmp_path / "set", {}, write)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_empty_folder_is_filled_and_a_full_one_is_not_touched(tmp_path):
    (tmp_path / "empty").mkdir()
    write_once(tmp_path / "empty", {}, write)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("dear reader")
    with pytest.raises(ValueError, match="no pictograms data set; expected an empty or absent folder"):
        write_once(tmp_path / "full", {}, write)


def test_the_fingerprint_changes_with_a_pixel_and_with_a_name():
    art = {"dog": Image.new("RGBA", (4, 4))}
    other = {"dog": art["dog"].copy()}
    assert fingerprint(art) == fingerprint(other)
    other["dog"].putpixel((0, 0), (1, 0, 0, 0))
    assert len({fingerprint(art), fingerprint(other), fingerprint({"cat": art["dog"]})}) == 3
