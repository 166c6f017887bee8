"""Candidate sets and groups that several tests of pictograms look at."""

import pytest

from data_pipelines.datasets.pictograms.candidate_sets import set_of
from data_pipelines.datasets.pictograms.names import PICTOGRAMS, choose


@pytest.fixture(scope="session")
def sets():
    """150 candidate sets of the split "valid"."""
    seen, held_out = choose(PICTOGRAMS)
    return [set_of("valid", index, seen, held_out) for index in range(150)]
