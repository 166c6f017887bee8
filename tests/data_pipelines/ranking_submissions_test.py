"""Files of rankings (CIRR, CIRCO): what is written passes the check, and every change for the worse does not."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from contextjax.types import ComposedRecord, UserError
from data_pipelines.submissions import MAX_BYTES, SUBMISSIONS, check_circo, check_cirr, write_circo, write_cirr

NAMES = [f"test1-{i}-0-img0" for i in range(60)]
GROUPS = [NAMES[begin : begin + 6] for begin in range(0, 60, 6)]
PAIRS = [
    ComposedRecord(str(12_060 + i), group[i % 6], "show three", None, tuple(n for n in group if n != group[i % 6]))
    for i, group in enumerate(GROUPS)
]
NUMBERS = [str(7 * i + 1) for i in range(70)]
QUERIES = [ComposedRecord(str(i), NUMBERS[i], "two people", None) for i in range(5)]


def ranked(records, names, *, without=True, of_group=False):
    rng = np.random.default_rng(0)
    allowed = lambda r: [n for n in (r.subset if of_group else names) if not (without and n == r.reference)]
    return [rng.permutation(allowed(record)).tolist() for record in records]


@pytest.fixture
def cirr(tmp_path):
    paths = {metric: tmp_path / "out" / f"{metric}.json" for metric in ("recall", "recall_subset")}
    for metric, path in paths.items():
        write_cirr(PAIRS, ranked(PAIRS, NAMES, of_group=metric != "recall"), path, NAMES, metric=metric)
    return paths


@pytest.fixture
def circo(tmp_path):
    write_circo(QUERIES, ranked(QUERIES, NUMBERS, without=False), tmp_path / "circo.json", NUMBERS)
    return tmp_path / "circo.json"


def test_both_files_of_cirr_are_what_its_server_reads(cirr):
    for metric, count in (("recall", 50), ("recall_subset", 3)):
        found = json.loads(cirr[metric].read_text())
        assert (found.pop("version"), found.pop("metric")) == ("rc2", metric)
        answers = ranked(PAIRS, NAMES, of_group=metric != "recall")
        assert found == {record.id: names[:count] for record, names in zip(PAIRS, answers, strict=True)}
        check_cirr(cirr[metric], PAIRS, NAMES)
        SUBMISSIONS[f"cirr.{metric}"].check(cirr[metric], PAIRS, NAMES)


def test_circo_has_numbers_under_consecutive_keys(circo):
    found = json.loads(circo.read_text())
    assert list(found) == ["0", "1", "2", "3", "4"]
    assert all(len(set(row)) == 50 and all(type(number) is int for number in row) for row in found.values())
    check_circo(circo, QUERIES, NUMBERS)


def test_a_small_gallery_is_given_whole(tmp_path):
    few, own = NAMES[:6], PAIRS[:1]
    write_cirr(own, ranked(own, few), tmp_path / "a.json", few, metric="recall")
    assert len(json.loads((tmp_path / "a.json").read_text())[own[0].id]) == 5
    check_cirr(tmp_path / "a.json", own, few)


FIRST = PAIRS[0].id
SPOIL = {
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


@pytest.mark.parametrize(("file", "said"), [(file, said) for file, faults in SPOIL.items() for said in faults])
def test_every_fault_is_told(cirr, circo, edit_json, file, said):
    path = {**cirr, "circo": circo}[file]
    edit_json(path, lambda found: (SPOIL[file][said](found), found)[1])
    check, records, gallery = (check_circo, QUERIES, NUMBERS) if file == "circo" else (check_cirr, PAIRS, NAMES)
    with pytest.raises(UserError) as error:
        check(path, records, gallery)
    assert said in str(error.value) and "1 problem(s)" in str(error.value)


def test_all_faults_come_at_once(cirr):
    text = cirr["recall"].read_text().strip()
    cut = json.dumps({FIRST: ["x"], "1": []})
    cirr["recall"].write_text(f"{text[:-1]}, {cut[1:]}" + " " * MAX_BYTES)
    with pytest.raises(UserError) as error:
        check_cirr(cirr["recall"], PAIRS, NAMES)
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
        write_cirr(PAIRS, [[r.reference, *NAMES] for r in PAIRS], path, NAMES, metric="recall")
    with pytest.raises(UserError, match="query 0 has 3 pictures, expected 50"):
        write_circo(QUERIES, [NUMBERS[:3]] * 5, path, NUMBERS)
    with pytest.raises(UserError, match="query 7 is unknown; query 0 is missing"):
        write_circo([ComposedRecord("7", "1", "t")], [NUMBERS], path, NUMBERS)
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
def test_junk_is_told_and_never_crashes_the_check(tmp_path, junk, name, metric):
    if metric and isinstance(junk, dict):
        junk = {"version": "rc2", "metric": metric, **junk}
    (tmp_path / "junk.json").write_text(json.dumps(junk))
    records, gallery = (PAIRS, NAMES) if name.startswith("cirr") else (QUERIES, NUMBERS)
    if name == "imagecode":
        from tests.data_pipelines.submissions_test import records as descriptions

        records = descriptions()
    with pytest.raises(UserError):
        SUBMISSIONS[name].check(tmp_path / "junk.json", records, gallery)
