"""The table of the costs of the contrastive loss's forms."""

import json

from tests.commands import in_process


def test_the_table_has_every_form(tmp_path):
    sizes = ["--devices=2", "--batches=64", "--width=64", "--chunk=16"]
    done = in_process("contrastive", *sizes, f"--output={tmp_path / 'rows.json'}")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["form"] for row in rows] == ["gathered", "chunked", "ring"]
    assert done.stdout.count("| 2 | 64 |") == 3
    for row in rows:
        assert row["formula"] <= row["sent"] <= 1.1 * row["formula"]  # embeddings this narrow: their marks count
        assert row["temporary"] > 0


def test_a_number_that_is_none_is_refused():
    done = in_process("contrastive", "--devices=1")
    assert done.returncode == 2 and "'1' is no number of devices or queries" in done.stderr
