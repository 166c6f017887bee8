"""A cut and resumed run is the whole one; another order of data, or another state, is found."""

import shutil

import numpy as np

from experiments.fault_injection.resume import check_resume
from tests.experiments.fault_injection.toy import train_cut


def test_a_cut_run_is_the_whole_one(whole, tmp_path):
    workdir, records = whole
    outcome = check_resume("cut", train_cut, tmp_path / "cut", workdir, records, [3, 1, 6])
    assert outcome.passed and outcome.times == 3, outcome
    assert np.unique(np.concatenate(records), return_counts=True)[1].tolist() == [1] * 96


def test_a_cut_that_cuts_nothing_is_reported_and_does_not_count(whole, tmp_path):
    outcome = check_resume("cut", train_cut, tmp_path / "cut", *whole, [3, 10])
    assert outcome.times == 1, outcome
    assert list(outcome.problems) == ["10 batches after step 2 cut nothing, the run has 12"]


def test_another_order_of_data_is_found(whole, tmp_path):
    starts = []

    def shifted(place, cut):
        starts.append(cut)
        return train_cut(place, cut, shift=len(starts) - 1)

    outcome = check_resume("cut", shifted, tmp_path / "cut", *whole, [5])
    assert not outcome.passed and "the batches after step 4 are not those" in outcome.problems[0]


def test_another_state_is_found(whole, tmp_path):
    def forgetful(place, cut):
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        return train_cut(place, cut)

    outcome = check_resume("cut", forgetful, tmp_path / "cut", *whole, [5], is_exact=False)
    assert not outcome.passed  # it began at step 0, and not at step 4
