"""The comparison of speed: model FLOPs against XLA's count, rounds, the table. No PyTorch needed."""

import jax
import jax.numpy as jnp
import pytest

from contextjax.models.clip import CLIP, CLIPConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from experiments.comparisons import measure

VISION = VisionConfig(image_size=224, patch_size=32, width=768, layers=12, heads=12, mlp=3072)
TEXT = TextConfig(vocabulary=49408, positions=77, width=512, layers=12, heads=8, mlp=2048)


def test_flops_of_b32_are_the_published_ones():
    # OpenCLIP's model profile of ViT-B-32: 4.4 and 3.0 (rounded) thousand million multiply-adds.
    assert measure.image_flops(VISION, 512) / 2e9 == pytest.approx(4.41, abs=0.02)
    assert measure.text_flops(TEXT, 512, length=77) / 2e9 == pytest.approx(2.98, abs=0.02)
    step = measure.step_flops(CLIPConfig(VISION, TEXT, 512), 16, length=77)
    assert 2.9 < step / 16 / (measure.image_flops(VISION, 512) + measure.text_flops(TEXT, 512, length=77)) < 3


def test_flops_are_what_xla_counts():
    # Wide enough that the matrix products are nearly all there is.
    config = CLIPConfig(
        VisionConfig(image_size=32, patch_size=8, width=128, layers=1, heads=2, mlp=512),
        TextConfig(vocabulary=8, positions=16, width=128, layers=1, heads=2, mlp=512),
        projection=64,
    )
    model = CLIP(config)
    inputs = jnp.zeros((2, 32, 32, 3), jnp.uint8), jnp.zeros((2, 16), jnp.int32), jnp.ones((2, 16), bool)
    params = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    counted = jax.jit(model.apply).lower(params, *inputs).cost_analysis()["flops"]
    ours = 2 * (measure.image_flops(config.vision, 64) + measure.text_flops(config.text, 64, length=16))
    assert ours <= counted <= 1.05 * ours


def test_rounds_turn_about():
    calls = []
    programs = [lambda: calls.append("a"), lambda: calls.append("b")]
    times = measure.rounds(programs, 3, seconds=0)
    assert [len(t) for t in times] == [3, 3]
    assert calls == [*"aa", *"bb", *"ab", *"ba", *"ab"]


def test_a_row_is_told_by_medians_of_the_same_rounds():
    row = measure.Row("forward", 8, "float32", 1e9, 1e-6, [1.0, 2.0, 1.0], [2.0, 3.0, 4.0], [2e9, 1e9, 2e9])
    summary = row.summary()
    assert (summary["ratio"], summary["ratio_min"], summary["ratio_max"]) == (2.0, 1.5, 4.0)
    assert summary["images_per_second"] == 8 and summary["roofline"] == 0.5
    lines = measure.table([row]).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1
    assert "2.00x (1.50 to 4.00)" in lines[-1] and "50 % of 2 GFLOP/s" in lines[-1]


def test_the_machine_has_a_name():
    assert measure.cpu_model()
