"""Maps of phrases: which are shown, what they are means of, and that alone is another text than in context."""

import dataclasses

import numpy as np
import pytest

import contextjax
from contextjax.reports import phrase_maps
from contextjax.reports.maps import weights
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from tests.reports.conftest import FakeSystem

TEXT = "swap the dog and the small cat"
PICTURE = np.zeros((16, 16, 3), np.uint8)


def spans(text, *phrases):
    return [(text.index(phrase), text.index(phrase) + len(phrase)) for phrase in phrases]


@pytest.fixture(scope="module")
def system(tiny):
    """Random parameters; texts of at most 8 tokens between the first and the last."""
    tokenizer = train_tokenizer([TEXT] * 9, vocabulary=300, length=10)
    clip = dataclasses.replace(tiny.clip, text=dataclasses.replace(tiny.clip.text, vocabulary=tokenizer.vocabulary))
    model = type(tiny)(clip=clip).model()
    return contextjax.System(model, type(tiny)(clip=clip).params(model), tokenizer)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(2)]


def test_maps_are_means_over_the_phrases_own_tokens(system, pictures):
    (found,) = phrase_maps(
        system, pictures[:1], [TEXT], phrases_of=lambda text: spans(text, "the dog", "the small cat")
    )
    assert [maps.phrase for maps in found] == ["the dog", "the small cat"]
    for maps in found:
        assert TEXT[maps.start : maps.end] == maps.phrase
        (context,) = system.attention_maps(pictures[:1], [TEXT])
        (alone,) = system.attention_maps(pictures[:1], [maps.phrase])
        inside = [TEXT[a:b] in maps.phrase and maps.start <= a < b <= maps.end for a, b in context.offsets]
        expected = context.attention[:, inside].mean(-1), alone.attention[:, 1:-1].mean(-1)
        for heat, flat in zip((maps.in_context, maps.alone), expected, strict=True):
            assert heat.shape == (2, 2)
            np.testing.assert_allclose(heat.ravel(), flat, atol=1e-5)


def test_alone_differs_from_in_context_unless_the_phrase_is_the_text(system, pictures):
    texts = [TEXT, "the dog"]
    mixed, same = phrase_maps(system, pictures, texts, phrases_of=lambda text: spans(text, "the dog"))
    assert np.abs(mixed[0].in_context - mixed[0].alone).max() > 1e-3
    np.testing.assert_allclose(same[0].in_context, same[0].alone, atol=1e-6)


def test_a_query_has_the_same_maps_whatever_is_asked_with_it(system, pictures):
    find = lambda text: spans(text, "the dog")
    together = phrase_maps(system, pictures, [TEXT, "remove the dog"], phrases_of=find)
    (single,) = phrase_maps(system, pictures[1:], ["remove the dog"], phrases_of=find)
    np.testing.assert_allclose(together[1][0].alone, single[0].alone, atol=1e-5)
    np.testing.assert_allclose(together[1][0].in_context, single[0].in_context, atol=1e-5)


def test_what_has_no_tokens_or_was_not_read_to_its_end_is_left_out(system, pictures):
    text = TEXT + " and a zebra crossing"
    (read,) = system.truncated([text])
    find = lambda text: [
        *spans(text, "the dog"),
        (4, 5),
        (3, 3),
        (len(read) - 2, len(text)),
        (len(text), len(text) + 9),
    ]
    (found,) = phrase_maps(system, pictures[:1], [text], phrases_of=find)
    assert [maps.phrase for maps in found] == ["the dog"]


def test_the_largest_weight_is_where_the_phrase_is_read_most():
    """Patch p of the fake reads word p most."""
    text = "swap one two three"
    (found,) = phrase_maps(FakeSystem(), [PICTURE], [text], phrases_of=lambda text: spans(text, "two", "swap"))
    assert [int(maps.in_context.argmax()) for maps in found] == [2, 0]
    assert found[0].in_context.shape == (2, 2)


def test_texts_without_phrases_have_no_maps_and_a_limit_keeps_the_first(system, pictures):
    assert phrase_maps(system, pictures, [TEXT, TEXT], phrases_of=lambda text: []) == [[], []]
    (tokens,) = phrase_maps(system, pictures[:1], [TEXT], limit=3)
    offsets = system.tokenizer([TEXT]).offsets[0, 1:4].tolist()
    assert [[maps.start, maps.end] for maps in tokens] == offsets


def test_a_system_without_fusion_is_told(system, pictures):
    with pytest.raises(UserError, match="no fusion"):
        phrase_maps(system.with_query("sum"), pictures[:1], [TEXT])


def test_weights_in_words():
    assert weights(np.asarray([[0.15, 0.2504]])) == "0.150–0.250"
    assert weights(np.asarray([[0.0, 0.0009]])) == "below 0.001"
