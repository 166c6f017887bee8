"""The examples in the docstrings of the losses run and print what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    ["consistency", "contrastive", "hard_negative", "matching", "recall_surrogate", "reconstruction", "sigmoid"],
)
def test_examples_run(name):
    module = importlib.import_module(f"contextjax.losses.{name}")
    tested = [finder for finder in doctest.DocTestFinder().find(module) if finder.examples]
    public = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    assert {test.name.rpartition(".")[2] for test in tested} == {name for name in public if not name.startswith("_")}
    runner = doctest.DocTestRunner()
    for test in tested:
        runner.run(test)
    assert runner.tries and not runner.failures
