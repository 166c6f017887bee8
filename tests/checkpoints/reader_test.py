"""Checkpoints are read without a change to them, while their run goes on, and damaged ones are not taken."""

import contextlib

import jax
import numpy as np
import pytest

from contextjax.checkpoints.reader import CheckpointReader
from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.types import UserError
from tests.checkpoints.states import make_state, same_bits


def test_parameters_alone_come_as_numpy(checkpoints):
    state = make_state()
    checkpoints.save(state, {"step": 3, "config_hash": "abc"})
    checkpoints.wait()
    params, meta = checkpoints.restore_params()
    same_bits(params, state.params)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(params))
    assert meta["config_hash"] == "abc"


def test_a_folder_may_be_read_while_its_run_has_it_open(checkpoints, tmp_path):
    state = make_state()
    checkpoints.save(state, {"step": 3})
    checkpoints.wait()
    other = CheckpointWriter(tmp_path / "checkpoints")
    same_bits(other.restore_params()[0], state.params)
    other.close()


def test_a_damaged_score_is_none_and_the_folder_opens_all_the_same(tmp_path):
    """Also as another number: of any flip in the file that has it, what is best is known without it."""
    with contextlib.closing(CheckpointWriter(tmp_path)) as checkpoints:
        for step, score in enumerate([5.0, 1.0, 2.0], 1):
            checkpoints.save(make_state(step, step), {"step": step}, score=score)
        assert checkpoints.best == 1
    path = tmp_path / "3" / "meta" / "metadata"
    whole = path.read_bytes()
    place = whole.index(b"2.0")
    for changed in (
        whole.replace(b"2.0", b"9.0"),
        whole[: place - 5] + b"\xff" + whole[place - 4 :],
        whole[:place],
        b"",
    ):
        path.write_bytes(changed)
        for opened in (CheckpointReader, CheckpointWriter):
            with contextlib.closing(opened(tmp_path)) as checkpoints:
                assert (checkpoints.best, checkpoints.best_score) == (1, 5.0)
                assert checkpoints.latest == 3 and checkpoints.restore_params("newest")[1]["step"] == 2
    path.write_bytes(whole)
    with contextlib.closing(CheckpointWriter(tmp_path)) as checkpoints:
        assert checkpoints.restore_params("newest")[1] == {"step": 3, "score": 2.0}


@pytest.mark.parametrize("which", ["", "newest", "best"])
def test_a_run_that_goes_on_while_it_is_read_gives_a_checkpoint_that_it_still_has(tmp_path, which, capsys):
    """The reader finds what is there now; all that it saw at first are removed meanwhile, but for an older one."""
    with contextlib.closing(CheckpointWriter(tmp_path)) as run:
        for step, score in ((1, 5.0), (2, None), (3, None)):
            run.save(make_state(step, step), {"step": step}, score=score)
        run.wait()
        with contextlib.closing(CheckpointReader(tmp_path)) as reader:
            assert reader.step_of(which) == {"": 1, "newest": 3, "best": 1}[which]
            for step, score in ((4, 9.0), (5, None), (6, None)):
                run.save(make_state(step, step), {"step": step}, score=score)
            run.wait()
            params, meta = reader.restore_params(which)
            assert meta["step"] == {"": 4, "newest": 6, "best": 4}[which]
            same_bits(params, make_state(meta["step"], meta["step"]).params)
            with pytest.raises(UserError, match="has no checkpoint '3'"):
                reader.restore_params(3)
    assert "Damaged" not in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_refused(checkpoints):
    checkpoints.save(make_state(), {"step": 3})
    checkpoints.wait()
    for which in ("best", "7", 7, "latest"):
        with pytest.raises(UserError, match=f"has no checkpoint '{which}'; expected newest, or one of the steps 3"):
            checkpoints.restore_params(which)
