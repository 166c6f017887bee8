"""Captions and candidate sets as samples and batches, and a random draw that depends on the position alone."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextjax.tokenizers import tokenize_propositions, train_tokenizer
from contextjax.types import CandidateRecord, CaptionRecord, UserError
from data_pipelines.augment import Augment
from data_pipelines.candidate_ops import CandidateSamples, CaptionSamples, cleaned
from data_pipelines.loader import batches
from data_pipelines.tables import PictureTable, SplitData

SIZE, PICTURES = 16, 12
TEXTS = ["The red car, left.", "a tree", "two cups / plates", "the old house", "a dog that isn't here"]


class Encoded:
    """Picture i is noise of its own, around a mean of 10 i."""

    def __getitem__(self, row):
        file = io.BytesIO()
        noise = np.random.default_rng(row).integers(0, 20, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(noise + 10 * row).save(file, "PNG")
        return {"image": file.getvalue()}


def split(records) -> SplitData:
    table = PictureTable(Encoded(), [f"p{i}" for i in range(PICTURES)], size=SIZE)
    return SplitData("train", table, ("",) * PICTURES, tuple(records), Path())


def captions() -> SplitData:
    return split(CaptionRecord(f"c{i}", f"p{(5 * i + 3) % PICTURES}", TEXTS[i % 5]) for i in range(7))


def candidates() -> SplitData:
    """Sets of 4, 2 and 3 pictures; the first and the last are of a video."""
    sets = {"a": ("p0", "p1", "p2", "p3"), "b": ("p5", "p4"), "c": ("p11", "p9", "p10")}
    rows = [("a", 2, "video"), ("b", 1, "static"), ("c", 0, "video"), ("a", 0, "video"), ("b", 0, "static")]
    return split(CandidateRecord(f"{s}/{i}", sets[s], TEXTS[i], t, kind) for i, (s, t, kind) in enumerate(rows))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*TEXTS, "left plates here isnt"], vocabulary=400, length=24)


def whole(samples):
    return samples.collate([samples[i] for i in range(len(samples))])


def test_a_caption_has_its_picture_and_its_ids(tokenizer):
    data = captions()
    samples = CaptionSamples(data, tokenizer)
    batch = whole(samples)
    assert batch.records.tolist() == list(range(7)) and batch.images.dtype == np.uint8
    assert batch.image_ids.dtype == batch.records.dtype == np.int32
    for i, record in enumerate(data.records):
        assert data.pictures.ids[batch.image_ids[i]] == record.image
        np.testing.assert_array_equal(batch.images[i], data.pictures[batch.image_ids[i]])
    expected = tokenizer([record.text for record in data.records]).tokens
    np.testing.assert_array_equal(batch.texts.ids, expected.ids)
    np.testing.assert_array_equal(batch.texts.mask, expected.mask)


def test_a_set_has_its_candidates_in_order_and_is_filled_up(tokenizer):
    data = candidates()
    samples = CandidateSamples(data, tokenizer, candidates=4)
    batch = samples.collate([samples[i] for i in (1, 0, 2)])
    assert batch.images.shape == (3, 4, SIZE, SIZE, 3) and batch.images.dtype == np.uint8
    assert batch.target.tolist() == [1, 2, 0] and batch.records.tolist() == [1, 0, 2]
    assert batch.ordered.tolist() == [False, True, True]
    assert batch.valid.tolist() == [[True, True, False, False], [True] * 4, [True, True, True, False]]
    for images, row in zip(batch.images, batch.records, strict=True):
        names = data.records[row].images
        for k in range(4):
            expected = data.pictures[data.pictures.row[names[k] if k < len(names) else names[0]]]
            np.testing.assert_array_equal(images[k], expected)
    np.testing.assert_array_equal(batch.texts.ids, tokenizer([TEXTS[i] for i in (1, 0, 2)]).tokens.ids)


def test_texts_are_cleaned_where_asked(tokenizer):
    as_published = {
        CaptionSamples: (captions(), ["the red car, left", "a tree", "two cups / plates"]),
        CandidateSamples: (candidates(), ["The red car left", "a tree", "two cups plates"]),
    }
    for kind, (data, expected) in as_published.items():
        batch = whole(kind(cleaned(data), tokenizer))
        np.testing.assert_array_equal(batch.texts.ids[:3], tokenizer(expected).tokens.ids)


@pytest.mark.parametrize("words", [20, 29, 30, 31, 50])
def test_in_thirty_tokens_the_limit_of_thirty_words_never_cuts_first(tokenizer, words):
    from data_pipelines.texts import clean_description

    record = CandidateRecord("a/0", ("p0", "p1"), " ".join(TEXTS[i % 5] for i in range(words))[: 5 * words], 0)
    samples = CandidateSamples(cleaned(split([record])), tokenizer, text_length=30)
    expected = tokenizer([clean_description(record.text)], length=30).tokens.ids
    np.testing.assert_array_equal(whole(samples).texts.ids, expected)


def test_what_is_cut_is_counted(tokenizer):
    samples = CandidateSamples(candidates(), tokenizer, text_length=5)
    (what, count, total, key) = samples.truncations()[0]
    assert (what, total, key) == ("descriptions", 5, "text_length") and 0 < count < 5
    assert whole(samples).texts.ids.shape == (5, 5)
    assert CaptionSamples(captions(), tokenizer).truncations() == [("captions", 0, 7, "text_length")]


@pytest.mark.parametrize(("clean", "lost"), [(False, ["", " \t"]), (True, ["", "...", "-/-"])])
def test_texts_without_a_word_are_all_told(tokenizer, clean, lost):
    rows = [CandidateRecord(f"a/{i}", ("p0", "p1"), text, 0) for i, text in enumerate([TEXTS[0], *lost])]
    with pytest.raises(UserError) as error:
        CandidateSamples(cleaned(split(rows)) if clean else split(rows), tokenizer)
    assert f"{len(lost)} problem(s)" in str(error.value)
    assert "a/0" not in str(error.value) and all(f"a/{i}" in str(error.value) for i in range(1, len(rows)))


def test_secret_targets_are_reported(tokenizer):
    records = [dataclasses.replace(r, target=None) if r.id == "c/2" else r for r in candidates().records]
    with pytest.raises(UserError, match=r"1 of 5 descriptions of split 'train' have no target .*c/2"):
        CandidateSamples(split(records), tokenizer)


def test_sets_larger_than_the_batch_are_named_once(tokenizer):
    with pytest.raises(UserError) as error:
        CandidateSamples(candidates(), tokenizer, candidates=2)
    assert "2 problem(s)" in str(error.value)
    assert "set a has 4 pictures" in str(error.value) and "set c has 3 pictures" in str(error.value)


# ----------------------------------------------------------------------------- draws and the loader


MAKE = {
    "captions": lambda tokenizer, **rest: CaptionSamples(captions(), tokenizer, augment=Augment("published"), **rest),
    "sets": lambda tokenizer, **rest: CandidateSamples(
        candidates(), tokenizer, candidates=4, augment=Augment("set"), **rest
    ),
    "published": lambda tokenizer, **rest: CandidateSamples(
        candidates(), tokenizer, candidates=4, augment=Augment("published"), **rest
    ),
}


def stream(samples, *, steps=6, **options):
    return list(batches(samples, batch_size=4, steps=steps, seed=3, **options))


def leaves(batch):
    return [*(leaf for part in batch for leaf in (part if isinstance(part, tuple) else (part,)))]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        for x, y in zip(leaves(a), leaves(b), strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("start", [1, 5])
def test_resuming_gives_the_pictures_of_an_uninterrupted_run(tokenizer, name, start):
    assert_same(stream(MAKE[name](tokenizer), start=start), stream(MAKE[name](tokenizer))[start:])


@pytest.mark.parametrize("name", MAKE)
def test_processes_and_threads_change_no_picture(tokenizer, name):
    samples = MAKE[name](tokenizer)
    expected = stream(samples)
    assert_same(stream(samples, threads=4), expected)
    halves = [stream(samples, rows=rows) for rows in np.split(np.arange(4), 2)]
    for a, b, joined in zip(*halves, expected, strict=True):
        np.testing.assert_array_equal(np.concatenate([a.images, b.images]), joined.images)


@pytest.mark.parametrize("name", MAKE)
def test_the_augmentation_differs_between_epochs_and_seeds(tokenizer, name):
    samples = MAKE[name](tokenizer)
    images = lambda sample: np.stack(sample.pictures)
    draws = [images(samples.draw(2, position)) for position in range(4)]
    assert len({draw.tobytes() for draw in draws}) == 4
    np.testing.assert_array_equal(images(samples.draw(2, 0)), draws[0])
    assert (images(MAKE[name](tokenizer, seed=1).draw(2, 0)) != draws[0]).any()
    plain = images(samples[2])
    np.testing.assert_array_equal(plain, images(samples[2]))
    assert plain.shape == draws[0].shape and all((plain != draw).any() for draw in draws)


def test_without_augmentation_the_stream_is_that_of_the_table(tokenizer):
    samples = CandidateSamples(candidates(), tokenizer, candidates=4)
    for batch in stream(samples):
        for x, y in zip(leaves(batch), leaves(samples.collate([samples[i] for i in batch.records])), strict=True):
            np.testing.assert_array_equal(x, y)


def test_samples_without_a_draw_are_taken_by_their_row():
    class Numbers:
        def __len__(self):
            return 5

        def __getitem__(self, row):
            return row

        def collate(self, samples):
            return np.asarray(samples)

    class Drawn(Numbers):
        def draw(self, index, position):
            return 100 * position + index

    plain, drawn = np.concatenate(stream(Numbers())), np.concatenate(stream(Drawn()))
    np.testing.assert_array_equal(drawn, 100 * np.arange(24) + plain)


def test_descriptions_of_one_set_share_its_pictures(tokenizer):
    data = candidates()
    samples = CandidateSamples(data, tokenizer, candidates=4, descriptions=2)
    single = CandidateSamples(data, tokenizer, candidates=4)
    batch = samples.collate([samples[i] for i in range(len(samples))])
    assert len(batch.images) == len(samples) and len(batch.records) == 2 * len(samples)
    assert set(batch.records.tolist()) == set(range(len(data.records)))  # no description is left out
    for text, record in enumerate(batch.records.tolist()):
        alone = single.collate([single[record]])
        np.testing.assert_array_equal(batch.images[text // 2], alone.images[0])
        np.testing.assert_array_equal(batch.texts.ids[text], alone.texts.ids[0])
        assert batch.target[text] == alone.target[0]
        np.testing.assert_array_equal(batch.valid[text], alone.valid[0])


def test_texts_about_some_pictures_of_a_set_share_all_of_them(tokenizer):
    """Pairs of one set: the sample shows every picture once, and each text is about its own two."""
    pairs = [(("p2", "p0"), 0), (("p1", "p2"), 1), (("p0", "p3"), 0), (("p6", "p5"), 1), (("p5", "p4"), 1)]
    names = ["a", "a", "a", "b", "b"]
    data = split(
        CandidateRecord(f"{s}/{i}", images, TEXTS[i], target, "static", s)
        for i, (s, (images, target)) in enumerate(zip(names, pairs, strict=True))
    )
    samples = CandidateSamples(data, tokenizer, candidates=4, descriptions=3, propositions=2, proposition_length=8)
    assert len(samples) == 2
    batch = whole(samples)
    assert batch.images.shape == (2, 4, SIZE, SIZE, 3) and batch.texts.ids.shape[0] == 6
    for text, (row, target, valid) in enumerate(zip(batch.records, batch.target, batch.valid, strict=True)):
        record, shown = data.records[row], batch.images[text // 3]
        picture = lambda name: data.pictures[data.pictures.row[name]]
        np.testing.assert_array_equal(shown[target], picture(record.images[record.target]))
        assert valid.sum() == 2 and valid[target]
        (other,) = (k for k in np.flatnonzero(valid) if k != target)
        np.testing.assert_array_equal(shown[other], picture(record.images[1 - record.target]))
    found = tokenize_propositions(tokenizer, [data.records[row].text for row in batch.records], limit=2, length=8)[0]
    np.testing.assert_array_equal(batch.propositions.ids, found.ids)
    alone = whole(CandidateSamples(data, tokenizer, candidates=2))
    assert len(alone.images) == 5 and alone.propositions is None and alone.target.tolist() == [0, 1, 0, 1, 1]
    with pytest.raises(UserError, match="set a has 4 pictures, more than the batch's 3"):
        CandidateSamples(data, tokenizer, candidates=3, descriptions=3)
