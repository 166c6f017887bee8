"""CLIP beside PyTorch: its FLOPs by hand, rows, and the whole comparison at a tiny size."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from contextjax.analysis.cost import traced_flops
from contextjax.models.clip import CLIP, CLIPConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.types import Tokens, TrainState, UserError
from experiments.comparisons import clip
from experiments.comparisons.training import make_update
from tests.analysis.by_hand import image_flops, step_flops, text_flops

B32 = CLIPConfig(
    VisionConfig(image_size=224, patch_size=32, width=768, layers=12, heads=12, mlp=3072),
    TextConfig(vocabulary=49408, positions=77, width=512, layers=12, heads=8, mlp=2048),
    512,
)


def test_flops_of_b32_are_the_published_ones():
    # OpenCLIP's model profile of ViT-B-32: 4.4 and 3.0 (rounded) thousand million multiply-adds.
    image, text = image_flops(B32.vision, 512), text_flops(B32.text, 512, length=77)
    assert image / 2e9 == pytest.approx(4.41, abs=0.02)
    assert text / 2e9 == pytest.approx(2.98, abs=0.02)
    assert 2.9 < step_flops(B32, 16, length=77) / 16 / (image + text) < 3


def test_flops_of_a_step_are_those_by_hand():
    config = CLIPConfig(
        dataclasses.replace(B32.vision, layers=2, image_size=64), dataclasses.replace(B32.text, layers=1), 512
    )
    model, optimizer = CLIP(config), optax.adamw(**clip.OPTIMIZER)
    shape = jax.ShapeDtypeStruct
    images, ids = shape((4, 64, 64, 3), jnp.uint8), shape((4, 77), jnp.int32)
    texts = Tokens(ids, shape(ids.shape, bool))  # pyright: ignore[reportArgumentType]
    params = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), images, *texts))["params"]
    state = jax.eval_shape(lambda p: TrainState.fresh(p, optimizer.init(p), jax.random.key(0)), params)
    update = make_update(clip.ClipObjective(model), optimizer)
    assert traced_flops(update, state, (images, texts)) == step_flops(config, 4, length=77)


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
    ours = 2 * (image_flops(config.vision, 64) + text_flops(config.text, 64, length=16))
    assert ours <= counted <= 1.05 * ours


def test_rates_are_medians_of_the_same_rounds():
    flop = 2 * clip.MATMUL**3
    names = "forward-8-float32", "PyTorch forward-8-float32", "matmul beside forward-8-float32"
    times = [1.0, 2.0, 1.0], [2.0, 3.0, 4.0], [flop / 2e9, flop / 1e9, flop / 2e9]
    programs = {name: {"seconds": t} for name, t in zip(names, times, strict=True)}
    rates = clip.rates(programs, names[0], batch=8, flops=1e9)
    assert rates["images/s"] == 8 and rates["PyTorch images/s"] == pytest.approx(8 / 3)
    assert rates["share of the matmul roofline"] == pytest.approx(0.5)
    assert rates["matmul FLOP/s"] == pytest.approx(2e9)


def test_rows_are_read_or_refused():
    assert [clip.parse_row(row)[1] for row in clip.ROWS] == [8, 32, 16, 8, 32, 16]
    for row in ("forward-8", "backward-8-float32", "step-x-float32", "step-8-int8", ""):
        with pytest.raises(UserError, match="--rows has"):
            clip.parse_row(row)


@pytest.mark.parity
def test_outputs_agree_with_pytorch_and_all_are_timed(compare_tiny):
    rows = ("forward-2-float32", "step-3-float32", "forward-2-bfloat16", "step-2-bfloat16")
    tables = compare_tiny(clip, rows=rows, seconds=0.0)
    assert len(tables["checked"]) == 6 and len(tables["programs"]) == 12
    assert tables["checked"]["step-3-float32, 2"]["difference"] < 1e-5
    assert tables["checked"]["step-3-float32, 1"]["result"] != tables["checked"]["step-3-float32, 2"]["result"]
    assert set(tables["rates"]) == set(rows)
