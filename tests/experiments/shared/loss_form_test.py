"""The form of the contrastive loss that a config asks for."""

import pytest

from contextjax.losses.contrastive import contrastive_loss
from contextjax.types import UserError
from experiments.shared.loss_form import contrastive_form


@pytest.mark.parametrize(
    ("name", "chunk", "sentence"), [("rings", 0, "rings"), ("gathered", 8, "8"), ("ring", -1, "-1")]
)
def test_unknown_forms_are_refused(name, chunk, sentence):
    with pytest.raises(UserError, match=sentence):
        contrastive_form(name, chunk, "data:-1")


def test_the_plain_form_is_the_default():
    assert contrastive_form("gathered", 0, "data:-1") is contrastive_loss
