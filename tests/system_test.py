"""System: shapes, norms, padding, baselines, and its error messages."""

import numpy as np
import pytest

import contextjax
from contextjax import retriever
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError

TEXTS = ["remove the dog", "swap the dog and the small cat", "make it large"]


@pytest.fixture(scope="module")
def system(tiny):
    tokenizer = train_tokenizer(TEXTS, vocabulary=300, length=10)
    clip = tiny.clip
    import dataclasses

    wide = dataclasses.replace(clip, text=dataclasses.replace(clip.text, vocabulary=tokenizer.vocabulary))
    model = type(tiny)(clip=wide).model()
    return contextjax.System(model, type(tiny)(clip=wide).params(model), tokenizer)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((16, 16), (20, 31), (40, 17))]


def test_embeddings_are_normalised_and_do_not_depend_on_the_batch(system, pictures):
    queries, gallery = system.encode_query(pictures, TEXTS), system.encode_gallery(pictures)
    assert queries.shape == gallery.shape == (3, 8) and queries.dtype == gallery.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([queries, gallery]), axis=1), 1, atol=1e-5)
    one_by_one = np.concatenate([system.encode_query([p], [t]) for p, t in zip(pictures, TEXTS, strict=True)])
    np.testing.assert_allclose(queries, one_by_one, atol=1e-5)


def test_many_rows_go_in_parts(system, pictures, monkeypatch):
    whole, queries = system.encode_gallery(pictures * 3), system.encode_query(pictures * 3, TEXTS * 3)
    monkeypatch.setattr(retriever, "BATCH", 4)
    np.testing.assert_allclose(system.encode_gallery(pictures * 3), whole, atol=1e-5)
    for shares in (True, False):
        np.testing.assert_allclose(system.encode_query(pictures * 3, TEXTS * 3, shares=shares), queries, atol=1e-5)


def test_the_baselines_are_what_they_say(system, pictures):
    image, text = system.with_query("image"), system.with_query("text")
    np.testing.assert_allclose(image.encode_query(pictures, TEXTS), system.encode_gallery(pictures), atol=1e-5)
    reversed_pictures = text.encode_query(pictures[::-1], TEXTS)
    np.testing.assert_allclose(text.encode_query(pictures, TEXTS), reversed_pictures, atol=1e-5)
    total = image.encode_query(pictures, TEXTS) + text.encode_query(pictures, TEXTS)
    expected = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(system.with_query("sum").encode_query(pictures, TEXTS), expected, atol=1e-5)


def test_attention_maps_cover_the_text(system, pictures):
    maps = system.attention_maps(pictures, TEXTS)
    for found, text in zip(maps, TEXTS, strict=True):
        np.testing.assert_allclose(found.attention.sum(-1), 1, rtol=1e-5)
        assert found.attention.shape == (found.grid**2, len(found.offsets))
        start = text.index(text.split()[-1])
        assert found.phrase(start, len(text)).shape == (2, 2)
        assert found.offsets[:, 1].max() == len(text)


@pytest.mark.parametrize(
    ("images", "texts", "sentence"),
    [(1, ["a", "b"], "one text a picture"), (1, "a", "The texts are 'a', a str; expected a list")],
)
def test_mistakes_are_user_errors(system, pictures, images, texts, sentence):
    with pytest.raises(UserError, match=sentence):
        system.encode_query(pictures[:images], texts)


def test_nothing_is_encoded_as_no_rows(system):
    for embeddings in (system.encode_gallery([]), system.encode_text([]), system.encode_query([], [])):
        assert embeddings.shape == (0, system.spec.projection) and embeddings.dtype == np.float32
    assert system.truncated([]) == [] and system.attention_maps([], []) == []


def test_a_blank_text_is_asked_as_the_others_are(system, pictures):
    """Published splits hold some, and benchmarks count them."""
    blank, *_ = system.encode_query(pictures[:2], [" ", "a red thing"])
    np.testing.assert_allclose(blank, system.encode_query(pictures[:1], [""])[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(blank), 1, atol=1e-5)


def test_what_a_system_cannot_do_is_a_user_error(system, pictures):
    with pytest.raises(UserError, match=r"text 'big \\udcff' holds bytes that are not UTF-8"):
        system.encode_text(["big \udcff"])
    with pytest.raises(UserError, match="no attention maps"):
        system.with_query("sum").attention_maps(pictures, TEXTS)
    assert system.truncated(["remove the dog"]) == []
    cut = system.truncated(["remove the dog " * 5])[0]
    assert ("remove the dog " * 5).startswith(cut) and len(cut) < 75


def test_a_query_is_the_raw_sum_with_its_template(system, tiny):
    pictures = list(np.asarray(tiny.pictures(2)))
    asked = system.with_query("raw_sum", "the dog {}")
    image, text = system.image_features(pictures), system.text_features([f"the dog {text}" for text in TEXTS[:2]])
    expected = (image + text) / np.linalg.norm(image + text, axis=-1, keepdims=True)
    np.testing.assert_allclose(asked.encode_query(pictures, TEXTS[:2]), expected, atol=1e-5)
    assert asked.spec.template == "the dog {}" and asked.with_query("sum").template == "{}"
    assert asked.with_query("raw_sum").template == "the dog {}"
    for template in ("no text", "{} {}", "a * {}"):
        with pytest.raises(UserError, match=r"expected no \* and one \{\} for the text"):
            system.with_query("raw_sum", template)
    with pytest.raises(UserError, match="This system has no combiner; it is queried by 'fusion'"):
        system.with_query("combiner")
