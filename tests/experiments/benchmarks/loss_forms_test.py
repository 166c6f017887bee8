"""The costs of the contrastive loss's forms: the ring's memory over numbers of devices."""

from experiments.benchmarks.loss_forms import ring_growth


def test_the_growth_is_of_the_same_batch_per_device():
    rows = [
        {"form": form, "devices": devices, "batch": batch, "temporary": temporary}
        for form, devices, batch, temporary in (
            ("ring", 2, 64, 100), ("ring", 4, 128, 110), ("gathered", 4, 128, 900), ("ring", 4, 64, 60),
        )
    ]  # fmt: skip
    (line,) = ring_growth(rows)
    assert line.startswith("ring, 32 queries a device:") and line.endswith("10.00% apart")
