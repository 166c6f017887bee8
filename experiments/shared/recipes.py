"""Recipes by their files, and the settings that flags change in them: every mistake is one sentence."""

from __future__ import annotations

import ast
import difflib
import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import configs
from configs.base import SYSTEMS, base
from contextjax.types import UserError
from experiments.shared.paths import Place, check_path

TOWERS, FACTORS = ("model.vision", "model.text"), ("optimizer.multipliers", "training.best")  # flags add keys to them
OPEN = ("data.sources", "data.evaluations", *TOWERS, *FACTORS)
PREFIX, NEGATED = "--config.", "--noconfig."


def recipe_path(path: str) -> str:
    """Returns `path`, FILE[:argument]; configs/NAME.py is the installed recipe where there is no such file here."""
    file, colon, argument = path.partition(":")
    if Path(file).parent == Path("configs") and not Path(file).exists():
        file = str(Path(configs.__file__).parent / Path(file).name)
    return f"{file}{colon}{argument}"


def run_recipe(file: str) -> dict[str, Any]:
    """Returns the names that a recipe's file defines.

    Raises:
      UserError: it is no file that can be read, or no Python; the sentence names the line.
    """
    check_path(file, Place.FILE, "--config")
    try:
        return runpy.run_path(file)
    except (Exception, SystemExit) as error:
        raise UserError(_where(file, error)) from error


def load_recipe(path: str) -> Any:
    """Returns the config of a recipe, FILE[:argument].

    Raises:
      UserError: see `run_recipe`; or the recipe has no `get_config`, raises an error, or returns no config.
    """
    file, colon, argument = path.partition(":")
    get_config = run_recipe(file).get("get_config")
    if not callable(get_config):
        raise UserError(f"{file} has no function get_config; expected a recipe, as configs/pictograms.py.")
    try:
        config = get_config(*([argument] if colon else []))
    except (Exception, SystemExit) as error:
        raise UserError(_where(file, error)) from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"get_config of {file} returns a {type(config).__name__}; expected a config, such as configs.base.base() "
            "makes."
        )
    if missing := [name for name in base() if name not in config]:
        raise UserError(f"The config of {path} has no {', '.join(missing)}; begin it with configs.base.base().")
    return config


def check_settings(arguments: Sequence[str]) -> None:
    """Checks the flags --config=RECIPE and --config.KEY=VALUE of a command line, before the flags are parsed.

    Raises:
      UserError: the recipe can't be loaded, or has no such keys; or values are of another type. All are named.
    """
    arguments = [f"-{each}" if each.startswith("-") and not each.startswith("--") else each for each in arguments]
    paths = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{PREFIX[:-1]}=")]
    if not paths:
        return
    config, faults = load_recipe(paths[-1]), []
    for argument in (argument for argument in arguments if argument.startswith((PREFIX, NEGATED))):
        key, given, value = argument.partition("config.")[2].partition("=")
        known, default = _value(config, key)
        if not known and (section := key.rpartition(".")[0]) in (*TOWERS, *FACTORS):
            known, default = True, 1.0 if section in FACTORS else None  # of a tower, `resolve` knows the fields
        if not known:
            faults.append(unknown_key(key, config))
        elif isinstance(default, ConfigDict):
            faults.append(f"'{key}' is a section of the config, with the keys {', '.join(default)}; give one of them")
        elif given and (expected := _expected(value, default)):
            faults.append(f"{key} is '{value}', expected {expected}")
    if faults:
        raise UserError("; ".join(faults) + ".")


def unknown_key(key: str, config: Any = None) -> str:
    """Returns a sentence, without its full stop, on a key that a config does not have: what is near, and what is."""
    everything = {name: name for system in SYSTEMS for name in _names(base(system))}
    known = list(_names(config if config is not None else base()))
    if config is not None and key in everything and key not in known:
        return f"'{key}' is a key of the other system, and this config, of {config.model.system}, has none"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    *sections, name = key.split(".")
    section = ".".join(sections)
    siblings = [each.removeprefix(f"{section}.").partition(".")[0] for each in known if each.startswith(f"{section}.")]
    if not near and (same := [each for each in known if each.split(".")[-1] == name]):
        near = same[:1]
    hint = f"; the nearest is '{near[0]}'" if near else ""
    if siblings:
        return f"'{key}' is not a key of the config{hint}; {section} has {', '.join(dict.fromkeys(siblings))}"
    heads = ", ".join(dict.fromkeys(each.partition(".")[0] for each in known))
    return f"'{key}' is not a key of the config{hint}; its sections and keys are {heads}"


def _names(config: Any, prefix: str = "") -> list[str]:
    """Returns the whole names of a config's keys; an open section, whose keys a user chooses, is one of them."""
    names = []
    for name, value in config.items():
        is_section = isinstance(value, ConfigDict) and prefix + name not in OPEN
        names += _names(value, f"{prefix}{name}.") if is_section else [prefix + name]
    return names


def _value(config: Any, key: str) -> tuple[bool, Any]:
    """Returns whether a config has a key, and its value."""
    value = config
    for name in key.split("."):
        if not isinstance(value, ConfigDict) or name not in value:
            return False, None
        value = value[name]
    return True, value


def _expected(text: str, default: Any) -> str:
    """Returns what is expected instead of a flag's text for a value of the default's type, "" where it is that."""
    if isinstance(default, bool):
        return "" if text.lower() in ("true", "false", "t", "f", "1", "0") else "True or False"
    try:
        if isinstance(default, int | float):
            type(default)(text)
        elif isinstance(default, tuple):
            value = ast.literal_eval(text)
            return "" if isinstance(value, tuple | list) else f"a tuple, as {default or ('clip',)}"
    except (ValueError, SyntaxError):
        kinds = {int: "a whole number", float: "a number", tuple: f"a tuple, as {default or ('clip',)}"}
        return kinds[type(default)]
    return ""


def _where(file: str, error: BaseException) -> str:
    """Returns a sentence on an error that a recipe raised; of a recipe's own complaint, its words are the sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    last = frames[-1] if frames else None
    is_complaint = last is not None and last.filename == file and (last.line or "").startswith("raise")
    if isinstance(error, UserError) or (isinstance(error, ValueError) and is_complaint):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{error.filename or file}, line {error.lineno}: {error.msg}; mend the recipe."
    line = f", line {own[-1].lineno}" if own else ""
    reason = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip().splitlines()
    return f"{file}{line}: {type(error).__name__}{f': {reason[0]}' if reason else ''}; mend the recipe."
