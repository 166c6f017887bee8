"""The installed command `contextjax`: runs the command that its first argument names, or lists them all."""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
import sys
from pathlib import Path

import experiments
from contextjax import __version__
from experiments.shared import cli


def main() -> None:
    """Runs `contextjax COMMAND --flags`; alone or with --help it prints the commands with a line each."""
    cli.guard(_main)


def _main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_overview())
    elif name == "--version":
        print(__version__)
    elif name not in (known := commands()):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "`contextjax` alone lists the commands."
        cli.fail(f"'{name}' is not a command of contextjax; {hint}")
    else:
        sys.argv = [f"contextjax {name}", *arguments]
        cli.run(importlib.import_module(f"experiments.{name}").main)


def commands() -> list[str]:
    """Returns the names of all commands: the modules of `experiments`, its packages and this module left out."""
    modules = pkgutil.iter_modules(experiments.__path__)
    return sorted(module.name for module in modules if not module.ispkg and module.name != "__main__")


def _overview() -> str:
    width = max(map(len, commands()))
    lines = [f"  {name:{width}}  {_summary(name)}" for name in commands()]
    return "\n".join(["contextjax COMMAND [--flags]; `contextjax COMMAND --help` has the flags.", "", *lines])


def _summary(name: str) -> str:
    """Returns the first sentence of a command's docstring, read from its file: nothing is imported."""
    source = Path(experiments.__path__[0], f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


if __name__ == "__main__":
    main()
