"""The command of the comparisons: --help, and a case that there is not."""

import pytest

from experiments.comparisons import search
from tests.commands import in_process


def test_help_lists_the_flags_of_the_case():
    done = in_process("comparisons", "search", "--help")
    assert done.returncode == 0 and "--dimension" in done.stdout and search.__doc__ in done.stdout
    done = in_process("comparisons", "--help")
    assert done.returncode == 0 and "search: exact search, beside FAISS" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["searching"], ["--output=x"]])
def test_an_unknown_case_is_refused(arguments):
    done = in_process("comparisons", *arguments)
    assert done.returncode == 2 and "expected one of clip, concepts, stage1, cached" in done.stderr
