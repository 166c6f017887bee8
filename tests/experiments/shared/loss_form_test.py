"""The form of the contrastive loss that a config asks for."""

import pytest

from configs.base import base
from contextjax.losses.contrastive import contrastive_loss
from contextjax.losses.sigmoid import sigmoid_loss
from contextjax.models.clip import CLIP
from contextjax.types import UserError
from contextjax.variants import VARIANTS
from experiments.shared.loss_form import contrastive_form, pair_loss


@pytest.mark.parametrize(
    ("name", "chunk", "sentence"), [("rings", 0, "rings"), ("gathered", 8, "8"), ("ring", -1, "-1")]
)
def test_unknown_forms_are_refused(name, chunk, sentence):
    with pytest.raises(UserError, match=sentence):
        contrastive_form(name, chunk, "data:-1")


def test_the_plain_form_is_the_default():
    assert contrastive_form("gathered", 0, "data:-1") is contrastive_loss


def test_siglips_loss_is_for_siglips_and_has_no_direction():
    config, clip, siglip = base(), *(CLIP(VARIANTS[name]) for name in ("S16", "SigLIP-S16"))
    assert pair_loss(config, clip) is pair_loss(config, siglip) is contrastive_loss
    config.loss.sigmoid = True
    assert pair_loss(config, siglip) is sigmoid_loss
    with pytest.raises(UserError, match="only a SigLIP's towers have the learned bias"):
        pair_loss(config, clip)
    config.loss.one_direction = True
    with pytest.raises(UserError, match="one_direction is for InfoNCE"):
        pair_loss(config, siglip)
