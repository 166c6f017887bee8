"""Submission files: what a benchmark does not take is refused with one sentence."""

import pytest

from contextjax.types import UserError
from experiments.shared.leaderboard_files import check_file


@pytest.mark.parametrize(
    ("protocol", "split", "sentence"),
    [
        ("cirr", None, "--split is None; expected the one that the file answers"),
        ("mmvp", "val", "has no leaderboard that takes files"),
        ("", "val", "--data or --protocol is missing"),
        ("cirr", "val", "There is no submission"),
    ],
)
def test_files_that_cannot_be_checked_are_refused(pictograms, tmp_path, protocol, split, sentence):
    with pytest.raises(UserError, match=sentence):
        check_file(tmp_path / "x.json", protocol, pictograms, split)
