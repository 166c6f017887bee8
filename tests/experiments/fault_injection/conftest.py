"""A toy's uninterrupted run, and processes to start it in."""

from pathlib import Path

import numpy as np
import pytest

from experiments.fault_injection.processes import Processes
from tests.experiments.fault_injection import toy


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    """The workdir of an uninterrupted run, and the records of its batches. Read only."""
    workdir = tmp_path_factory.mktemp("toy") / "whole"
    return workdir, toy.train(workdir)


@pytest.fixture(scope="session")
def processes(tmp_path_factory) -> Processes:
    return Processes(tmp_path_factory.mktemp("processes") / "compiled")
