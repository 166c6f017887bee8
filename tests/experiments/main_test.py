"""The installed command: lists the others with a line each, and names the nearest to one that there is not."""

import pytest

from contextjax import __version__
from experiments.__main__ import commands
from tests.commands import in_process


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_the_commands_are_listed(arguments):
    done = in_process("__main__", *arguments)
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert done.returncode == 0 and listed == commands() and "train" in listed
    assert not {"__main__", "shared", "benchmarks"} & set(listed)


def test_the_version_is_printed():
    assert in_process("__main__", "--version").stdout == f"{__version__}\n"


def test_another_command_is_refused():
    done = in_process("__main__", "trian")
    assert done.returncode == 2 and "'trian' is not a command of contextjax; did you mean 'train'?" in done.stderr
    done = in_process("__main__", "xyz")
    assert done.returncode == 2 and "`contextjax` alone lists the commands" in done.stderr
