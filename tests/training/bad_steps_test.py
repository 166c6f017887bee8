"""Bad steps: reported one step late with their records, and too many in a row end the run."""

import numpy as np
import pytest

from contextjax.training.metrics_log import read_metrics
from contextjax.types import UserError
from tests.training.loop_test import batches, run


def test_a_bad_step_is_logged_with_its_records_and_training_goes_on(tmp_path, capsys):
    def poisoned(start, cut):
        for batch in batches(start):
            yield batch._replace(goal=np.full(8, np.nan, np.float32)) if batch.goal[0] == np.float32(1.4) else batch

    state = run(tmp_path, stream=poisoned, max_bad_steps=2)
    logged = [line for line in read_metrics(tmp_path) if "bad_step" in line]
    assert [line["step"] for line in logged] == [5] and logged[0]["bad_step"]["records"] == list("01234567")
    assert logged[0]["bad_step"]["kind"] == "not finite"
    assert "Step 5 had a non-finite loss" in capsys.readouterr().err
    assert int(state.health.skipped) == 1 and read_metrics(tmp_path)[-2]["skipped"] == 1
    with pytest.raises(
        UserError, match=r"Step 5 had .*\(1 in a row, training.max_bad_steps is 1\).* Its records: 0, 1"
    ):
        run(tmp_path / "short", stream=poisoned, max_bad_steps=1)
