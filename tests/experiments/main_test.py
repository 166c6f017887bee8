"""The installed command: lists the others with a line each, and names the nearest to one that there is not."""

import pytest

import experiments.__main__ as contextjax_command
from contextjax import __version__


def run(monkeypatch, capsys, *arguments):
    """(exit code, what was printed)."""
    monkeypatch.setattr("sys.argv", ["contextjax", *arguments])
    code = 0
    try:
        contextjax_command.main()
    except SystemExit as end:
        code = end.code
    return code, "".join(capsys.readouterr())


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_the_commands_are_listed(monkeypatch, capsys, arguments):
    code, said = run(monkeypatch, capsys, *arguments)
    assert code == 0 and "  train " in said and "__main__" not in said and "shared" not in said
    assert len([line for line in said.splitlines() if line.startswith("  ")]) == len(contextjax_command.commands())


def test_the_version_is_printed(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version") == (0, f"{__version__}\n")


def test_another_command_is_refused(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "trian")
    assert code == 2 and "'trian' is not a command of contextjax; did you mean 'train'?" in said
    code, said = run(monkeypatch, capsys, "xyz")
    assert code == 2 and "`contextjax` alone lists the commands" in said
