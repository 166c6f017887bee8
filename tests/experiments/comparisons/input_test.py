"""The comparison of input speed: its data, one timing of everything that starts no process, the share that waits."""

import numpy as np
import pytest

from experiments.comparisons import input as case


@pytest.mark.parametrize("kind", ["JPEG 500x375", "PNG 640x480"])
def test_ours_and_pillow_give_the_same_pixels(tmp_path, kind):
    case.write_cirr(tmp_path, kind, count=8)
    data, _ = case.load_samples(tmp_path)
    assert len(data.records) == 8
    path = tmp_path / "train" / f"train-3{case.KINDS[kind][1]}"
    bare = np.asarray(case.bare_pillow(path.read_bytes()))
    left = (bare.shape[1] - 224) // 2
    picture = data.pictures[data.pictures.row["train-3"]]
    np.testing.assert_array_equal(picture, bare[:, left : left + 224])
    sizes = {"JPEG 500x375": (20_000, 90_000), "PNG 640x480": (250_000, 700_000)}
    assert sizes[kind][0] < path.stat().st_size < sizes[kind][1]  # about what photographs of that size take


def test_one_core_reads_and_is_timed(tmp_path):
    case.write_cirr(tmp_path, "JPEG 500x375", count=8)
    with case.one_core():
        row = case.beside_pillow(tmp_path, batch=2, steps=2, pairs=1)
    assert row["seconds"][0] > 0 and row["Pillow, seconds"][0] > 0
    assert row["batches/s"] == pytest.approx(1 / (4 * row["seconds"][0]))
