"""Submission files: what is written passes the check, and every change for the worse does not."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from contextjax.types import CandidateRecord, ComposedRecord, UserError
from data_pipelines.submissions import MAX_BYTES, SUBMISSIONS, ImageCodeSubmission

IMAGECODE, CIRR, CIRCO = SUBMISSIONS["imagecode"], SUBMISSIONS["cirr.recall"], SUBMISSIONS["circo"]
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
    IMAGECODE.write(records(), scores([4, 0, 9, 7, 1, 1]), path)
    return path


def test_the_best_candidates_are_written_in_the_order_of_the_descriptions(written):
    assert json.loads(written.read_text()) == {"MSR-VTT_1": [4, 0, 9], "open-images-2": [7], "YouCook-3": [1, 1]}
    IMAGECODE.check(written, records())


def test_the_order_of_the_records_does_not_matter(path, written):
    expected = json.loads(written.read_text())
    order = [3, 1, 5, 0, 2, 4]
    IMAGECODE.write([records()[i] for i in order], scores([4, 0, 9, 7, 1, 1])[order], path)
    assert json.loads(path.read_text()) == expected


def test_ties_go_to_the_first_and_nan_never_wins(path):
    given = np.zeros((6, 10))
    given[0, :2] = np.nan
    given[1, :] = [-np.inf, np.nan, -5, -6, -5, *[-np.inf] * 5]
    IMAGECODE.write(records(), given, path)
    assert json.loads(path.read_text())["MSR-VTT_1"] == [2, 2, 0]


def test_sets_of_another_size_are_refused_unless_asked(path):
    with pytest.raises(UserError, match=r"3 problem.*set open-images-2 has 4 pictures, expected 10"):
        IMAGECODE.write(records(4), scores([0] * 6), path)
    assert not path.exists()
    given = scores([0, 1, 2, 3, 0, 1])
    given[:, 4:] = 9  # where there are no candidates
    ImageCodeSubmission(None).write(records(4), given, path)
    assert json.loads(path.read_text())["open-images-2"] == [3]
    ImageCodeSubmission(None).check(path, records(4))
    with pytest.raises(UserError, match="pictures, expected 10"):
        IMAGECODE.check(path, records(4))


def test_scores_that_do_not_fit_are_reported_and_nothing_is_written(path):
    for given in (np.zeros((5, 10)), np.zeros(6)):
        with pytest.raises(UserError, match="expected a row for each of the 6 records"):
            IMAGECODE.write(records(), given, path)
    spoilt = scores([0] * 6)
    spoilt[[1, 4]] = np.nan
    with pytest.raises(UserError, match=r"2 problem\(s\).*MSR-VTT_1/1.*YouCook-3/0"):
        IMAGECODE.write(records(), spoilt, path)
    with pytest.raises(UserError, match="has no score of its 10 pictures"):
        IMAGECODE.write(records(), np.zeros((6, 9)), path)
    with pytest.raises(UserError, match="set MSR-VTT_1 has the descriptions 0, 2, which are not all there are"):
        IMAGECODE.write([*records()[:1], *records()[2:]], np.zeros((5, 10)), path)
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
def test_every_fault_is_reported(written, edit_json, said):
    edit_json(written, lambda found: (SPOIL[said](found), found)[1])
    with pytest.raises(UserError) as error:
        IMAGECODE.check(written, records())
    assert said in str(error.value) and "1 problem(s)" in str(error.value)


def test_all_faults_come_at_once(written):
    text = '{"MSR-VTT_1": [0, 1], "MSR-VTT_1": [0, 1, 99], "else": [0], "YouCook-3": [0, 0]}' + " " * MAX_BYTES
    written.write_text(text)
    with pytest.raises(UserError) as error:
        IMAGECODE.check(written, records())
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
def test_files_of_another_shape_are_reported(tmp_path, content, said):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        IMAGECODE.check(tmp_path / "x.json", records())


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"There is no submission .*x\.json"):
        IMAGECODE.check(tmp_path / "x.json", records())


# ---------------------------------------------------------------------------- rankings: CIRR, CIRCO

NAMES = [f"test1-{i}-0-img0" for i in range(60)]
GROUPS = [NAMES[begin : begin + 6] for begin in range(0, 60, 6)]
PAIRS = [
    ComposedRecord(str(12_060 + i), group[i % 6], "show three", None, tuple(n for n in group if n != group[i % 6]))
    for i, group in enumerate(GROUPS)
]
NUMBERS = [str(7 * i + 1) for i in range(70)]
QUERIES = [ComposedRecord(str(i), NUMBERS[i], "two people", None) for i in range(5)]


def ranked(queries, names, *, without=True, of_group=False):
    rng = np.random.default_rng(0)
    allowed = lambda r: [n for n in (r.subset if of_group else names) if not (without and n == r.reference)]
    return [rng.permutation(allowed(record)).tolist() for record in queries]


@pytest.fixture
def cirr(tmp_path):
    paths = {metric: tmp_path / "out" / f"{metric}.json" for metric in ("recall", "recall_subset")}
    for metric, path in paths.items():
        SUBMISSIONS[f"cirr.{metric}"].write(PAIRS, ranked(PAIRS, NAMES, of_group=metric != "recall"), path, NAMES)
    return paths


@pytest.fixture
def circo(tmp_path):
    CIRCO.write(QUERIES, ranked(QUERIES, NUMBERS, without=False), tmp_path / "circo.json", NUMBERS)
    return tmp_path / "circo.json"


def test_both_files_of_cirr_are_what_its_server_reads(cirr):
    for metric, count in (("recall", 50), ("recall_subset", 3)):
        found = json.loads(cirr[metric].read_text())
        assert (found.pop("version"), found.pop("metric")) == ("rc2", metric)
        answers = ranked(PAIRS, NAMES, of_group=metric != "recall")
        assert found == {record.id: names[:count] for record, names in zip(PAIRS, answers, strict=True)}
        CIRR.check(cirr[metric], PAIRS, NAMES)
        SUBMISSIONS[f"cirr.{metric}"].check(cirr[metric], PAIRS, NAMES)


def test_circo_has_numbers_under_consecutive_keys(circo):
    found = json.loads(circo.read_text())
    assert list(found) == ["0", "1", "2", "3", "4"]
    assert all(len(set(row)) == 50 and all(type(number) is int for number in row) for row in found.values())
    CIRCO.check(circo, QUERIES, NUMBERS)


def test_a_small_gallery_is_given_whole(tmp_path):
    few, own = NAMES[:6], PAIRS[:1]
    CIRR.write(own, ranked(own, few), tmp_path / "a.json", few)
    assert len(json.loads((tmp_path / "a.json").read_text())[own[0].id]) == 5
    CIRR.check(tmp_path / "a.json", own, few)


FIRST = PAIRS[0].id
SPOIL_RANKINGS = {
    "recall": {
        f"pair {FIRST} is missing": lambda d: d.pop(FIRST),
        "pair 1 is unknown": lambda d: d.update({"1": d[FIRST]}),
        f"pair {FIRST} has 49 pictures, expected 50": lambda d: d[FIRST].pop(),
        "has 51 pictures, expected 50": lambda d: d[FIRST].append("x"),
        f"names its own reference {PAIRS[0].reference}": lambda d: d[FIRST].__setitem__(3, PAIRS[0].reference),
        "twice": lambda d: d[FIRST].__setitem__(3, d[FIRST][4]),
        "names 'dev-1', which is not among the 60 pictures": lambda d: d[FIRST].__setitem__(0, "dev-1"),
        "names '5' of the type int, expected str": lambda d: d[FIRST].__setitem__(0, 5),
        "names 'None' of the type NoneType": lambda d: d[FIRST].__setitem__(0, None),
        "has no list of pictures (abc)": lambda d: d.update({FIRST: "abc"}),
        "version is 'rc1', expected 'rc2'": lambda d: d.update(version="rc1"),
        "version is 'None'": lambda d: d.pop("version"),
        "metric is 'R@1', expected 'recall' or 'recall_subset'": lambda d: d.update(metric="R@1"),
        "metric is '[]'": lambda d: d.update(metric=[]),
    },
    "recall_subset": {
        "has 2 pictures, expected 3": lambda d: d[FIRST].pop(),
        "names its own reference": lambda d: d[FIRST].__setitem__(0, PAIRS[0].reference),
        "which is not among the 5 pictures": lambda d: d[FIRST].__setitem__(0, NAMES[-1]),
        "twice": lambda d: d[FIRST].__setitem__(0, d[FIRST][1]),
    },
    "circo": {
        "query 3 is missing": lambda d: d.pop("3"),
        "query 5 is unknown": lambda d: d.update({"5": d["0"]}),
        "query 2 has 49 pictures, expected 50": lambda d: d["2"].pop(),
        "twice": lambda d: d["2"].__setitem__(0, d["2"][1]),
        "names '2', which is not among the 70 pictures": lambda d: d["2"].__setitem__(0, 2),
        "names '8' of the type str, expected int": lambda d: d["2"].__setitem__(0, "8"),
        "names 'True' of the type bool": lambda d: d["2"].__setitem__(0, True),
        "names '8.0' of the type float": lambda d: d["2"].__setitem__(0, 8.0),
    },
}


@pytest.mark.parametrize(("file", "said"), [(file, said) for file, faults in SPOIL_RANKINGS.items() for said in faults])
def test_every_fault_of_a_ranking_is_reported(cirr, circo, edit_json, file, said):
    path = {**cirr, "circo": circo}[file]
    edit_json(path, lambda found: (SPOIL_RANKINGS[file][said](found), found)[1])
    submission, records, gallery = (CIRCO, QUERIES, NUMBERS) if file == "circo" else (CIRR, PAIRS, NAMES)
    with pytest.raises(UserError) as error:
        submission.check(path, records, gallery)
    assert said in str(error.value) and "1 problem(s)" in str(error.value)


def test_all_faults_of_a_ranking_come_at_once(cirr):
    text = cirr["recall"].read_text().strip()
    cut = json.dumps({FIRST: ["x"], "1": []})
    cirr["recall"].write_text(f"{text[:-1]}, {cut[1:]}" + " " * MAX_BYTES)
    with pytest.raises(UserError) as error:
        CIRR.check(cirr["recall"], PAIRS, NAMES)
    for said in (
        "4 problem(s)",
        "at most 5,000,000",
        f"pair {FIRST} comes twice",
        "pair 1 is unknown",
        "has 1 pictures",
    ):
        assert said in str(error.value)


def test_what_breaks_a_rule_is_not_written(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(UserError, match=r"10 problem\(s\): pair 12060 names its own reference"):
        CIRR.write(PAIRS, [[r.reference, *NAMES] for r in PAIRS], path, NAMES)
    with pytest.raises(UserError, match="query 0 has 3 pictures, expected 50"):
        CIRCO.write(QUERIES, [NUMBERS[:3]] * 5, path, NUMBERS)
    with pytest.raises(UserError, match="query 7 is unknown; query 0 is missing"):
        CIRCO.write([ComposedRecord("7", "1", "t")], [NUMBERS], path, NUMBERS)
    assert not path.exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.just(FIRST), inner, max_size=4)
    ),
    max_leaves=12,
)


@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(JSON, st.sampled_from(sorted(SUBMISSIONS)), st.sampled_from([None, "recall", "recall_subset"]))
def test_junk_is_reported_and_never_crashes_the_check(tmp_path, junk, name, metric):
    if metric and isinstance(junk, dict):
        junk = {"version": "rc2", "metric": metric, **junk}
    (tmp_path / "junk.json").write_text(json.dumps(junk))
    split, gallery = (PAIRS, NAMES) if name.startswith("cirr") else (QUERIES, NUMBERS)
    split = records() if name == "imagecode" else split
    with pytest.raises(UserError):
        SUBMISSIONS[name].check(tmp_path / "junk.json", split, gallery)
