"""Single-modality share: counted by hand, over parts, and where some queries are not asked."""

import dataclasses

import numpy as np
import pytest

from contextjax.evaluation import single_modality


@dataclasses.dataclass
class Answers:
    hits: dict


def test_shares_are_those_of_counting():
    own = Answers({"R@1": np.asarray([1, 1, 0, 0, 1, 0, 1, 1])})
    image = Answers({"R@1": np.asarray([1, 0, 0, 1, 0, 0, 0, 0])})
    text = Answers({"R@1": np.asarray([1, 1, 0, 0, 0, 0, 0, 0])})
    got = single_modality([own], {"image": [image], "text": [text]})
    assert got == {"R@1": {"image": 25, "text": 25, "either": 37.5, "n_rest": 5, "rest": 60}}


def test_parts_are_pooled_and_what_is_not_asked_does_not_count():
    nan = np.nan
    own = [Answers({"Rs@1": np.asarray([1, nan])}), Answers({"Rs@1": np.asarray([0, 1, nan])})]
    image = [Answers({"Rs@1": np.asarray([0, nan])}), Answers({"Rs@1": np.asarray([0, 1, nan])})]
    got = single_modality(own, {"image": image})["Rs@1"]
    assert got["image"] == got["either"] == pytest.approx(100 / 3)
    assert (got["n_rest"], got["rest"]) == (2, 50)


def test_without_a_rest_or_anything_to_compare_there_is_no_figure():
    all_right = Answers({"R@1": np.ones(3), "Rs@1": np.full(3, np.nan)})
    assert single_modality([all_right], {"image": [all_right]}) == {
        "R@1": {"image": 100, "either": 100, "n_rest": 0, "rest": None}
    }
    assert single_modality([all_right], {}) == single_modality([], {}) == {}
