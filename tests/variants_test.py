"""The size table: a resolved section, a spec and a module say the same, and a wrong field is named."""

import pytest

from configs.pictograms import get_config
from contextjax.variants import VARIANTS, make_model, make_spec, resolve


@pytest.mark.parametrize("variant", VARIANTS)
def test_resolved_sizes_build_the_same_model(variant):
    from configs.base import base

    systems = {"BLIP-": "context_blip", "BLIP2": "covr2"}
    config = base(systems.get(variant[:5], "context_cir"))
    config.model.variant = variant
    if variant == "BLIP-S16":  # whose width and vocabulary are those of a small model
        config.model.fused_token = None
        config.model.decoder_heads = config.model.context_heads = 4
    before = make_model(make_spec(config.model))
    with config.unlocked():
        config.model = resolve(config.model)
    assert make_model(make_spec(config.model)) == before


def test_an_unknown_field_of_a_tower_is_told():
    from contextjax.types import UserError

    config = get_config()
    with config.unlocked():
        config.model.vision.widht = 3
    with pytest.raises(UserError, match="widht"):
        make_model(make_spec(config.model))


@pytest.mark.parametrize(("size", "near"), [(100, "96 or 112"), (17, "16 or 32"), (10, "16")])
def test_a_size_that_patches_do_not_fill_names_the_nearest(size, near):
    from configs.base import base
    from contextjax.types import UserError

    config = base()
    config.model.vision.image_size = size
    with pytest.raises(UserError, match=rf"image_size is {size}; expected a multiple of 16, the patch size: {near}\."):
        resolve(config.model)
