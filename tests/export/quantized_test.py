"""int8 and its scales: within half a step of the numbers, a scale for each output or row, all else as it was."""

import numpy as np

from contextjax.export.quantized import LARGEST, SCALE, quantize

RNG = np.random.default_rng(0)
TENSORS = {
    name: RNG.normal(size=shape).astype(np.float32)
    for name, shape in {
        "clip.text.layer_0.attention.qkv_kernel": (6, 3, 5), "clip.text.layer_0.mlp.up.kernel": (6, 7),
        "adapter.convolution.kernel": (3, 3, 4, 5), "clip.text.token_embedding.embedding": (9, 6),
        "clip.text.position_embedding": (4, 6), "clip.text.layer_0.mlp.up.bias": (7,), "clip.logit_scale": (),
    }.items()
}  # fmt: skip
SCALES = {
    "clip.text.layer_0.attention.qkv_kernel": (1, 3, 5), "clip.text.layer_0.mlp.up.kernel": (1, 7),
    "adapter.convolution.kernel": (1, 1, 1, 5), "clip.text.token_embedding.embedding": (9, 1),
}  # fmt: skip


def test_numbers_are_within_half_a_step():
    stored = quantize(TENSORS)
    assert stored.keys() == TENSORS.keys() | {name + SCALE for name in SCALES}
    for name, x in TENSORS.items():
        if name not in SCALES:
            assert stored[name] is x
            continue
        low, scale = stored[name], stored[name + SCALE]
        assert low.dtype == np.int8 and scale.dtype == np.float32 and scale.shape == SCALES[name]
        assert np.abs(low).max() == LARGEST and (np.abs(low * scale - x) <= 0.5001 * scale).all()


def test_an_output_of_zeros_stays_zero():
    stored = quantize({"a.kernel": np.float32([[0, 1], [0, -2]])})
    np.testing.assert_array_equal((stored["a.kernel"] * stored["a.kernel" + SCALE])[:, 0], 0)
    assert np.isfinite(stored["a.kernel" + SCALE]).all()
