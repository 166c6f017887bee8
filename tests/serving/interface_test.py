"""Tests of the checks that every index makes."""

import numpy as np
import pytest

from contextjax.serving import interface
from contextjax.types import UserError


@pytest.mark.parametrize(
    ("queries", "k", "sentence"),
    [
        (np.zeros((2, 3)), 1, r"\[2, 3\]; expected \[B, 4\]"),
        (np.zeros(4), 1, r"\[4\]; expected \[B, 4\]"),
        (np.zeros((0, 4)), 1, r"\[0, 4\]; expected"),
        (np.zeros((1, 4)), 0, "k is 0"),
        (np.full((1, 4), np.inf), 1, "not finite"),
    ],
)
def test_queries_that_do_not_fit_are_refused(queries, k, sentence):
    with pytest.raises(UserError, match=sentence):
        interface.check_queries(queries, k, 4)


def test_queries_that_fit_become_float32():
    assert interface.check_queries(np.ones((2, 4)), 1, 4).dtype == np.float32


def test_a_sentence_lists_ten_names():
    assert interface.list_names(["a", "b"]) == "'a', 'b'"
    assert interface.list_names([str(i) for i in range(12)]).endswith("'9' and 2 more")
