"""Manifests: lists and lines say the same, and nothing outside the folder is read."""

import json

import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines.datasets.manifest import ManifestReader

ROW = {"reference": "a.png", "target": "d.jpg", "caption": "more"}


def test_lists_and_lines_are_read_alike(written):
    reader = ManifestReader(written)
    assert reader.splits == ("train", "val")
    assert reader.records("train") == reader.records("val")
    assert reader.records("val") == [
        ComposedRecord("0", "a.png", "make it blue", "b/c.png"),
        ComposedRecord("1", "b/c.png", "turn it", "d.jpg"),
    ]
    assert reader.pictures("val") == {name: written / name for name in ("a.png", "b/c.png", "d.jpg")}


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\n\n  \n"])
def test_lines_end_as_they_like(written, separator):
    odd = ROW | {"caption": "a\u2028b"}  # a line's end to Python, not to JSON
    (written / "val.jsonl").write_bytes(separator.join(json.dumps(r, ensure_ascii=False) for r in (ROW, odd)).encode())
    assert [record.text for record in ManifestReader(written).records("val")] == ["more", "a\u2028b"]


def test_bad_lines_are_reported_by_number(written):
    lines = [json.dumps(ROW), "{", json.dumps([ROW]), "[" * 100_000, json.dumps(ROW | {"target": None})]
    (written / "val.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"4 problem\(s\): row 1 of val.jsonl.*row 2.*row 3.*row 4"):
        ManifestReader(written).records("val")


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "b/../../a.png", "b\\..\\..\\a.png", "C:/a.png", ""])
def test_paths_that_leave_the_folder_are_reported(written, path):
    (written / "train.json").write_text(json.dumps([ROW, ROW | {"target": path}]))
    with pytest.raises(UserError, match=r"row 1 of train.json has .* no path inside the folder"):
        ManifestReader(written).records("train")


def test_links_out_of_the_folder_are_refused_and_those_within_are_not(written, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.png").write_bytes((written / "a.png").read_bytes())
    (written / "file.png").symlink_to(outside / "secret.png")
    (written / "folder").symlink_to(outside)
    (written / "circle.png").symlink_to("circle.png")
    (written / "within.png").symlink_to("a.png")
    names = ("file.png", "folder/secret.png", "circle.png", "within.png")
    (written / "train.json").write_text(json.dumps([ROW | {"target": name} for name in names]))
    reader = ManifestReader(written)
    with pytest.raises(UserError, match=r"3 problem\(s\): file.png is a link.*folder/secret.png.*circle.png"):
        reader.records("train")
    assert set(reader.pictures("train")) == {"a.png", "within.png"}


def test_a_split_in_both_forms_is_reported(written):
    (written / "val.json").write_text("[]")
    with pytest.raises(UserError, match=r"a split as .json and as .jsonl"):
        ManifestReader(written)


def test_bytes_that_are_no_text_are_reported(written):
    (written / "val.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"val.jsonl is not UTF-8"):
        ManifestReader(written).records("val")
