"""A folder of checkpoints that a test may write to."""

import pytest

from contextjax.checkpoints.writer import CheckpointWriter


@pytest.fixture
def checkpoints(tmp_path):
    opened = CheckpointWriter(tmp_path / "checkpoints")
    yield opened
    opened.close()
