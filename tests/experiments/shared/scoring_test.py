"""Scoring a split: every way to query beside the main one, parts one by one, and what ignores the texts."""

import dataclasses

import numpy as np
import pytest

from contextjax.types import CandidateRecord, ComposedRecord, EvaluationProtocol
from data_pipelines.protocols import PROTOCOLS
from data_pipelines.tables import SplitData
from experiments.shared.scoring import has_candidates, score
from tests.evaluation.by_hand_test import Scripted, Table


class System(Scripted):
    """Scripted, with a way to query that its vectors are multiplied by."""

    query, queries = "fusion", ("image", "text", "sum", "fusion")

    def __init__(self, size, sign=1.0):
        super().__init__(size)
        self.sign = sign

    def with_query(self, name):
        return System(self.size, {"image": -1.0, "text": 0.5, "sum": 1.0}[name])

    def encode_query(self, images, texts):
        return self.sign * super().encode_query(images, texts)


def part(records):
    return SplitData("val", Table("abcd"), (), tuple(records), None)


RECORDS = [ComposedRecord("1", "a", "0 1 0.5 0", "b", kinds=("add",)), ComposedRecord("2", "b", "0 0 1 0.5", "c")]
PROTOCOL = EvaluationProtocol("toy", recall_at=(1,), reader="cirr")


def test_protocols_of_candidate_sets_are_told_from_those_of_queries():
    assert has_candidates(PROTOCOLS["imagecode"]) and not has_candidates(PROTOCOLS["cirr"])


@pytest.mark.parametrize("baselines", [True, False])
def test_simpler_ways_to_query_stand_beside(baselines):
    result = score(System(4), PROTOCOL, {"": part(RECORDS)}, baselines=baselines)
    assert result["query"] == "fusion" and result["metrics"]["R@1"] == 100 and result["n_queries"] == 2
    assert set(result["by_kind"]) == {"add"} and result["n_gallery"] == 4
    assert {name: found["R@1"] for name, found in result["baselines"].items()} == (
        {"image": 0, "text": 100, "sum": 100} if baselines else {}
    )
    shares = {"image": 0, "text": 100, "either": 100, "n_rest": 0, "rest": None}
    assert result["single_modality"] == ({"R@1": shares} if baselines else {}) and result["by_phrases"] == {}


def test_a_system_of_one_way_to_query_has_none_beside_it():
    one = System(4)
    one.queries = ("fusion",)
    assert score(one, PROTOCOL, {"": part(RECORDS)}, baselines=True)["baselines"] == {}


def test_metrics_are_given_by_the_number_of_phrases():
    counts = {RECORDS[0].text: 3, RECORDS[1].text: 10}
    result = score(System(4), PROTOCOL, {"": part(RECORDS)}, baselines=False, phrases=counts)
    assert result["by_phrases"] == {"3": {"R@1": 100, "n_queries": 1}, "10": {"R@1": 100, "n_queries": 1}}


def test_a_protocol_may_ask_every_system_by_its_text():
    """Captions of the pictures that they look for: the system's own query is not used."""
    protocol = dataclasses.replace(PROTOCOL, query="text")
    result = score(System(4, sign=-1.0), protocol, {"": part(RECORDS)}, baselines=True)
    assert result["query"] == "text" and result["metrics"]["R@1"] == 100
    assert result["baselines"] == result["single_modality"] == {}


def test_metrics_of_several_parts_are_their_mean():
    wrong = [ComposedRecord("3", "a", "0 1 0.5 0", "d")]
    result = score(System(4), PROTOCOL, {"x": part(RECORDS), "y": part(wrong)}, baselines=False)
    assert result["metrics"]["R@1"] == 50 and result["n_queries"] == 3
    assert {name: found["n_queries"] for name, found in result["by_kind"].items()} == {"x": 2, "y": 1}


def test_candidates_are_scored_in_each_way_and_by_the_texts_of_others():
    class Sets:
        score, scores = "itm", ("itc", "itm")

        def with_score(self, name):
            return self

        def score_sets(self, sets, texts, ordered=None):
            return np.asarray([[float(x) for x in text.split()] for text in texts], np.float32)

    records = [CandidateRecord(str(i), ("a", "b"), text, target, "static", f"s{i}")
               for i, (text, target) in enumerate([("1 0", 0), ("0 1", 1)])]  # fmt: skip
    result = score(Sets(), PROTOCOLS["imagecode"], {"": part(records)}, baselines=True)
    assert result["metrics"]["accuracy"] == 100 and result["query"] == "itm"
    assert {"itc", "random", "texts of other sets"} <= set(result["baselines"])
    assert result["baselines"]["texts of other sets"]["accuracy"] == 0
