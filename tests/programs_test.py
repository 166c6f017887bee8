"""The compiled programs: what they compute, and that a model is compiled once for each shape."""

import re

import numpy as np

from contextjax import programs


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
