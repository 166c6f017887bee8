"""Probes that were written are read for the checkpoint and the split that they are of."""

import json

import pytest

from contextjax.types import UserError
from experiments.shared.run_probes import FILE, probe_run, read_probes


def test_probes_are_of_one_checkpoint_and_split(tmp_path):
    assert read_probes(tmp_path, split="val", fingerprint="abc-7") == {}
    written = {"config_hash": "abc", "step": 7, "split": "val", "probes": {"blur": {"0": 50.0}}}
    (tmp_path / FILE).write_text(json.dumps(written))
    assert read_probes(tmp_path, split="val", fingerprint="abc-7") == written["probes"]
    assert read_probes(tmp_path, split="test", fingerprint="abc-7") == {}
    assert read_probes(tmp_path, split="val", fingerprint="abc-8") == {}


def test_a_source_needs_its_data(tmp_path):
    with pytest.raises(UserError, match="--data or --protocol is missing"):
        probe_run(tmp_path, source="owner/name")
