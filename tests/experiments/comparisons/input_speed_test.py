"""The comparison of input speed: its data, one timing of everything that starts no process, the table."""

import numpy as np
import pytest

from experiments.comparisons import input_case


@pytest.mark.parametrize("kind", ["JPEG 500x375", "PNG 640x480"])
def test_ours_and_pillow_give_the_same_pixels(tmp_path, kind):
    input_case.write_cirr(tmp_path, kind, count=8)
    samples = input_case.make_samples(tmp_path)
    assert len(samples) == 8
    path = tmp_path / "train" / f"train-3{input_case.KINDS[kind][1]}"
    bare = np.asarray(input_case.bare_pillow(path.read_bytes()))
    left = (bare.shape[1] - 224) // 2
    picture = samples.data.pictures[samples.data.pictures.row["train-3"]]
    np.testing.assert_array_equal(picture, bare[:, left : left + 224])
    sizes = {"JPEG 500x375": (20_000, 90_000), "PNG 640x480": (250_000, 700_000)}
    assert sizes[kind][0] < path.stat().st_size < sizes[kind][1]  # about what photographs of that size take


def test_a_row_is_timed_and_told(tmp_path):
    input_case.write_cirr(tmp_path, "JPEG 500x375", count=8)
    with input_case.one_core():
        row = input_case.beside_pillow(tmp_path, batch=2, steps=2, rounds=1)
    assert row["seconds"][0] > 0 and row["pillow_seconds"][0] > 0
    assert row["ratio"] == row["pillow_seconds"][0] / row["seconds"][0]
    training = {"seconds": {"loader": [0.2], "one_batch": [0.15]}, "wait_share": 0.25, "model": "S16"}
    found = {"one_core": {"JPEG": row}, "processes": {1: [2.0], 2: [3.0]}, "target": 0.9, "training": training}
    told = input_case.table(found)
    assert "1.50x" in told and "200 with the loader" in told and "25.0 %" in told
