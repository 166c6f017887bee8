"""The pages of a synthesis show a band, what was removed, and triplets to decide on; texts stay texts."""

import json

import numpy as np
import pytest

from data_pipelines.synthesis.pairs import SimilarityBand, folder_pictures, grouped_pairs, mine_groups, on_grid
from data_pipelines.synthesis.pipeline import run_pipeline
from data_pipelines.synthesis.review import read_drafts
from data_pipelines.synthesis.write import write_set
from experiments.synthesis import pages
from experiments.synthesis.embedding import embedded
from tests.data_pipelines.synthesis.conftest import saying
from tests.reports.pages import Tags


@pytest.mark.long
def test_groups_of_a_folder_become_pairs_and_a_page_to_judge_the_band_by(system, folder, tmp_path):
    pictures = folder_pictures(folder)
    ids, embeddings = embedded(system, folder, tmp_path / "galleries")
    cosines = np.sort((on_grid(embeddings) @ on_grid(embeddings).T)[np.triu_indices(12, 1)])
    band = SimilarityBand(float(cosines[len(cosines) // 2]), float(cosines[-3]))
    groups = mine_groups(embeddings, band, size=3)
    assert groups
    pairs = grouped_pairs([tuple(ids[row] for row in group) for group in groups], targets=2)
    assert len(pairs) == 6 * len(groups)
    page = pages.render(
        pages.band_page(ids, embeddings, pictures, band, len(groups), seed=0, facts={"Made by": "test"})
    )
    tags = Tags(page)
    assert not tags.named("script") and len(tags.named("h2")) == 5 + 1  # the last: how the page was made
    above = sum(value > band.high for value in cosines)
    assert page.count("cosine ") == sum(min(12, n) for n in _counts(cosines, band)) and above == 2


def _counts(cosines, band):
    edges = [band.low, *(band.low + (band.high - band.low) * part / 3 for part in (1, 2)), band.high]
    return np.bincount(np.searchsorted(edges, cosines, side="right"), minlength=5)


def test_the_pages_of_a_run_show_what_was_removed_and_escape_it(make_pipeline, pairs, tmp_path):
    hostile = "<script>alert(1)</script> dog"
    pipeline = make_pipeline(saying("Add a dog.", hostile, "dog", "Make image 1 red."))
    counts = write_set(run_pipeline(pairs[1:], pipeline), pipeline.pictures, tmp_path / "set", "train")
    common = {"title": hostile, "seed": 0, "facts": {"Made by": hostile}}
    again = lambda: read_drafts(tmp_path / "set", "train")
    page = pages.render(pages.filters_page(again(), pipeline.pictures, counts, **common))
    assert not Tags(page).named("script")
    for name in ("steering", "words", "pictures"):
        assert f"{name}: 2 texts" in page
    page = pages.render(pages.review_page(again(), pipeline.pictures, 1, split="train", **common))
    (card,) = Tags(page).named("article")
    rows = [json.loads(line) for line in (tmp_path / "set/train.jsonl").read_text().splitlines()]
    assert card["data-id"] in {row["id"] for row in rows}
    (script,) = Tags(page).named("script")
    assert not script
