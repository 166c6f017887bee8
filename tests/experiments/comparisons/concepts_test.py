"""The cost of concepts: the batch of both sides, and the whole comparison at a tiny size."""

import numpy as np
import pytest

from contextjax.models.clip import CLIPConfig
from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.types import UserError
from experiments.comparisons import concepts


@pytest.mark.parity
def test_losses_agree_with_pytorch_and_all_are_timed(compare_tiny):
    tables = compare_tiny(concepts, batch=2, phrases=2)
    assert all(row["difference"] < 1e-5 for row in tables["checked"].values())
    together, alone = (tables["programs"][name] for name in concepts.NAIVE.values())
    assert together["flops"] == alone["flops"] > 1.3 * tables["programs"][concepts.WITHOUT]["flops"]
    ours = {name: tables["programs"][name]["flops"] for name in concepts.LOSSES}
    assert ours["without"] < ours["with"] and len(tables["ratios"]) == 5


def test_an_unknown_naive_form_is_refused():
    with pytest.raises(UserError, match="--naive has 'apart'; expected together or one_by_one"):
        concepts.compare(concepts.Options(naive=("apart",)))


def test_phrases_alone_are_those_in_the_texts():
    clip = CLIPConfig(VisionConfig(8, 4, 8, 1, 1, 8), TextConfig(49408, 40, 8, 1, 1, 8), 8)
    batch = concepts.make_batch(ContextCIR(ContextCIRConfig(clip)), 3, 4)
    texts, phrases = batch.texts, batch.phrases
    assert phrases is not None
    for text, (start, end), alone in zip(phrases.text[0], phrases.span[0], phrases.tokens.ids[0], strict=True):
        np.testing.assert_array_equal(alone[1:4], texts.ids[text, 0, start:end])
    assert phrases.tokens.mask.sum() == 3 * 4 * 5
