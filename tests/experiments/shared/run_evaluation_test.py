"""Results of evaluations name their data, and are never replaced by those of other data."""

import json
import types

import pytest
from PIL import Image

from contextjax.types import UserError
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.protocols import CIRR
from experiments.shared.data import load_parts
from experiments.shared.run_evaluation import _keep_other_data, choose_split, safe_name
from tests.data_pipelines.layouts import LAYOUTS

SYSTEM = types.SimpleNamespace(image_size=8, fit="crop")


def chosen(folder, **options):
    return choose_split(SYSTEM, None, protocol="cirr", folder=str(folder), split="val", **options)


def test_two_folders_of_one_layout_have_results_of_their_own(tmp_path):
    for place in ("one/set", "two/set", "other"):
        LAYOUTS["cirr"](tmp_path / place)
    picture = next(iter(CirrReader(tmp_path / "two/set").pictures("val").values()))
    Image.new("RGB", (12, 9), (9, 9, 99)).save(picture)
    one, two, other = (chosen(tmp_path / place) for place in ("one/set", "two/set", "other"))
    assert len({one.file, two.file, other.file}) == 3
    assert one.file == f"evaluation.cirr.val.set-{one.data['identity']}.json" and one.data["folder"] == "set"
    assert one.data["identity"] == other.data["identity"] != two.data["identity"]
    moved = (tmp_path / "one").rename(tmp_path / "moved")
    assert chosen(moved / "set").file == one.file
    assert chosen(moved / "set", prepared=str(tmp_path / "tables")).file == one.file


def test_a_result_of_other_data_is_kept_and_said(tmp_path, capsys):
    file, data = tmp_path / "evaluation.json", {"folder": "a b", "identity": "1234"}
    _keep_other_data(file, data)
    file.write_text(json.dumps({"data": data, "n": 1}))
    _keep_other_data(file, data)
    assert not capsys.readouterr().out and len(list(tmp_path.iterdir())) == 1
    _keep_other_data(file, {"folder": "a b", "identity": "5678"})
    assert json.loads((tmp_path / "evaluation.a_b-1234.json").read_text())["n"] == 1
    assert "was of other data (a b, 1234)" in capsys.readouterr().out
    file.write_text("{}")  # of an earlier version
    _keep_other_data(file, data)


def test_a_folder_s_name_becomes_a_part_of_a_file_s():
    assert safe_name("../a/b c.\x1b[31m") == "_a_b_c_31m" and len(safe_name("x" * 300)) == 60


def test_odd_records_of_a_split_are_evaluated_and_said_once(tmp_path, edit_json, capsys):
    LAYOUTS["cirr"](tmp_path)
    edit_json(tmp_path / "captions/cap.rc2.val.json", lambda rows: [rows[0] | {"caption": " "}, *rows, rows[1]])
    for _ in range(2):
        odd = chosen(tmp_path).data["odd"]
    assert odd == {"without a text": 1, "repeated": 1}
    said = capsys.readouterr().out
    assert said.count("is evaluated as it is, with 1 records without a text: 10; ") == 1


def test_unknown_pictures_are_refused_in_an_evaluation(tmp_path, edit_json):
    LAYOUTS["cirr"](tmp_path)
    edit_json(tmp_path / "captions/cap.rc2.val.json", lambda rows: [rows[0] | {"reference": "nobody"}, *rows[1:]])
    with pytest.raises(UserError, match=r"1 problem\(s\): query 10 names the unknown picture nobody"):
        load_parts(CIRR, tmp_path, "val", size=8, fit="crop")
