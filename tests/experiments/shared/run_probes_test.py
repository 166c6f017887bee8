"""Probes that were written are read for the checkpoint and the split that they are of."""

import json

import pytest

from contextjax.types import UserError
from experiments.shared.run_probes import probe_run, probes_file, read_probes

OF = {"split": "val", "fingerprint": "abc-7", "identity": "1f"}


def test_probes_are_of_one_checkpoint_split_and_data(tmp_path):
    file = tmp_path / probes_file("evaluation.json")
    assert file.name == "probes.json" and probes_file("evaluation.test.json") == "probes.test.json"
    assert read_probes(file, **OF) == {}
    written = {"config_hash": "abc", "step": 7, "split": "val", "data": {"identity": "1f"}, "probes": {"blur": []}}
    file.write_text(json.dumps(written))
    assert read_probes(file, **OF) == written
    for other in ({"split": "test"}, {"fingerprint": "abc-8"}, {"identity": "2f"}):
        assert read_probes(file, **OF | other) == {}


def test_a_source_needs_its_data(tmp_path):
    with pytest.raises(UserError, match="--data or --protocol is missing"):
        probe_run(tmp_path, source="owner/name")
