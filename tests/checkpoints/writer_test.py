"""Saved states are restored bit for bit; a failed save costs nothing else, and what is damaged is set aside."""

import contextlib
import math
import shutil
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.checkpoints import integrity
from contextjax.checkpoints.reader import CheckpointReader
from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.types import TrainState, UserError
from tests.checkpoints.states import abstract, make_state, no_room, same_bits, save_steps, spoil, steps_in
from tests.commands import environment


def test_a_round_trip_is_bitwise_rng_and_moments_too(checkpoints):
    state = make_state()
    checkpoints.save(state, {"step": 3, "config_hash": "abc", "versions": {"jax": "1"}})
    checkpoints.wait()
    restored, meta = checkpoints.restore(abstract(state))
    assert isinstance(restored, TrainState)
    same_bits(restored, state)
    assert meta == {"step": 3, "config_hash": "abc", "versions": {"jax": "1"}}
    assert jax.random.normal(restored.rng) == jax.random.normal(state.rng)


def test_a_checkpoint_of_other_arrays_is_refused(checkpoints):
    checkpoints.save(make_state(), {"step": 3})
    checkpoints.wait()
    state = make_state()
    shapes = {**state.params, "scalar": jnp.zeros(2)}
    for other, said in (
        (state._replace(params=shapes), r"params/scalar is \(\) there, and \(2,\) in this run"),
        (state._replace(params={**state.params, "a": jnp.zeros(1)}), r"params/a is missing there, and \(1,\) in this"),
        (state._replace(health=jnp.int32(0)), "health is missing there"),
    ):
        with pytest.raises(UserError, match=rf"step 3 in .* is of another model, or of an earlier version: {said}"):
            checkpoints.restore(abstract(other))


def test_a_folder_without_checkpoints_has_none_and_restores_none(checkpoints):
    assert checkpoints.latest is None
    for restore in (checkpoints.restore_params, lambda: checkpoints.restore(abstract(make_state()))):
        with pytest.raises(UserError, match="no whole checkpoint; train first"):
            restore()


def test_the_same_step_is_saved_once(checkpoints):
    first, second = make_state(0), make_state(1)
    for state in (first, second):
        checkpoints.save(state, {"step": 3})
        checkpoints.wait()
    assert checkpoints.latest == 3
    same_bits(checkpoints.restore(abstract(first))[0], first)


def test_the_newest_is_restored_and_older_ones_go(checkpoints, tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(make_state(step, step), {"step": step})
    checkpoints.wait()
    assert checkpoints.latest == 3
    assert int(checkpoints.restore(abstract(make_state()))[0].step) == 3
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_the_arrays_may_be_donated_after_save(checkpoints):
    state = make_state()
    kept = jax.tree.map(lambda x: np.array(x, copy=True), state)
    checkpoints.save(state, {"step": 3})
    for leaf in jax.tree.leaves(state):
        leaf.delete()
    checkpoints.wait()
    restored, _ = checkpoints.restore(abstract(make_state()))
    same_bits(restored, kept)


def test_a_checkpoint_moves_to_another_mesh(checkpoints):
    from jax.sharding import NamedSharding, PartitionSpec

    from contextjax.sharding import make_mesh

    place = lambda spec: NamedSharding(make_mesh("data:2,fsdp:4"), PartitionSpec(*spec))
    state = make_state()
    state.params["dense"]["kernel"] = jax.device_put(state.params["dense"]["kernel"], place([None, "fsdp"]))
    state = jax.tree.map(lambda x: x if len(x.sharding.device_set) > 1 else jax.device_put(x, place([])), state)
    checkpoints.save(state, {"step": 3})
    checkpoints.wait()
    single = make_state(1)
    restored, _ = checkpoints.restore(abstract(single))
    same_bits(restored, state)
    assert restored.params["dense"]["kernel"].sharding == single.params["dense"]["kernel"].sharding
    params, _ = checkpoints.restore_params()
    same_bits(params, state.params)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([1.0, 5.0, 3.0, 2.0], 2),
        ([5.0, 5.0, 1.0, 2.0], 2),  # of equals the newest
        ([1.0, None, float("nan"), None], 1),
        ([-1.0, -2.0, -3.0, float("-inf")], 1),
        ([1.0, 2.0, 3.0], 3),
        ([None, None, None], None),
    ],
)
def test_the_best_is_kept_beside_the_newest(tmp_path, scores, best):
    """The best is kept whatever is saved after it, also in a folder that is opened again before each save."""
    for folder, opens_again in (("whole", False), ("resumed", True)):
        checkpoints = CheckpointWriter(tmp_path / folder)
        for step, score in enumerate(scores, 1):
            if opens_again:
                checkpoints.close()
                checkpoints = CheckpointWriter(tmp_path / folder)
            checkpoints.save(make_state(step, step), {"step": step}, score=score)
        checkpoints.wait()
        assert (checkpoints.latest, checkpoints.best) == (len(scores), best)
        assert checkpoints.best_score == (None if best is None else scores[best - 1])
        ranked = sorted((s, step) for step, s in enumerate(scores[:-1], 1) if s is not None and math.isfinite(s))
        kept = {len(scores) - 1, len(scores)} | {
            step for _, step in ranked[-1:]
        }  # the last is not yet known to be best
        assert steps_in(tmp_path / folder) == sorted(kept)
        for which, step in {
            "": best or len(scores),
            "newest": len(scores),
            str(len(scores) - 1): len(scores) - 1,
        }.items():
            params, meta = checkpoints.restore_params(which)
            assert meta["step"] == step == checkpoints.step_of(which)
            same_bits(params, make_state(step, step).params)
        assert int(checkpoints.restore(abstract(make_state()))[0].step) == len(scores)  # a run goes on from the newest
        checkpoints.close()


def test_a_new_best_that_was_not_finished_leaves_the_one_before_it(tmp_path):
    with contextlib.closing(CheckpointWriter(tmp_path)) as checkpoints:
        for step, score in enumerate([5.0, 1.0, 2.0, 9.0], 1):
            checkpoints.save(make_state(step, step), {"step": step}, score=score)
    (tmp_path / "4" / integrity.NAME).unlink()  # as a kill after it was visible leaves it
    with contextlib.closing(CheckpointWriter(tmp_path)) as checkpoints:
        assert (checkpoints.latest, checkpoints.best, checkpoints.best_score) == (3, 1, 5.0)


def test_of_a_damaged_newest_checkpoint_the_one_before_is_taken_and_its_step_saved_again(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        save_steps(checkpoints, 1, 2)
    path = spoil(folder, 2)
    with contextlib.closing(CheckpointReader(folder)) as checkpoints:
        same_bits(checkpoints.restore_params()[0], make_state(1, 1).params)
        said = capsys.readouterr().err
        assert f"(2: {path.relative_to(folder / '2')} is not what was written); taking 1" in said
        with pytest.raises(UserError, match=r"no undamaged checkpoint to take \(2: .* is not what was written"):
            checkpoints.restore_params(2)
        assert steps_in(folder) == [1, 2]
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        same_bits(checkpoints.restore(abstract(make_state()))[0], make_state(1, 1))
        assert "taking 1" in capsys.readouterr().err
        assert steps_in(folder) == [1] and [p.name for p in (tmp_path / "checkpoints.damaged").iterdir()] == ["2-0"]
        save_steps(checkpoints, 2)
        same_bits(checkpoints.restore(abstract(make_state()))[0], make_state(2, 2))


def test_where_all_are_damaged_nothing_is_taken_and_nothing_moved(tmp_path):
    folder = tmp_path / "checkpoints"
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        save_steps(checkpoints, 1, 2)
        for step in (1, 2):
            spoil(folder, step, place=0.1)
        with pytest.raises(UserError, match=r"no undamaged checkpoint to take \(2: .*; 1: "):
            checkpoints.restore(abstract(make_state()))
        assert steps_in(folder) == [1, 2]


def test_an_unfinished_checkpoint_is_never_taken_and_removed(tmp_path):
    folder = tmp_path / "checkpoints"
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        save_steps(checkpoints, 1, 2)
    (folder / "2").rename(folder / "2.orbax-checkpoint-tmp")  # as a kill leaves it
    with contextlib.closing(CheckpointReader(folder)) as checkpoints:
        assert checkpoints.latest == 1 and (folder / "2.orbax-checkpoint-tmp").exists()
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        assert checkpoints.latest == 1 and not (folder / "2.orbax-checkpoint-tmp").exists()
        save_steps(checkpoints, 2)
        assert checkpoints.latest == 2


def test_a_checkpoint_that_a_kill_left_without_checksums_is_removed(tmp_path, capsys):
    """The first checkpoint of a run is set aside instead: the run has nothing else, and starts from the beginning."""
    folder = tmp_path / "checkpoints"
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        save_steps(checkpoints, 1, 2)
    (folder / "2" / "checksums.json").unlink()
    (folder / "2" / ".checksums.json.7.partial").touch()
    with contextlib.closing(CheckpointReader(folder)) as checkpoints:
        assert checkpoints.restore_params()[1]["step"] == 1 and steps_in(folder) == [1, 2]
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        assert checkpoints.latest == 1 and steps_in(folder) == [1]
        place = tmp_path / "checkpoints.damaged"
        said = f"The checkpoint of step 2 is not whole (it has no checksums.json): it is set aside as {place / '2-0'}."
        assert said in capsys.readouterr().err and (place / "2-0" / "state").is_dir()  # it may have been whole
        save_steps(checkpoints, 2)
    (folder / "2" / "checksums.json").unlink()
    (place / "2-0").rename(place / "2-1")  # names that are taken are not taken again
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        assert checkpoints.latest == 1 and {path.name for path in place.iterdir()} == {"2-0", "2-1"}
    (folder / "1" / "checksums.json").unlink()
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        assert checkpoints.latest is None and (place / "1-0").is_dir()


def test_a_failed_save_is_one_sentence_however_many_arrays_it_has(tmp_path):
    """Each array that is still being written then fails in a thread of its own, after its event loop was closed."""
    code = """
import contextlib, pathlib, resource, sys
import numpy as np
from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.types import UserError
from tests.checkpoints.states import make_state
state = make_state()._replace(params={f"p{i}": np.random.default_rng(i).normal(size=20_000) for i in range(30)})
with contextlib.suppress(UserError), contextlib.closing(CheckpointWriter(pathlib.Path(sys.argv[1]))) as checkpoints:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))
    for step in range(1, 5):
        checkpoints.save(state, {"step": step})
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, env=environment())
    lines = done.stderr.splitlines()
    assert [f"The checkpoint of step {step} could not be written" in line for step, line in enumerate(lines, 1)] == [
        True
    ] * 4, done.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # tensorstore's, of the failed write
def test_a_save_that_fails_is_reported_and_the_next_one_is_made(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    large = make_state()._replace(params={"large": jnp.asarray(np.random.default_rng(0).normal(size=100_000))})
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        save_steps(checkpoints, 1)
        with no_room(100_000):
            checkpoints.save(large, {"step": 2})
            with pytest.raises(UserError, match=r"step 2 could not be written .* the newest one that could is 1"):
                checkpoints.wait()
        assert "step 2 could not be written" in capsys.readouterr().err
        assert [path.name for path in folder.iterdir()] == ["1"]
        for step in (2, 3):
            checkpoints.save(large, {"step": step})
        checkpoints.wait()
        assert steps_in(folder) == [2, 3]
        same_bits(checkpoints.restore(abstract(large))[0], large)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_save_that_fails_in_the_background_is_reported_before_anything_waits_for_it(tmp_path, capsys):
    large = make_state()._replace(params={"large": jnp.asarray(np.random.default_rng(0).normal(size=100_000))})
    with (
        contextlib.suppress(UserError),
        contextlib.closing(CheckpointWriter(tmp_path)) as checkpoints,
        no_room(100_000),
    ):
        checkpoints.save(large, {"step": 2})
        said, until = "", time.monotonic() + 60
        while not said and time.monotonic() < until:
            time.sleep(0.01)
            said = capsys.readouterr().err
        assert "The checkpoint of step 2 could not be written" in said
    assert capsys.readouterr().err == ""  # once


def test_each_save_that_fails_is_reported_by_its_step_and_a_past_failure_is_none(tmp_path, capsys):
    """While the folder is gone, no new manager can be made either."""
    folder, away = tmp_path / "checkpoints", tmp_path / "away"
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        save_steps(checkpoints, 1)
        folder.rename(away)
        folder.write_text("no folder")
        for step in (2, 3):
            with pytest.raises(UserError, match=f"The checkpoint of step {step} could not be written"):
                save_steps(checkpoints, step)
        folder.unlink()
        away.rename(folder)
        save_steps(checkpoints, 1)  # is there
        save_steps(checkpoints, 3)
        assert steps_in(folder) == [1, 3]
    said = capsys.readouterr().err
    assert [f"step {step} could not" in said for step in (1, 2, 3)] == [False, True, True] and said.count("could") == 2


@pytest.mark.parametrize("is_file", [True, False])
def test_after_a_save_that_could_not_begin_nothing_waits_for_it(tmp_path, is_file):
    """Orbax's own threads, which a process waits for when it ends, would for 20 minutes."""
    folder, away, before = tmp_path / "checkpoints", tmp_path / "away", set(threading.enumerate())
    with contextlib.suppress(UserError), contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        save_steps(checkpoints, 1)
        folder.rename(away)
        if is_file:
            folder.write_text("no folder")
        save_steps(checkpoints, 2)
    folder.unlink() if is_file else shutil.rmtree(folder)
    away.rename(folder)
    for thread in set(threading.enumerate()) - before:
        thread.join(0 if thread.daemon else 20)
        assert thread.daemon or not thread.is_alive(), thread
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        same_bits(checkpoints.restore(abstract(make_state()))[0], make_state(1, 1))
