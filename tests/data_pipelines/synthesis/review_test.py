"""Files of decisions are read or refused; samples are fair and reproducible."""

import collections
import json

import pytest

from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Draft, Sentence
from data_pipelines.synthesis.review import read_decisions, removed_by, sample

ID = "0123456789abcdef"


@pytest.mark.parametrize(
    "contents",
    [{}, {"decisions": []}, {"decisions": {"x": "accept"}}, {"decisions": {ID: "maybe"}}, {"decisions": {ID: 1}}],
)
def test_other_files_are_no_decisions(contents, tmp_path):
    (tmp_path / "decisions.json").write_text(json.dumps(contents))
    with pytest.raises(UserError, match="no file of decisions"):
        read_decisions(tmp_path / "decisions.json")


def test_samples_are_fair_in_order_and_reproducible():
    assert sample(iter(range(100)), 10, seed=3) == sample(range(100), 10, seed=3) != sample(range(100), 10, seed=4)
    assert sample(range(5), 10, seed=0) == [0, 1, 2, 3, 4]
    counts = collections.Counter(item for seed in range(600) for item in sample(range(12), 4, seed=seed))
    assert sorted(counts) == list(range(12)) and all(140 < count < 260 for count in counts.values())  # 200 on average
    assert all(drawn == sorted(drawn) for drawn in (sample(range(50), 9, seed=seed) for seed in range(20)))


def test_what_was_removed_is_counted_and_sampled_by_filter():
    words = Sentence("dog", removed_by="words", why="fewer than two words")
    drafts = [Draft("a", str(number), sentences=(words, Sentence("a dog"))) for number in range(9)]
    removed = removed_by([*drafts, Draft("a", "z", problem="check pair: are one")], 4, seed=0)
    assert {name: (own.seen, len(own.items)) for name, own in removed.items()} == {
        "words": (9, 4),
        "check pair": (1, 1),
    }
    assert removed["check pair"].items[0][1:] == ("", "are one")
    assert all(case[1:] == ("dog", "fewer than two words") for case in removed["words"].items)
