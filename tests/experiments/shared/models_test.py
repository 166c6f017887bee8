"""The model of a config: a pretrained one fixes the sizes."""

import pytest

from configs.context_cir import get_config
from contextjax.types import UserError
from experiments.shared import models


def test_of_a_pretrained_model_both_towers_are_scanned_or_none(tiny, tmp_path):
    from contextjax.models.clip import CLIP
    from contextjax.pretrained import write_pretrained
    from tests.pretrained.conftest import random_params

    config = get_config("B32")
    config.model.pretrained = str(write_pretrained(tmp_path / "clip", tiny.clip, random_params(CLIP(tiny.clip))))
    with config.unlocked():
        config.model.text.scan = True
    with pytest.raises(
        UserError, match=r"text\.scan is True, but .* model\.vision\.scan says, which is False; set both"
    ):
        models.resolve_model(config)
    with config.unlocked():
        config.model.vision.scan = True
    resolved = models.resolve_model(config)
    assert resolved["vision"]["scan"] and resolved["text"]["scan"]
