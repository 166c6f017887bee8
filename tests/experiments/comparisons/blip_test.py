"""The inputs of stage 1: negatives are other rows, and the masked position is a real token."""

import numpy as np

from experiments.comparisons.blip import make_stage1_batch


def test_draws_are_negatives_at_real_tokens():
    batch, draws = make_stage1_batch("tiny", 4)
    own = np.arange(4)
    assert (draws.negative_image != own).all() and (draws.negative_text != own).all()
    assert batch.texts.mask[own, draws.position].all() and not batch.texts.mask.all()
    assert draws.noise.shape == (4, 16)
