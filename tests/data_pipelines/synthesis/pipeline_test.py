"""A pipeline gives the same drafts in the same order, whatever the number of threads."""

import pickle

from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.pipeline import run_pipeline, through
from tests.data_pipelines.synthesis.conftest import saying


def test_the_number_of_threads_changes_nothing(make_pipeline, pairs):
    pipeline = make_pipeline(saying("Add a dog.", "Make it red."))
    drafts = list(run_pipeline(pairs, pipeline, concurrency=1))
    assert [(draft.reference, draft.target) for draft in drafts] == [(pair.reference, pair.target) for pair in pairs]
    assert list(run_pipeline(pairs, pipeline, concurrency=3)) == drafts


def test_texts_of_one_reference_are_settled_together(make_pipeline, pairs):
    first, second, third = run_pipeline(pairs, make_pipeline(saying("Add a dog.")), concurrency=2)
    assert {s.removed_by for draft in (first, second) for s in draft.sentences} == {"ambiguous"} and third.kept


def test_stages_run_in_their_order():
    stages = [lambda draft, name=name: Draft(draft.reference + name, draft.target) for name in "abc"]
    assert through(stages, Draft("", "t")).reference == "abc"


def test_the_pictures_of_a_pipeline_can_be_sent_to_workers(make_pipeline):
    pictures = make_pipeline(saying("x")).pictures
    assert pickle.loads(pickle.dumps(pictures)).show("a.png") == pictures.show("a.png")
