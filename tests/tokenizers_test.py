"""Offsets point at the words; the layout is BOS, text, EOS, padding."""

import numpy as np
import pytest

from contextjax.tokenizers import BOS, EOS, PAD, TextTokenizer, train_tokenizer
from contextjax.types import UserError

TEXTS = [
    "Make the big red car smaller, and put it left of the tree.",
    "Replace the dog with two cats.",
    "The tree is gone; there are 12 cups instead.",
]
ODD = ["", "   ", "🎉👩‍👩‍👧 red", "日本語の文", "a\x00b\x07\x1b[0m", "\u200b\u202e", "é" * 50, "\n\t the \r\n", "ﬁ İ ß"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 4, vocabulary=340, length=16)


def ids_of(tokenizer):
    return [tokenizer._tokenizer.token_to_id(name) for name in (BOS, EOS, PAD)]


def test_bos_text_eos_padding(tokenizer):
    bos, eos, pad = ids_of(tokenizer)
    encoded = tokenizer([*TEXTS, "cat", ""])
    ids, mask = encoded.tokens
    assert ids.dtype == np.int32 and mask.dtype == bool and ids.shape == mask.shape == (5, 16)
    for row, real in zip(ids, mask, strict=True):
        count = real.sum()
        assert real[:count].all() and not real[count:].any()
        assert row[0] == bos and row[count - 1] == eos and (row[count:] == pad).all()
        assert not np.isin(row[1 : count - 1], [bos, eos, pad]).any()
    assert mask[-1].sum() == 2


def test_offsets_are_the_characters_of_each_token(tokenizer):
    text = "Put the red tree left of 12 cups!"
    encoded = tokenizer([text], length=40)
    inner = encoded.offsets[0][1 : encoded.tokens.mask[0].sum() - 1]
    assert "".join(text[a:b] for a, b in inner) == text.replace(" ", "")
    for word in ("red", "tree", "cups"):
        begin = text.index(word)
        covered = [(a, b) for a, b in inner if a < begin + len(word) and b > begin]
        assert (covered[0][0], covered[-1][1]) == (begin, begin + len(word))
    outside = encoded.offsets[0][[0, *range(encoded.tokens.mask[0].sum() - 1, 40)]]
    assert not outside.any()


@pytest.mark.parametrize("text", ["👩‍👩‍👧 the tree", "日本 tree", "  \t tree", "e\u0301 tree", "ẞ tree"])
def test_offsets_count_characters_also_behind_odd_ones(tokenizer, text):
    encoded = tokenizer([text], length=40)
    begin = text.index("tree")
    inner = encoded.offsets[0][encoded.tokens.mask[0]]
    covered = [(a, b) for a, b in inner if b > begin]
    assert (covered[0][0], covered[-1][1]) == (begin, len(text))


def test_longer_texts_are_cut_and_marked(tokenizer):
    long = "cat tree dog " * 20
    encoded = tokenizer([long, "cat"])
    assert encoded.truncated.tolist() == [True, False]
    assert encoded.tokens.mask[0].all() and encoded.tokens.ids[0, -1] == ids_of(tokenizer)[1]
    assert encoded.offsets[0].max() < len(long)
    whole = tokenizer([long], length=200)
    assert not whole.truncated[0]
    np.testing.assert_array_equal(whole.tokens.ids[0, :15], encoded.tokens.ids[0, :15])
    exact = int(whole.tokens.mask[0].sum())
    assert not tokenizer([long], length=exact).truncated[0]
    assert tokenizer([long], length=exact - 1).truncated[0]


def test_case_and_spaces_do_not_matter(tokenizer):
    a, b = tokenizer(["The RED  tree", "the red tree"]).tokens.ids
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_do_not_crash(tokenizer, text):
    encoded = tokenizer([text])
    assert encoded.tokens.ids.max() < tokenizer.vocabulary
    assert encoded.offsets.max() <= len(text)


def test_a_text_cannot_say_the_special_tokens(tokenizer):
    bos, eos, pad = ids_of(tokenizer)
    encoded = tokenizer([f"a {EOS} tree {PAD}"], length=60)
    inner = encoded.tokens.ids[0][1 : encoded.tokens.mask[0].sum() - 1]
    assert not np.isin(inner, [bos, eos, pad]).any()


def test_what_is_saved_is_what_is_read(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    again = TextTokenizer.read(tmp_path / "tokenizer.json", length=16)
    assert again.vocabulary == tokenizer.vocabulary
    a, b = tokenizer(TEXTS + ODD), again(TEXTS + ODD)
    np.testing.assert_array_equal(a.tokens.ids, b.tokens.ids)
    np.testing.assert_array_equal(a.offsets, b.offsets)


def test_the_same_texts_give_the_same_tokenizer(tokenizer, tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    tokenizer.save(files[0])
    train_tokenizer(iter(TEXTS * 4), vocabulary=340, length=16).save(files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_vocabulary_is_at_most_what_was_asked(tokenizer):
    assert 259 < tokenizer.vocabulary <= 340
    assert train_tokenizer(["a"], vocabulary=340, length=4).vocabulary <= 340


def test_a_tokenizer_without_the_special_tokens_is_refused():
    from tokenizers import Tokenizer, models

    with pytest.raises(UserError, match=r"no token .*startoftext.*endoftext.*pad"):
        TextTokenizer(Tokenizer(models.BPE()), length=8)


def test_no_texts_are_no_rows(tokenizer):
    assert tokenizer([]).tokens.ids.shape == (0, 16)
