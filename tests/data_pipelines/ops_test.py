"""Samples, batches and the packing of phrases into their budget."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextjax.tokenizers import train_tokenizer
from contextjax.types import LOST, ComposedRecord, Tokens, UserError
from data_pipelines.augment import Augment
from data_pipelines.ops import ComposedSamples
from data_pipelines.tables import ComposedData, PictureTable
from tests.photographs import photograph

WORDS = ["the red car", "a tree", "two cups", "the old house"]


class Encoded:
    """Picture i is all i."""

    def __getitem__(self, row):
        file = io.BytesIO()
        Image.new("RGB", (4, 4), (row, row, row)).save(file, "PNG")
        return {"image": file.getvalue()}


def data(*, per_reference=(3, 1, 2), captions=True) -> ComposedData:
    """References 0, 1, 2 with 3, 1 and 2 modifications; texts of one to four phrases."""
    records, number = [], 0
    for reference, count in enumerate(per_reference):
        for _ in range(count):
            text = " and ".join(WORDS[: 1 + number % 4])
            records.append(ComposedRecord(str(number), f"p{reference}", text, f"p{(number * 3 + 4) % 9}"))
            number += 1
    table = PictureTable(Encoded(), [f"p{i}" for i in range(9)], size=4)
    return ComposedData(
        "train", table, tuple(f"picture {i}" if captions else "" for i in range(9)), tuple(records), Path()
    )


def phrases(data):
    """The phrase cache of WORDS: their places in each text."""
    return {
        record.text: tuple((record.text.index(w), record.text.index(w) + len(w)) for w in WORDS if w in record.text)
        for record in data.records
    }


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*WORDS, "and", *(f"picture {i}" for i in range(9))], vocabulary=400, length=30)


def samples(tokenizer, *, modifications=2, budget=20, group=0, phrase_length=8, **options):
    table = data(**options)
    return ComposedSamples(
        table,
        tokenizer,
        modifications=modifications,
        phrases=phrases(table),
        phrase_budget=budget,
        phrase_group=group,
        phrase_length=phrase_length,
        caption_length=12,
    )


def test_every_record_is_in_one_sample(tokenizer):
    for modifications in (1, 2, 4):
        found = samples(tokenizer, modifications=modifications)
        rows = [found[i].records for i in range(len(found))]
        assert sorted(np.concatenate(rows).tolist()) == list(range(6))
        assert max(map(len, rows)) <= modifications
        assert all(len({found.data.records[r].reference for r in part}) == 1 for part in rows)


def test_missing_modifications_are_marked(tokenizer):
    found = samples(tokenizer, modifications=2)
    batch = found.collate([found[i] for i in range(len(found))])
    assert batch.valid.tolist() == [[True, True], [True, False], [True, False], [True, True]]
    assert batch.records.tolist() == [[0, 1], [2, 2], [3, 3], [4, 5]]
    assert batch.references.shape == (4, 4, 4, 3) and batch.targets.shape == (4, 2, 4, 4, 3)
    assert batch.references.dtype == batch.targets.dtype == np.uint8


def test_pictures_texts_and_ids_belong_together(tokenizer):
    found = samples(tokenizer)
    batch = found.collate([found[i] for i in (3, 0)])
    assert batch.references[..., 0, 0, 0].tolist() == batch.reference_ids.tolist() == [2, 0]
    np.testing.assert_array_equal(batch.targets[..., 0, 0, 0], batch.target_ids)
    for index in np.ndindex(2, 2):
        record = found.data.records[batch.records[index]]
        assert found.data.pictures.ids[batch.target_ids[index]] == record.target
        np.testing.assert_array_equal(batch.texts.ids[index], tokenizer([record.text]).tokens.ids[0])
    rows = np.concatenate([batch.reference_ids[:, None], batch.target_ids], axis=1)
    expected = tokenizer([f"picture {i}" for i in rows.ravel()], length=12).tokens.ids.reshape(2, 3, 12)
    np.testing.assert_array_equal(batch.captions.ids, expected)


def decoded(tokenizer, ids):
    return tokenizer._tokenizer.decode(ids.tolist()).strip()


def test_packed_phrases_stand_where_their_spans_point(tokenizer):
    found = samples(tokenizer, phrase_length=30)
    batch = found.collate([found[i] for i in range(4)])
    p = batch.phrases._replace(tokens=Tokens(*(x[0] for x in batch.phrases.tokens)))
    p = p._replace(text=p.text[0], span=p.span[0], valid=p.valid[0])  # one group
    texts = batch.texts.ids.reshape(-1, 30)
    # Texts of 1, 2, 3, (missing), 4, (missing), 1, 2 phrases.
    assert p.valid.sum() == 13 and not p.lost.any()
    for slot in np.flatnonzero(p.valid):
        start, end = p.span[slot]
        assert batch.valid.reshape(-1)[p.text[slot]]
        count = p.tokens.mask[slot].sum()
        np.testing.assert_array_equal(p.tokens.ids[slot, 1 : count - 1], texts[p.text[slot], start:end])
        assert p.tokens.mask[slot, :count].all()
        assert p.tokens.ids[slot, 0] == texts[0, 0]
        assert p.tokens.ids[slot, count - 1] == texts[p.text[slot]][batch.texts.mask.reshape(-1, 30)[p.text[slot]]][-1]
    said = {(int(t), decoded(tokenizer, texts[t, a:b])) for t, (a, b) in zip(p.text, p.span, strict=True)}
    assert {(0, "theredcar"), (1, "atree")} <= {(t, words.replace(" ", "")) for t, words in said}
    assert not p.tokens.mask[~p.valid].any()


@pytest.mark.parametrize("budget", [0, 1, 6, 9, 13, 40])
def test_the_budget_holds_and_what_found_no_room_is_counted(tokenizer, budget):
    found = samples(tokenizer, budget=budget)
    p = found.collate([found[i] for i in range(4)]).phrases
    assert p.tokens.ids.shape == (1, budget, 8) and p.text.shape == p.valid.shape == (1, budget)
    assert p.valid.sum() == min(budget, 13)
    assert p.lost.shape == (4, 3) and p.lost[:, 0].sum() == p.lost.sum() == max(13 - budget, 0)
    if budget == 6:  # every text has its first phrase before any has its second
        assert sorted(p.text[0].tolist()) == [0, 1, 2, 4, 6, 7]
        assert p.lost[:, 0].tolist() == [1, 2, 3, 1]


@pytest.mark.parametrize(("length", "budget"), [(30, 40), (8, 40), (8, 2), (5, 40), (30, 3)])
def test_every_lost_phrase_has_one_cause(tokenizer, length, budget):
    """Matched and lost make all phrases of the batch; what truncation cuts off is counted with its reference."""
    table = data()
    found = phrases(table)
    strange = next(iter(found))
    found[strange] = (*found[strange], (0, 0))  # a phrase without a character has no token
    made = ComposedSamples(
        table, TextTokenizerOf(tokenizer, length), modifications=2, phrases=found, phrase_budget=budget, phrase_length=8
    )
    batch = made.collate([made[i] for i in range(4)])
    p = batch.phrases
    total = sum(len(found[record.text]) for record in table.records)
    assert p.valid.sum() + p.lost.sum() == total == 15
    assert p.lost.dtype == np.int32 and p.lost.shape == (4, len(LOST)) and p.lost[:, 2].tolist() == [1, 0, 0, 1]
    assert (p.lost[:, 1].sum() > 0) == (length < 30) and (p.lost[:, 0].sum() > 0) == (budget < 10)
    whole = tokenizer([record.text for record in table.records]).offsets
    for row in range(4):
        expected = 0
        for text, ok in zip(batch.records[row], batch.valid[row], strict=True):
            end = whole[text][: length - 1, 1].max()  # the last place is that of EOS
            expected += sum(span[1] > end for span in found[table.records[text].text]) if ok else 0
        assert p.lost[row, 1] == expected


@pytest.mark.parametrize("group", [1, 2])
def test_a_group_has_the_phrases_that_a_batch_of_its_references_has(tokenizer, group):
    whole, grouped = samples(tokenizer, budget=5), samples(tokenizer, budget=5, group=group)
    p = grouped.collate([grouped[i] for i in range(4)]).phrases
    assert p.text.shape == (4 // group, 5)
    for i in range(4 // group):
        alone = whole.collate([whole[j] for j in range(i * group, (i + 1) * group)]).phrases
        for found, expected in ((p.tokens.ids, alone.tokens.ids), (p.tokens.mask, alone.tokens.mask),
                                (p.text, alone.text), (p.span, alone.span), (p.valid, alone.valid)):  # fmt: skip
            np.testing.assert_array_equal(found[i], expected[0])
        np.testing.assert_array_equal(p.lost[i * group : (i + 1) * group], alone.lost)


def test_a_phrase_longer_than_its_room_is_cut_alone_but_not_in_its_sentence(tokenizer):
    found = samples(tokenizer, phrase_length=3)
    batch = found.collate([found[i] for i in range(4)])
    p = batch.phrases
    assert (p.tokens.mask[p.valid].sum(-1) == 3).all()
    assert (np.diff(p.span[p.valid], axis=-1) > 1).any()


def test_what_is_cut_is_counted(tokenizer):
    table = data()
    found = ComposedSamples(table, TextTokenizerOf(tokenizer, 6), modifications=2, caption_length=3)
    (what, count, total, key), (caption, _, captions, caption_key) = found.truncations()
    assert (what, total, key) == ("modification texts", 6, "text_length") and 0 < count < 6
    assert (caption, captions, caption_key) == ("captions", 9, "caption_length")
    assert found.collate([found[0]]).phrases is None


def TextTokenizerOf(tokenizer, length):
    from contextjax.tokenizers import TextTokenizer

    return TextTokenizer(tokenizer._tokenizer, length=length)


def test_augmented_pictures_are_drawn_by_seed_and_position(tokenizer):
    """Each picture by itself; without augmentation a drawn sample is the plain one."""
    file = io.BytesIO()
    photograph("chelsea").resize((60, 40)).save(file, "PNG")
    pictures = PictureTable([{"image": file.getvalue()}] * 9, [f"p{i}" for i in range(9)], size=32)
    table = dataclasses.replace(data(), pictures=pictures)
    make = lambda **options: ComposedSamples(table, TextTokenizerOf(tokenizer, 6), modifications=3, **options)
    shown = lambda sample: np.stack([sample.reference, *sample.targets])
    np.testing.assert_array_equal(shown(make().draw(0, 3)), np.stack([pictures[0]] * 4))
    found = make(augment=Augment("light"), seed=5)
    np.testing.assert_array_equal(shown(found.draw(0, 3)), shown(found.draw(0, 3)))
    assert (shown(found.draw(0, 3)) != shown(found.draw(0, 4))).any()
    assert (shown(found.draw(0, 3)) != shown(make(augment=Augment("light"), seed=6).draw(0, 3))).any()
    assert len(np.unique(shown(found.draw(0, 3)), axis=0)) == 4


def test_pictures_with_one_caption_share_an_id(tokenizer):
    table = dataclasses.replace(data(), captions=("a", "b", "a", "", "b", "", "c", "a", "c"))
    found = ComposedSamples(table, TextTokenizerOf(tokenizer, 6), modifications=1)
    batch = found.collate([found[index] for index in range(len(found))])
    targets = [int(record.target.removeprefix("p")) for record in table.records]
    first = [0, 1, 0, 3, 1, 5, 6, 0, 6]  # without a caption a picture keeps its own
    expected = [first[target] for target in targets]
    assert batch.target_ids.ravel().tolist() == [expected[int(record)] for record in batch.records.ravel()]


def test_captions_are_asked_for_only_where_there_are_some(tokenizer):
    with pytest.raises(UserError, match="without captions"):
        samples(tokenizer, captions=False)
    table = data(captions=False)
    found = ComposedSamples(table, tokenizer, modifications=1)
    assert found.collate([found[0]]).captions is None
    assert len(found.truncations()) == 1


def test_phrases_are_masked_by_slots():
    from contextjax.types import SLOT
    from data_pipelines.ops import mask_phrases

    texts = ["a small dog beside two cats", "left", "dog dog"]
    phrases = {texts[0]: ((19, 27), (0, 11), (2, 11)), texts[1]: (), texts[2]: ((0, 3),)}
    tokenizer = train_tokenizer([*texts, "* beside *"], vocabulary=300, length=20)
    masked = mask_phrases(tokenizer, texts, phrases, length=20).tokens
    whole = tokenizer(["* beside *", "*", "* dog"], length=20)
    np.testing.assert_array_equal(masked.mask, whole.tokens.mask)
    slots = [(0, 9), (0,), (0,)]
    for row, places in enumerate(slots):
        starts, ends = whole.offsets[row].T
        expected = np.any([(starts <= place) & (place < ends) for place in places], axis=0)
        np.testing.assert_array_equal(masked.ids[row] == SLOT, expected)
