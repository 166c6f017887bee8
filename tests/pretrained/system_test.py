"""Plain CLIP and BLIP as systems: loaded from a folder, queried by sums, scoring candidates."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import contextjax
from contextjax.models.blip import BLIP
from contextjax.models.clip import CLIP
from contextjax.pretrained import write_own, write_pretrained
from contextjax.system import System
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from tests.pretrained.conftest import random_params

pytestmark = pytest.mark.long

TEXTS = ["a dog left of a bus", "the small cat", "no umbrella at all"]


@pytest.fixture(scope="module")
def systems(models, tmp_path_factory):
    """name -> (system, folder): vocabularies as large as a trained tokenizer needs."""
    import dataclasses

    systems = {}
    for name, model in models.items():
        tokenizer = train_tokenizer(TEXTS, vocabulary=280, length=10, first=name != "siglip")
        text = dataclasses.replace(model.config.text, vocabulary=280)
        if name == "siglip":
            text = dataclasses.replace(text, pad_token=tokenizer.pad)
        if name == "clip":
            text = dataclasses.replace(text, eos_token=tokenizer._last)
        config = dataclasses.replace(model.config, text=text)
        folder = tmp_path_factory.mktemp("systems") / name
        write_pretrained(folder, config, random_params(type(model)(config)))
        tokenizer.save(folder / "tokenizer.json")
        systems[name] = (contextjax.load(folder), folder)
    return systems


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((16, 16), (20, 31), (40, 17))]


def test_a_folder_becomes_a_system(systems, pictures):
    for name, module in (("clip", CLIP), ("blip", BLIP)):
        system, folder = systems[name]
        assert isinstance(system.model, module) and system.query == "sum" and system.fingerprint.startswith(str(folder))
        image, text = system.encode_gallery(pictures), system.encode_text(TEXTS)
        total = image + text
        expected = total / np.linalg.norm(total, axis=1, keepdims=True)
        np.testing.assert_allclose(system.encode_query(pictures, TEXTS), expected, atol=1e-5)
        np.testing.assert_allclose(system.with_query("text").encode_query(pictures, TEXTS), text, atol=1e-6)


def test_candidates_are_scored_by_cosine_by_matching_and_by_their_sum(systems, pictures):
    blip = systems["blip"][0]
    itc, odds = (blip.with_score(name).score_candidates(pictures, TEXTS[0]) for name in ("itc", "itm"))
    pixels, (ids, mask) = jnp.asarray(blip._pixels(pictures)), map(jnp.asarray, blip._tokens([TEXTS[0]] * 3))
    logits = np.asarray(blip.model.apply({"params": blip.params}, pixels, ids, mask)[2])
    itm = logits[:, 1]
    np.testing.assert_allclose(odds, logits[:, 1] - logits[:, 0], atol=1e-5)
    cosines = blip.encode_gallery(pictures) @ blip.encode_text(TEXTS[:1])[0]
    np.testing.assert_allclose(itc, cosines, atol=1e-5)
    assert blip.score == "sum" and np.ptp(itm) > 1e-3
    np.testing.assert_allclose(blip.score_candidates(pictures, TEXTS[0]), itc + itm, atol=1e-5)
    reversed_scores = blip.score_candidates(pictures[::-1], TEXTS[0])
    np.testing.assert_allclose(reversed_scores[::-1], itc + itm, atol=1e-5)
    clip = systems["clip"][0]
    cosines = clip.encode_gallery(pictures) @ clip.encode_text(TEXTS[:1])[0]
    np.testing.assert_allclose(clip.score_candidates(pictures, TEXTS[0]), cosines, atol=1e-5)


def test_blip2_scores_by_a_picture_s_nearest_vector_and_by_matching(systems, pictures):
    blip2 = systems["blip2"][0]
    tokens, text = blip2.encode_gallery_tokens(pictures), blip2.encode_text(TEXTS[:1])[0]
    assert tokens.shape == (3, 3, 8) and blip2.query == "sum" and blip2.score == "sum"
    np.testing.assert_allclose(blip2.encode_gallery(pictures), tokens.mean(1), atol=1e-6)
    itc, total = (blip2.with_score(name).score_candidates(pictures, TEXTS[0]) for name in ("itc", "sum"))
    np.testing.assert_allclose(itc, (tokens @ text).max(1), atol=1e-5)
    pixels, (ids, mask) = jnp.asarray(blip2._pixels(pictures)), map(jnp.asarray, blip2._tokens([TEXTS[0]] * 3))
    logits = np.asarray(blip2.model.apply({"params": blip2.params}, pixels, ids, mask)[2])
    np.testing.assert_allclose(total, itc + logits[:, 1], atol=1e-5)
    with pytest.raises(UserError, match="no token_mean"):
        blip2.with_query("token_mean")


@pytest.fixture
def towers(monkeypatch):
    """How many pictures (or sets) and rows every program is given."""
    calls, run = [], System._run

    def counted(self, program, *inputs, **mode):
        calls.append((len(inputs[0]), len(inputs[1])))
        return run(self, program, *inputs, **mode)

    monkeypatch.setattr(System, "_run", counted)
    return calls


def test_a_sets_pictures_are_encoded_once_for_all_its_texts(systems, pictures, towers):
    """Whatever order the descriptions come in; equal pixels are one picture, wherever they lie in memory."""
    blip = systems["blip"][0]
    sets = [pictures, [picture.copy() for picture in pictures[::-1]], [picture.copy() for picture in pictures]]
    sets, texts = [sets[0], sets[1], sets[2], sets[1]], [TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[0]]
    for name in blip.scores:
        towers.clear()
        together = blip.with_score(name).score_sets(sets, texts)
        assert towers == [(2, 4)]
        for row, (images, text) in enumerate(zip(sets, texts, strict=True)):
            alone = blip.with_score(name).score_candidates(images, text)
            np.testing.assert_allclose(together[row], alone, atol=1e-5)


def test_queries_and_maps_of_one_picture_encode_it_once(systems, pictures, towers):
    blip = systems["blip"][0]
    images = [pictures[0], pictures[1], pictures[0], pictures[0]]
    texts = [*TEXTS, TEXTS[0]]
    queries, maps = blip.encode_query(images, texts), blip.attention_maps(images, texts)
    assert towers == [(2, 4), (2, 4)]
    for row, (image, text) in enumerate(zip(images, texts, strict=True)):
        np.testing.assert_allclose(queries[row], blip.encode_query([image], [text])[0], atol=1e-5)
        (alone,) = blip.attention_maps([image], [text])
        np.testing.assert_allclose(maps[row].attention, alone.attention, atol=1e-5)


def test_padding_is_cut_to_what_the_texts_need(systems, pictures):
    """The longest text decides how long all are; no score changes."""
    for system, _ in systems.values():
        alone = system.encode_text(TEXTS[1:2])
        np.testing.assert_allclose(system.encode_text(TEXTS)[1:2], alone, atol=1e-5)


def test_unsupported_requests_are_refused(systems, pictures):
    clip, blip = systems["clip"][0], systems["blip"][0]
    for call, sentence in (
        (lambda: clip.with_query("fusion"), "no fusion"),
        (lambda: clip.with_query("sums"), "expected one of"),
        (lambda: clip.with_score("itm"), "no matching head"),
        (lambda: blip.with_score("best"), "expected one of"),
        (lambda: clip.attention_maps(pictures, TEXTS), "no attention maps"),
        (lambda: blip.with_score("selection"), "no trained score"),
        (lambda: blip.score_sets([pictures, pictures[:2]], TEXTS[:2]), "sets have 2 to 3 candidates"),
        (lambda: clip.set_features([pictures], TEXTS[:1]), "Only a ContextBLIP"),
        (lambda: blip.score_candidates([], TEXTS[0]), "no candidates"),
    ):
        with pytest.raises(UserError, match=sentence):
            call()
    assert np.isfinite(blip.score_candidates(pictures, " ")).all()  # published sets have blank texts


def test_loaded_onto_a_mesh_the_numbers_are_the_same(systems, pictures):
    for name in ("clip", "blip"):
        system, folder = systems[name]
        sharded = contextjax.load(folder, mesh="fsdp:4,tensor:2")
        np.testing.assert_allclose(
            sharded.encode_query(pictures, TEXTS), system.encode_query(pictures, TEXTS), atol=1e-5
        )


def test_options_of_load(systems, pictures):
    _, folder = systems["blip"]
    larger = contextjax.load(folder, image_size=32, text_length=5)
    assert larger.image_size == 32 and larger.truncated(TEXTS[:1]) and larger.encode_gallery(pictures).shape == (3, 8)


def test_a_tokenizer_of_another_model_is_refused(systems, tmp_path):
    folder = shutil.copytree(systems["clip"][1], tmp_path / "clip")
    train_tokenizer(TEXTS, vocabulary=290, length=10).save(folder / "tokenizer.json")
    with pytest.raises(UserError, match="not of one model"):
        contextjax.load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="tokenizer"):
        contextjax.load(folder)


def test_a_system_under_its_own_names_comes_back_bitwise(tiny, tmp_path, pictures):
    """ConText-CIR as safetensors with our parameter paths, beside its config and tokenizer."""
    from configs.base import base
    from contextjax.variants import make_model, spec_of
    from experiments.shared import models

    config = base()
    config.model.update(
        {"variant": "S16", "vision": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "stem": (4, 8)},
         "text": {"width": 8, "layers": 1, "positions": 10, "heads": 2}, "projection": 8, "fusion_heads": 4}
    )  # fmt: skip
    config.data.vocabulary = 280
    tokenizer = train_tokenizer(TEXTS, vocabulary=280, length=10)
    model = make_model(models.make_spec(config, vocabulary=tokenizer.vocabulary))
    params = type(tiny)().params(model)
    write_own(tmp_path / "out", spec_of(model, fingerprint="abc-7"), params)
    tokenizer.save(tmp_path / "out" / "tokenizer.json")
    system = contextjax.load(tmp_path / "out")
    assert system.fingerprint == "abc-7" and system.query == "fusion"
    expected = contextjax.System(model, params, tokenizer).encode_query(pictures, TEXTS)
    np.testing.assert_array_equal(system.encode_query(pictures, TEXTS), expected)
