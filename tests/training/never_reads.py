"""A run whose loader hangs on its first batch: python -m tests.training.never_reads WORKDIR."""

import dataclasses
import sys
import time

from tests.experiments.fault_injection import toy


def never(batches):
    time.sleep(600)
    yield from batches


if __name__ == "__main__":
    toy.CONFIG = dataclasses.replace(toy.CONFIG, step_timeout=2.0)
    toy.train(sys.argv[1], through=never)
