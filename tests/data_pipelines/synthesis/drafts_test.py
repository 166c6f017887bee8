"""Drafts are the same after their line; a triplet's id depends on all that is in it."""

from data_pipelines.synthesis.drafts import Draft, from_line, to_line, triplet_id
from data_pipelines.synthesis.pipeline import run_pipeline
from tests.data_pipelines.synthesis.conftest import saying


def test_a_draft_is_the_same_after_its_line(make_pipeline, pairs):
    for draft in run_pipeline(pairs, make_pipeline(saying("Add a dog.", "dog"))):
        assert from_line(to_line(draft)) == draft


def test_a_triplet_is_named_by_both_pictures_and_the_text():
    ids = [triplet_id(Draft(a, b), text) for a in "xy" for b in "xy" for text in ("add a dog", "add a cat")]
    assert len(set(ids)) == 8 and triplet_id(Draft("x", "y"), "add a dog") in ids
