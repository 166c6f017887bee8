"""A program in a process of its own: its answers, and the message when it ends."""

import pytest

from contextjax.types import UserError
from experiments.comparisons.process import Process


def test_a_process_answers_and_a_failure_is_reported():
    with Process("a dictionary", dict) as process:
        assert process.ask("copy") == {}
        with pytest.raises(UserError, match="process of a dictionary ended at 'missing'"):
            process.ask("missing")
