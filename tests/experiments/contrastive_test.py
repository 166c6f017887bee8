"""The form of the contrastive loss that a config asks for, and the table of what the forms cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contextjax.losses.contrastive import contrastive_loss
from contextjax.types import UserError
from experiments.shared.contrastive import contrastive_form

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "chunk", "sentence"), [("rings", 0, "rings"), ("gathered", 8, "8"), ("ring", -1, "-1")]
)
def test_forms_that_do_not_exist_are_told(name, chunk, sentence):
    with pytest.raises(UserError, match=sentence):
        contrastive_form(name, chunk, "data:-1")


def test_the_plain_form_is_the_default():
    assert contrastive_form("gathered", 0, "data:-1") is contrastive_loss


def test_the_table_has_every_form(tmp_path):
    sizes = ["--devices=2", "--batches=64", "--width=64", "--chunk=16"]
    command = [sys.executable, "-m", "experiments.contrastive", *sizes, f"--output={tmp_path / 'found.json'}"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["form"] for row in found] == ["gathered", "chunked", "ring"]
    assert printed.count("| 2 | 64 |") == 3
    for row in found:
        assert row["formula"] <= row["sent"] <= 1.1 * row["formula"]  # embeddings this narrow: their marks count
        assert row["temporary"] > 0
