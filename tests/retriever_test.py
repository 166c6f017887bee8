"""Retriever: rows go to programs in batches of few sizes, equal pictures once, and come back in their order."""

import numpy as np
import pytest

from contextjax import retriever
from contextjax.retriever import Retriever
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from contextjax.variants import spec_of


class Means(Retriever):
    """Embeds a picture by its mean, and a query by its picture's and the number of its tokens; counts calls."""

    def __init__(self):
        tokenizer = train_tokenizer(["a dog"], vocabulary=270, length=40)
        super().__init__(tokenizer, image_size=4, fit="squash", projection=2, query="sum", score="itc")
        self.calls = []

    def _embed_query(self, pixels, ids, mask, rows):
        self.calls.append((len(pixels), *ids.shape))
        return np.stack([pixels.mean((1, 2, 3))[rows], mask.sum(-1)], axis=1).astype(np.float32)

    def _embed_gallery(self, pixels):
        self.calls.append(len(pixels))
        return np.repeat(pixels.mean((1, 2, 3))[:, None], 2, axis=1).astype(np.float32)

    def _score_sets(self, pixels, ids, mask, short_ids, short_mask, ordered, rows):
        return pixels[rows].mean((2, 3, 4)) + ordered[:, None]


PICTURES = [np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 10, 30, 10)]


@pytest.mark.parametrize("shares", [True, False])
def test_queries_come_back_in_their_order_whatever_is_shared(shares, monkeypatch):
    system, texts = Means(), ["a dog", "a", "a dog a dog", "a", "a dog"]
    whole = system.encode_query(PICTURES, texts, shares=shares)
    assert whole[:, 0].tolist() == [10, 20, 10, 30, 10]
    assert (whole[:, 1] == [system.tokenizer([text]).tokens.mask.sum() for text in texts]).all()
    assert system.calls == [(4, 8, 16)] if shares else [(8, 8, 16)]  # padded to powers of two and sixteen tokens
    monkeypatch.setattr(retriever, "BATCH", 2)
    np.testing.assert_array_equal(system.encode_query(PICTURES, texts, shares=shares), whole)


def test_a_gallery_is_cut_and_padded(monkeypatch):
    system = Means()
    monkeypatch.setattr(retriever, "BATCH", 3)
    assert system.encode_gallery(PICTURES)[:, 0].tolist() == [10, 20, 10, 30, 10] and system.calls == [3, 2]


def test_sets_are_scored_by_row_and_order():
    system = Means()
    scores = system.score_sets([PICTURES[:2], PICTURES[2:4], PICTURES[:2]], ["a", "b", "c"], [False, True, True])
    assert scores.tolist() == [[10, 20], [11, 31], [11, 21]]
    assert system.score_candidates(PICTURES[:2], "a", ordered=True).tolist() == [11, 21]
    for sets, sentence in (([], "no candidates"), ([PICTURES[:1], PICTURES[:2]], "1 to 2 candidates")):
        with pytest.raises(UserError, match=sentence):
            system.score_sets(sets, ["a"] * len(sets))


def test_a_model_s_identity_is_its_numbers_and_its_preprocessing(tiny):
    spec, tensors = spec_of(tiny.model()), {"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)}
    identity = retriever.identity_of(tensors, spec)
    assert len(identity) == 32 and identity == retriever.identity_of(dict(reversed(tensors.items())), spec)
    for other in (
        tensors | {"b": np.float32([0, 1])},
        tensors | {"b": np.zeros((2, 1), np.float32)},
        {"a": tensors["a"]},
    ):
        assert retriever.identity_of(other, spec) != identity


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7])
def test_rows_of_one_picture_stay_together_where_they_fit(batch):
    rows = np.asarray([0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 3, 4])
    parts = list(retriever._parts(rows, batch))
    np.testing.assert_array_equal(np.concatenate([rows[part] for part in parts]), rows)
    assert all(0 < part.stop - part.start <= batch for part in parts)
    for number in range(5):
        holding = sum(number in rows[part] for part in parts)
        count = (rows == number).sum()
        assert holding == 1 if count <= batch else holding <= -(-count // batch) + 1


def test_questions_of_all_kinds_come_back_in_their_order_and_what_a_system_lacks_is_said():
    class Texts(Means):
        def _embed_text(self, ids, mask):
            return np.stack([mask.sum(-1), mask.sum(-1)], axis=1).astype(np.float32)

    system, texts = Texts(), [None, "a dog", "a", None, "a dog a dog"]
    pictures = [PICTURES[0], None, PICTURES[1], PICTURES[3], None]
    whole = system.encode(pictures, texts)
    words = system.encode_text(["a dog", "a dog a dog"])
    query = system.encode_query(PICTURES[1:2], ["a"])[0]
    assert whole.tolist() == [[10, 10], words[0].tolist(), query.tolist(), [30, 30], words[1].tolist()]
    assert system.encode([], []).shape == (0, 2)
    with pytest.raises(UserError, match="reads no text without a picture; give a picture with it"):
        Means().encode([None], ["a dog"])
    with pytest.raises(UserError, match="neither a picture nor a text"):
        system.encode([None], [None])
    with pytest.raises(UserError, match="1 pictures and 2 texts"):
        system.encode([None], ["a", "b"])
