"""Trains the tiny recipe of the pictograms, up to a batch: python -m tests.driver CHANGES_AS_JSON WORKDIR CUT.

Where CUT is not 0, the run is interrupted when it reads the batch after that step.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from configs.pictograms import get_config
from experiments.shared.training import train


def interrupted(batches: Iterator, cut: int) -> Iterator:
    """Passes batches on, and raises KeyboardInterrupt instead of the one after `cut` of them."""
    yield from itertools.islice(batches, cut)
    raise KeyboardInterrupt


if __name__ == "__main__":
    changes, workdir, cut = json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    config = get_config("tiny")
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    train(config, workdir, through=lambda batches: interrupted(batches, cut) if cut else batches)
