"""From a folder of unlabelled pictures and a CLIP to a set: embedded once, grouped, judged by agreement."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import contextjax
from contextjax.models.clip import CLIP
from contextjax.pretrained import write_pretrained
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from data_pipelines.datasets import READERS
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.pairs import SimilarityBand, folder_pictures, grouped_pairs, mine_groups, on_grid
from data_pipelines.synthesis.pipeline import run_local
from data_pipelines.synthesis.review import read_drafts
from experiments.synthesis import pages
from experiments.synthesis.embedding import agreement_of, embedded, load_system
from tests.commands import environment
from tests.data_pipelines.synthesis.conftest import saying
from tests.pretrained.conftest import random_params
from tests.reports.pages import Tags

TEXTS = ["Add a dog.", "Make it red.", "Remove the ball."]


@pytest.fixture(scope="module")
def clip(tiny, tmp_path_factory):
    """The folder of a tiny CLIP with random weights."""
    tokenizer = train_tokenizer(TEXTS, vocabulary=280, length=10)
    text = dataclasses.replace(tiny.clip.text, vocabulary=280, eos_token=tokenizer._last)
    config = dataclasses.replace(tiny.clip, text=text)
    folder = tmp_path_factory.mktemp("clip") / "clip"
    write_pretrained(folder, config, random_params(CLIP(config)))
    tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures, six of them nearly the same, one that can't be read."""
    place, rng = tmp_path / "unlabelled", np.random.default_rng(0)
    place.mkdir()
    base = rng.integers(0, 256, (16, 16, 3))
    for number in range(12):
        pixels = base + rng.integers(-30, 30, base.shape) if number % 2 else rng.integers(0, 256, base.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"p{number:02}.png")
    (place / "broken.png").write_bytes(b"no picture")
    return place


def test_pictures_are_embedded_once_and_bad_ones_named(clip, folder, tmp_path, capsys):
    system, encoded = load_system(str(clip)), []
    encode = system.encode_gallery
    system.encode_gallery = lambda images: encoded.extend(images) or encode(images)
    ids, embeddings = embedded(system, folder, tmp_path / "cache")
    assert ids == [f"p{number:02}.png" for number in range(12)] and "broken.png" in capsys.readouterr().out
    np.testing.assert_allclose(embeddings, encode([folder / name for name in ids]), atol=1e-6)
    encoded.clear()
    (folder / "p03.png").rename(folder / "a.png")
    ids, again = embedded(system, folder, tmp_path / "cache")
    assert ids[0] == "a.png" and len(ids) == 12 and len(encoded) == 1  # what is new alone
    np.testing.assert_allclose(again, encode([folder / name for name in ids]), atol=1e-6)


def test_groups_of_a_folder_become_pairs_and_a_page_to_judge_the_band_by(clip, folder, tmp_path):
    pictures = folder_pictures(folder)
    ids, embeddings = embedded(load_system(str(clip)), folder, tmp_path / "galleries")
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


def test_agreement_is_how_much_more_a_text_is_like_the_target(clip, folder):
    agreement = agreement_of(str(clip), folder_pictures(folder))
    system = contextjax.load(clip)
    found = agreement(Draft("p00.png", "p02.png"), TEXTS)
    reference, target = system.encode_gallery([folder / "p00.png", folder / "p02.png"])
    np.testing.assert_allclose(found, system.encode_text(TEXTS) @ (target - reference), atol=1e-5)


def test_texts_that_disagree_are_removed(clip, folder, make_pipeline):
    pictures = folder_pictures(folder)
    pipeline = dataclasses.replace(
        make_pipeline(saying(*TEXTS)), pictures=pictures, make_agreement=lambda: agreement_of(str(clip), pictures)
    )
    (draft,) = run_local([Draft("p00.png", "p02.png")], pipeline)
    values = agreement_of(str(clip), pictures)(draft, TEXTS)
    assert [s.removed_by == "agreement" for s in draft.sentences] == [value < 0 for value in values]
    assert any(s.removed_by for s in draft.sentences) or min(values) >= 0


def test_a_folder_of_unreadable_pictures_is_told(clip, tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(UserError, match="expected at least one good picture"):
        embedded(load_system(str(clip)), tmp_path, tmp_path / "galleries")


def test_the_pages_of_a_run_show_what_was_removed_and_escape_it(make_pipeline, pairs, tmp_path):
    from data_pipelines.synthesis.write import write_set

    hostile = "<script>alert(1)</script> dog"
    pipeline = make_pipeline(saying("Add a dog.", hostile, "dog", "Make image 1 red."))
    found = write_set(run_local(pairs[1:], pipeline), pipeline.pictures, tmp_path / "set", "train")
    common = {"title": hostile, "seed": 0, "facts": {"Made by": hostile}}
    again = lambda: read_drafts(tmp_path / "set", "train")
    page = pages.render(pages.filters_page(again(), pipeline.pictures, found, **common))
    assert not Tags(page).named("script")
    for name in ("steering", "words", "pictures"):
        assert f"{name}: 2 texts" in page
    page = pages.render(pages.review_page(again(), pipeline.pictures, 1, split="train", **common))
    (card,) = Tags(page).named("article")
    rows = [json.loads(line) for line in (tmp_path / "set/train.jsonl").read_text().splitlines()]
    assert card["data-id"] in {row["id"] for row in rows}
    (script,) = Tags(page).named("script")
    assert not script


def test_the_command_makes_a_set_of_a_folder_and_the_same_again(clip, pictograms, tmp_path):
    target = tmp_path / "set"
    flags = [f"--pictures={pictograms / 'img_raw' / 'train'}", f"--workdir={clip}", f"--target={target}"]
    command = [sys.executable, "-m", "experiments.synthesize", *flags, "--backend=rules", "--band=-1,1", "--group=3"]
    told = [
        subprocess.run([*command, *more], env=environment(), capture_output=True, text=True, check=True).stdout
        for more in ((), ("--agreement=-2", "--seed=0"))
    ]
    assert all("Groups of 3 in the band: 6; " in text and "18 pairs of 18 pictures." in text for text in told)
    drafts = list(read_drafts(target, "train"))
    assert len(drafts) == 18 and all(draft.reference != draft.target for draft in drafts)
    kept = [sentence for draft in drafts for sentence in draft.kept]
    assert kept and all("agreement" in sentence.passed for sentence in kept)
    assert (target / "synthesis" / "band.html").exists()
    assert [record.text for record in READERS["manifest"](target).records("train")] == [s.text for s in kept]
