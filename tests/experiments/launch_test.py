"""The launcher: its command stands after two dashes."""

from tests.commands import in_process


def test_a_missing_command_is_reported():
    done = in_process("launch", "--processes=2")
    assert done.returncode == 2 and done.stderr.startswith("error: There is no command")
