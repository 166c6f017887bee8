"""Noun phrases as character spans, their cache, and the token spans they become."""

import json

import numpy as np
import pytest

from data_pipelines import concepts
from data_pipelines.concepts import (
    MAX_PHRASES,
    PhraseCache,
    find_phrases,
    is_pronoun,
    lost_phrases,
    token_spans,
    without_pronouns,
)

TEXT = "Make the big red car smaller and put a green tree beside it."


def phrases_of(text):
    (spans,) = find_phrases([text])
    return [text[a:b] for a, b in spans]


def test_noun_chunks_in_the_order_of_the_text():
    found = phrases_of(TEXT)
    assert "the big red car" in found and "a green tree" in found
    assert found.index("the big red car") < found.index("a green tree")


def test_a_repeated_phrase_counts_once_at_its_first_place():
    text = "The dog is larger. the dog has a ball. The Dog sleeps."
    (spans,) = find_phrases([text])
    found = [text[a:b].lower() for a, b in spans]
    assert found.count("the dog") == 1
    assert spans[found.index("the dog")] == (0, 7)


def test_at_most_ten():
    text = "There are " + ", ".join(f"a {c} {t}" for c in ("red", "blue", "big") for t in ("cat", "dog", "cup", "hat"))
    assert len(phrases_of(text)) == MAX_PHRASES


@pytest.mark.parametrize("text", ["", "   ", "!!!", "🎉🎉", "run", "a\x00b"])
def test_odd_texts_do_not_crash(text):
    for phrase in phrases_of(text):
        assert phrase and phrase == phrase.strip()


def test_texts_are_answered_in_their_order():
    texts = [TEXT, "", "A cat.", "Two dogs and a bird."]
    assert find_phrases(texts) == [find_phrases([text])[0] for text in texts]


# ------------------------------------------------------------------------------------------- cache


@pytest.fixture
def counted(monkeypatch):
    """find_phrases without spaCy, which counts what it is asked."""
    asked = []

    def find(texts):
        asked.extend(texts)
        return [((0, len(text)),) for text in texts]

    monkeypatch.setattr(concepts, "find_phrases", find)
    return asked


def test_the_cache_finds_each_text_once(tmp_path, counted):
    cache = PhraseCache(tmp_path / "new")
    assert cache.add(["a", "bb", "a"], processes=1) == 2
    assert cache.add(["bb", "ccc"], processes=1, chunk=1) == 1
    assert cache.add(["a"]) == 0
    assert counted == ["a", "bb", "ccc"] and len(cache) == 3
    again = PhraseCache(tmp_path / "new")
    assert [again[text] for text in ("a", "bb", "ccc")] == [((0, 1),), ((0, 2),), ((0, 3),)]
    assert again.add(["a", "bb", "ccc"]) == 0


def test_the_cache_goes_on_after_a_cut_last_line(tmp_path, counted):
    cache = PhraseCache(tmp_path)
    cache.add(["a", "bb", "ccc"], processes=1)
    whole = cache.path.read_bytes()
    for cut in (1, 5, 9):
        cache.path.write_bytes(whole[:-cut])
        again = PhraseCache(tmp_path)
        assert again.add(["a", "bb", "ccc", "d"], processes=1) == 1 + (len(again) < 4 or cut > 1)
        final = PhraseCache(tmp_path)
        assert len(final) == 4 and final["ccc"] == ((0, 3),) and final["d"] == ((0, 1),)


def test_odd_texts_go_through_the_cache(tmp_path, counted):
    texts = ["line\nbreak", "\u2028", "🎉", '"quoted"', "", "\x85 \x0b"]
    PhraseCache(tmp_path).add(texts, processes=1)
    cache = PhraseCache(tmp_path)
    assert all(text in json.loads(json.dumps(texts)) and cache[text] == ((0, len(text)),) for text in texts)


def test_a_text_that_was_never_added_is_no_silent_nothing(tmp_path):
    with pytest.raises(KeyError):
        PhraseCache(tmp_path)["new"]


# -------------------------------------------------------------------------------------- token spans


def spans_by_looking(spans, offsets):
    found = []
    for start, end in spans:
        tokens = [t for t, (a, b) in enumerate(offsets) if b > start and a < end and b > a]
        if tokens and offsets[tokens[-1]][1] >= end:
            found.append((tokens[0], tokens[-1] + 1))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_token_spans_are_those_of_looking_at_every_token(seed):
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.integers(1, 5, 12))
    words = [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:] - rng.integers(0, 2, 11), strict=True) if b > a]
    offsets = np.asarray([(0, 0), *words, (0, 0), (0, 0)], np.int32)
    bounds = np.sort(rng.integers(0, edges[-1] + 4, (6, 2)), axis=1)
    spans = tuple((int(a), int(b)) for a, b in bounds if b > a)
    got = token_spans(spans, offsets)
    assert got.dtype == np.int32 and got.shape == (len(got), 2)
    assert [tuple(x) for x in got.tolist()] == spans_by_looking(spans, offsets.tolist())


def test_no_phrases_are_no_spans():
    assert token_spans((), np.zeros((4, 2), np.int32)).shape == (0, 2)
    assert token_spans(((0, 3),), np.zeros((4, 2), np.int32)).shape == (0, 2)


def test_a_phrase_cut_by_truncation_is_left_out():
    offsets = np.asarray([(0, 0), (0, 3), (4, 7), (0, 0)], np.int32)  # "the big" of "the big red car"
    assert token_spans(((0, 15), (0, 7), (8, 15)), offsets).tolist() == [[1, 3]]


def test_a_phrase_that_ends_in_a_combining_mark_is_not_lost():
    from contextjax.tokenizers import train_tokenizer

    text = "add a cafe\u0301"
    tokenizer = train_tokenizer([text], vocabulary=300, length=16)
    assert len(token_spans(((4, len(text)),), tokenizer([text]).offsets[0])) == 1


@pytest.mark.parametrize("length", [3, 5, 6, 8, 30])
def test_what_truncation_cuts_off_is_reported_from_what_has_no_tokens(length):
    """The whole text's tokens say which phrases there are; those that end past the kept ones are cut off."""
    from contextjax.tokenizers import train_tokenizer

    text = "a red dog and a big cat and two cups"
    spans = tuple((text.index(w), text.index(w) + len(w)) for w in ("a red dog", "a big cat", "two cups"))
    nowhere = ((len(text) + 3, len(text) + 5), (0, 0))  # as characters that a tokenizer drops
    encoded = train_tokenizer([text], vocabulary=400, length=length)([text])
    cut = bool(encoded.truncated[0])
    assert cut == (length < 11)
    kept = encoded.offsets[0][:, 1].max()
    for mixed in (spans, spans + nowhere[1:]):
        truncated, unaligned = lost_phrases(mixed, encoded.offsets[0], cut=cut)
        assert truncated == sum(end > kept for _, end in mixed)
        assert truncated + unaligned + len(token_spans(mixed, encoded.offsets[0])) == len(mixed)
        assert unaligned == (len(mixed) > 3)
    if not cut:
        assert lost_phrases(nowhere, encoded.offsets[0], cut=False) == (0, 2)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        *((phrase, True) for phrase in ("I", "it", "this one", "The other", "each other", "both", "the first one", "")),
        *((phrase, False) for phrase in ("the dog", "one dog", "that car", "it's dog", "two", "another color")),
    ],
)
def test_pronouns_name_nothing(phrase, expected):
    assert is_pronoun(phrase) == expected


def test_phrases_without_pronouns_keep_their_order():
    text = "it has a dog and this one"
    assert without_pronouns(text, ((0, 2), (7, 12), (17, 25))) == ((7, 12),)


def test_phrases_are_found_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    cache = PhraseCache(tmp_path / "file" / "prepared")
    assert cache.add([TEXT]) == 1 and cache[TEXT] == find_phrases([TEXT])[0]
