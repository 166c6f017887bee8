"""Submission files: what is written passes the check, and every change for the worse does not."""

import json

import numpy as np
import pytest

from contextjax.types import CandidateRecord, UserError
from data_pipelines.submissions import MAX_BYTES, SUBMISSIONS, check_imagecode, write_imagecode

SETS = {"MSR-VTT_1": 3, "open-images-2": 1, "YouCook-3": 2}


def records(size=10):
    return [
        CandidateRecord(f"{name}/{number}", tuple(f"{name}/img{i}" for i in range(size)), f"text {number}", None)
        for name, count in SETS.items()
        for number in range(count)
    ]


def scores(best, width=10):
    found = np.random.default_rng(0).random((len(best), width))
    found[np.arange(len(best)), best] = 2
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "imagecode.json"


@pytest.fixture
def written(path):
    write_imagecode(records(), scores([4, 0, 9, 7, 1, 1]), path)
    return path


def test_the_best_candidates_are_written_in_the_order_of_the_descriptions(written):
    assert json.loads(written.read_text()) == {"MSR-VTT_1": [4, 0, 9], "open-images-2": [7], "YouCook-3": [1, 1]}
    check_imagecode(written, records())


def test_the_order_of_the_records_does_not_matter(path, written):
    expected = json.loads(written.read_text())
    order = [3, 1, 5, 0, 2, 4]
    write_imagecode([records()[i] for i in order], scores([4, 0, 9, 7, 1, 1])[order], path)
    assert json.loads(path.read_text()) == expected


def test_ties_go_to_the_first_and_nan_never_wins(path):
    given = np.zeros((6, 10))
    given[0, :2] = np.nan
    given[1, :] = [-np.inf, np.nan, -5, -6, -5, *[-np.inf] * 5]
    write_imagecode(records(), given, path)
    assert json.loads(path.read_text())["MSR-VTT_1"] == [2, 2, 0]


def test_sets_of_another_size_are_refused_unless_asked(path):
    with pytest.raises(UserError, match=r"3 problem.*set open-images-2 has 4 pictures, expected 10"):
        write_imagecode(records(4), scores([0] * 6), path)
    assert not path.exists()
    given = scores([0, 1, 2, 3, 0, 1])
    given[:, 4:] = 9  # where there are no candidates
    write_imagecode(records(4), given, path, candidates=None)
    assert json.loads(path.read_text())["open-images-2"] == [3]
    check_imagecode(path, records(4), candidates=None)
    with pytest.raises(UserError, match="pictures, expected 10"):
        check_imagecode(path, records(4))


def test_scores_that_do_not_fit_are_told_and_nothing_is_written(path):
    for given in (np.zeros((5, 10)), np.zeros(6)):
        with pytest.raises(UserError, match="expected a row for each of the 6 records"):
            write_imagecode(records(), given, path)
    spoilt = scores([0] * 6)
    spoilt[[1, 4]] = np.nan
    with pytest.raises(UserError, match=r"2 problem\(s\).*MSR-VTT_1/1.*YouCook-3/0"):
        write_imagecode(records(), spoilt, path)
    with pytest.raises(UserError, match="has no score of its 10 pictures"):
        write_imagecode(records(), np.zeros((6, 9)), path)
    with pytest.raises(UserError, match="set MSR-VTT_1 has the descriptions 0, 2, which are not all there are"):
        write_imagecode([*records()[:1], *records()[2:]], np.zeros((5, 10)), path)
    assert not path.exists()


SPOIL = {
    "set YouCook-3 is missing": lambda d: d.pop("YouCook-3"),
    "set else is unknown": lambda d: d.update({"else": [0]}),
    "set MSR-VTT_1 has 2 answers to 3 descriptions": lambda d: d["MSR-VTT_1"].pop(),
    "set open-images-2 has 2 answers to 1 descriptions": lambda d: d["open-images-2"].append(0),
    "answer '10', expected a whole number from 0 to 9": lambda d: d["YouCook-3"].__setitem__(0, 10),
    "answer '-1'": lambda d: d["YouCook-3"].__setitem__(1, -1),
    "answer '1.0'": lambda d: d["YouCook-3"].__setitem__(1, 1.0),
    "answer 'True'": lambda d: d["YouCook-3"].__setitem__(1, True),
    "answer '3', expected": lambda d: d["YouCook-3"].__setitem__(1, "3"),
    "answer 'None'": lambda d: d["YouCook-3"].__setitem__(1, None),
    "set YouCook-3 has no list of answers (3)": lambda d: d.update({"YouCook-3": 3}),
    "set open-images-2 has no list of answers ({'0': 1})": lambda d: d.update({"open-images-2": {"0": 1}}),
}


@pytest.mark.parametrize("said", SPOIL)
def test_every_fault_is_told(written, edit_json, said):
    edit_json(written, lambda found: (SPOIL[said](found), found)[1])
    with pytest.raises(UserError) as error:
        check_imagecode(written, records())
    assert said in str(error.value) and "1 problem(s)" in str(error.value)


def test_all_faults_come_at_once(written):
    text = '{"MSR-VTT_1": [0, 1], "MSR-VTT_1": [0, 1, 99], "else": [0], "YouCook-3": [0, 0]}' + " " * MAX_BYTES
    written.write_text(text)
    with pytest.raises(UserError) as error:
        check_imagecode(written, records())
    for said in (
        "5 problem(s)", f"{len(text):,} bytes, at most 5,000,000", "set MSR-VTT_1 comes twice", "'99'",
        "set else is unknown", "set open-images-2 is missing",
    ):  # fmt: skip
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "no JSON object"),
        (b'[["a", [1]]]', "no JSON object"),
        (b"3", "no JSON object"),
        (b'{"a": ', "not JSON"),
        (b"\xff\x00", "not UTF-8"),
        (b"[" * 100_000, "JSON"),
    ],
)
def test_files_of_another_shape_are_told(tmp_path, content, said):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        check_imagecode(tmp_path / "x.json", records())


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"There is no submission .*x\.json"):
        check_imagecode(tmp_path / "x.json", records())


def test_the_protocol_names_both(path):
    SUBMISSIONS["imagecode"].write(records(), scores([0] * 6), path)
    SUBMISSIONS["imagecode"].check(path, records())
