"""Every published model that recipes start from is a variant, of the family that its name says."""

import pytest

from configs.base import base
from configs.towers import CLIPS, SIGLIPS, TINY_SIGLIP, TOWERS, start_from
from contextjax.variants import VARIANTS


@pytest.mark.parametrize("size", TOWERS)
def test_a_recipe_starts_from_it_with_texts_that_fit(size):
    config = base()
    start_from(config, size)
    assert (config.model.variant, config.model.pretrained) == (size, TOWERS[size])
    assert VARIANTS[size].is_siglip == (size in SIGLIPS) and (size in CLIPS) != (size in SIGLIPS)
    assert config.data.text_length == config.data.caption_length == VARIANTS[size].text.positions


def test_the_tiny_siglip_has_nothing_to_read():
    config = base("clip")
    start_from(config, TINY_SIGLIP)
    assert VARIANTS[config.model.variant].is_siglip and not config.model.pretrained
