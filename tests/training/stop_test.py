"""A run that is asked to end: the step at hand is saved, and the same command continues."""

import os
import signal

import jax
import numpy as np
import pytest

from contextjax.types import Stopped
from tests.training.loop_test import kept, lines, peak, run


def test_told_to_end_it_saves_the_step_at_hand_and_the_same_command_goes_on(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    state = run(whole)

    def told(params):
        if float(params["w"]) > 0.5:  # in the evaluation of step 6
            os.kill(os.getpid(), signal.SIGTERM)
        return peak(params)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=r"Asked to stop after step ([0-9]+), which is saved; the same command continues"):
        run(stopped, evaluate=told)
    assert signal.getsignal(signal.SIGTERM) == before
    assert kept(stopped) == [5, 6] and lines(stopped)[-1]["step"] == 6 and "val/near" in lines(stopped)[-1]
    after = run(stopped)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert lines(stopped) == lines(whole)
