"""Figures of noun phrases: the texts read, the published match, and a word that only offsets place rightly."""

import json

import numpy as np
import pytest

from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from experiments.shared.phrase_figures import describe, first_run, read_texts

TEXTS = ["a soda bottle beside the soda", "add the red bus", "nothing"]
PHRASES = [((0, 13), (25, 29)), ((4, 15),), ()]  # "a soda bottle", "soda"; "the red bus"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 9, vocabulary=400, length=16)


@pytest.mark.parametrize(
    ("wanted", "place"),
    [([5, 6], (1, 3)), ([6, 5], (2, 4)), ([7], (5, 6)), ([6, 6], None), ([], None), ([9, 5, 6, 5, 6, 7, 8], None)],
)
def test_the_first_run_of_ids(wanted, place):
    assert first_run(np.asarray([9, 5, 6, 5, 6, 7]), np.asarray(wanted)) == place


def test_a_repeated_word_is_found_at_its_own_place_by_offsets_only(tokenizer):
    lines = describe(TEXTS, PHRASES, tokenizer, examples=3)
    text = "\n".join(lines)
    assert "phrases per text: mean 1.00, max 2; 1 texts have none" in text
    assert "matched by offsets: 3 of 3 (100.00 %)" in text and "matched by ids: 3 of 3 (100.00 %)" in text
    assert "different tokens: 1 of 3 (33.33 %)" in text
    assert lines[-1] == f"  different: 'soda' in '{TEXTS[0]}': offsets (6, 7), ids (2, 3)"


def test_texts_without_phrases_have_figures_too(tokenizer):
    assert "matched by ids: 0 of 0 (0.00 %)" in "\n".join(describe(["run"], [()], tokenizer, examples=1))


def test_texts_are_read_without_pictures(tmp_path):
    file = tmp_path / "captions" / "cap.rc2.val.json"
    file.parent.mkdir()
    file.write_text(json.dumps([{"pairid": 1, "reference": "a", "target_hard": "b", "caption": "add a cat"}]))
    splits = tmp_path / "image_splits" / "split.rc2.val.json"
    splits.parent.mkdir()
    splits.write_text(json.dumps({"a": "dev/a.png", "b": "dev/b.png"}))
    assert read_texts(tmp_path, "val") == read_texts(file, "val") == ["add a cat"]
    file.write_text(json.dumps([{"caption": 3}]))
    with pytest.raises(UserError, match="no list of objects with a caption"):
        read_texts(file, "val")
