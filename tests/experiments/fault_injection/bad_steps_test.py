"""Bad steps leave no trace and are reported; what is not so is found."""

import functools

from experiments.fault_injection.bad_steps import check_bad_steps, check_stalls
from experiments.fault_injection.children import spoil
from experiments.fault_injection.outcome import Outcome
from tests.experiments.fault_injection import toy


def spoilt_run(workdir, steps):
    return toy.train(workdir, functools.partial(spoil, steps=steps), checkpoint_every=1)


def test_bad_steps_leave_no_trace_and_are_reported(tmp_path):
    outcome = check_bad_steps(spoilt_run, tmp_path / "run", steps=toy.STEPS)
    assert outcome.passed and outcome.times == 2, outcome


def test_steps_that_are_not_bad_are_found(tmp_path):
    outcome = check_bad_steps(lambda workdir, _: spoilt_run(workdir, ()), tmp_path / "run", steps=toy.STEPS)
    assert outcome.corrupt and any("'w'" in problem for problem in outcome.problems)
    assert any("has the records of the bad steps []" in problem for problem in outcome.problems)


def test_a_stall_that_ends_otherwise_or_prints_nothing_is_found():
    printed = 'File "children.py", line 40 in hang\n(most recent call first)'
    assert check_stalls([(75, printed)] * 2) == Outcome("a loader that hangs", 2, problems=[])
    assert len(check_stalls([(0, printed), (75, "")]).problems) == 2
