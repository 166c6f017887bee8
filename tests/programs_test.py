"""The compiled programs: what they compute, and that a model is compiled once for each shape."""

import dataclasses
import re

import numpy as np
import pytest

from contextjax import programs
from contextjax.models import blip
from contextjax.spec import ENC, scores_of
from tests.models.context_blip_test import BLIP, random_params


def test_retrieval_costs_nothing_of_the_consistency_branch(tiny):
    """The programs of query and gallery hold the matrix products of towers, fusion and head, and no other."""
    model = tiny.model()
    config = model.config
    vision, text = config.clip.vision, config.clip.text
    block = 6  # qkv, scores, mixture, out, up, down
    tower = 1 + block * vision.layers  # with the patches
    fusion = 8 * config.fusion_layers  # q, k, v apart
    pooling = 6
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    ids, mask = np.zeros((2, 10), np.int32), np.ones((2, 10), bool)
    for program, inputs, expected in (
        (programs.embed_query, (pixels, ids, mask), tower + block * text.layers + fusion + pooling + 1),
        (programs.embed_gallery, (pixels,), tower + 1),
    ):
        mode = {"mode": "fusion"} if program is programs.embed_query else {}
        lowered = program.lower(model, tiny.params(model), *inputs, **mode).as_text()
        assert len(re.findall(r"dot_general", lowered)) == expected


@pytest.mark.long
def test_rows_of_one_picture_are_as_if_each_had_its_own(tiny):
    """Every program with `rows` is checked; other parameters of the same shapes compile nothing more."""
    model, rng = tiny.model(), np.random.default_rng(0)
    params, pixels = tiny.params(model), rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    ids, mask, rows = rng.integers(3, 30, (3, 10), np.int32), np.ones((3, 10), bool), np.asarray([0, 1, 0], np.int32)
    for mode in ("fusion", "image", "text", "sum"):
        shared = programs.embed_query(model, params, pixels, ids, mask, rows, mode=mode)
        alone = programs.embed_query(model, params, pixels[rows], ids, mask, mode=mode)
        np.testing.assert_allclose(shared, alone, atol=1e-6)
    before = programs.embed_query._cache_size()
    programs.embed_query(model, tiny.params(model, seed=1), pixels, ids, mask, rows, mode="fusion")
    assert programs.embed_query._cache_size() == before
    maps = programs.attention(model, params, pixels, ids, mask, rows)
    assert maps.shape == (3, 5, 10) and maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)


@pytest.mark.long
def test_the_mean_of_two_blocks_attention_is_that_of_the_first_and_the_last(tiny):
    """With one block the mean is the last; with two, the mean of the first block's, as if alone, and the last."""
    for layers in (1, 2):
        model = tiny.model(fusion_layers=layers)
        params, rng = tiny.params(model), np.random.default_rng(0)
        inputs = rng.integers(0, 256, (2, 16, 16, 3), np.uint8), rng.integers(3, 30, (2, 10), np.int32)
        inputs = *inputs, np.ones((2, 10), bool), np.arange(2, dtype=np.int32)
        every, last = (programs.attention(model, params, *inputs, mode=mode) for mode in ("all", "last"))
        np.testing.assert_allclose(last.sum(-1), 1, rtol=1e-5)
        if layers == 1:
            np.testing.assert_allclose(every, last, atol=1e-6)
        else:
            first = {name: x for name, x in params.items() if name != "fusion_1"}
            alone = programs.attention(tiny.model(fusion_layers=1), first, *inputs)
            np.testing.assert_allclose((alone + last) / 2, every, atol=1e-5)


@pytest.mark.long
def test_a_blip_matches_with_enc_in_place_of_cls():
    """Position 0 holds [ENC], as in BLIP's retrieval evaluation; "itm_cls" keeps [CLS]; no [ENC], no such rows."""
    config = dataclasses.replace(BLIP, text=dataclasses.replace(BLIP.text, vocabulary=ENC + 1))
    model, rng = blip.BLIP(config), np.random.default_rng(0)
    params, pixels = random_params(model), rng.integers(0, 256, (1, 3, 16, 16, 3), np.uint8)
    ids, mask = rng.integers(3, 30, (1, 10), np.int32), np.ones((1, 10), bool)

    def score(mode, ids):
        short = ids[:, None], mask[:, None]
        return programs.score_sets(model, params, pixels, ids, mask, *short, np.zeros(1, bool), np.zeros(1, np.int32),
                                   mode=mode)  # fmt: skip

    with_enc = ids.copy()
    with_enc[:, 0] = ENC
    for mode in ("itm", "sum"):
        got = score(mode, ids)
        assert np.abs(got - score(f"{mode}_cls", ids)).max() > 1e-3
        if mode == "itm":
            np.testing.assert_allclose(got, score("itm_cls", with_enc), atol=1e-5)
    assert scores_of("blip", {}, vocabulary=ENC + 1) == ("itc", "itm_cls", "sum_cls", "itm", "sum")
    assert scores_of("blip", {}, vocabulary=ENC) == ("itc", "itm", "sum")
