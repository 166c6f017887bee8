"""Paths that a user gives: every command checks every one of them before anything else, in one sentence."""

import errno
import itertools
import re
from pathlib import Path

import pytest

from experiments.shared import cli, paths
from experiments.shared.paths import Place
from tests.commands import in_process

NEW = {  # command -> its paths that are written, and what else it needs
    "train": (["workdir"], ["--config=configs/pictograms.py:tiny"]),
    "stages": (["workdir"], ["--config=configs/pictogram_sets.py"]),
    "compare": (["workdir", "rows"], ["--config=configs/pictograms.py"]),
    "evaluate": (["workdir", "submission"], []),
    "export": (["target"], []),
    "convert": (["target"], []),
    "generate": (["target"], []),
    "embed": (["target"], []),
    "maps": (["target"], []),
    "selftest": (["workdir"], []),
    "plan": (["output"], ["--config=configs/pictograms.py:tiny"]),
    "contrastive": (["output"], []),
    "benchmark": (["output"], ["--config=configs/pictograms.py:tiny"]),
    "synthesize": (["target", "answers", "batch"], ["--backend=rules"]),
}
READ = {
    "evaluate": ["data", "propositions", "check"],
    "report": ["workdir"],
    "prepare": ["data"],
    "catalogue": ["data"],
    "generate": ["pictograms"],
    "embed": ["gallery"],
    "search": ["gallery", "index", "image"],
    "maps": ["image"],
    "serve": ["gallery", "index"],
    "stages": ["config", "start"],
    "compare": ["config"],
    "train": ["config"],
    "plan": ["config"],
    "scaling": ["plans"],
    "concepts": ["data", "tokenizer"],
    "convert": ["tokenizer"],
    "synthesize": ["data", "pictures", "prompts"],
}
FILES = ("rows", "output", "answers", "check", "image", "config")  # where no folder will do
BOTH = ("gallery", "index", "propositions", "tokenizer")
WRONG = {
    "empty": ("", "is empty; give"),
    "a name of 300 letters": ("{tmp}/" + "a" * 300, "File name too long"),
    "below a file": ("{tmp}/file/x", "Not a directory"),
    "below a device": ("/dev/null/x", "Not a directory"),
    "a loop of links": ("{tmp}/loop", "Too many levels of symbolic links"),
}


def bad_flags():
    for command, (names, more) in NEW.items():
        for name in names:
            yield from ((command, name, kind, more) for kind in (*WRONG, "a link to nothing", "another kind"))
    for command, names in READ.items():
        for name in names:
            takes_both = name in BOTH or (command, name) == ("concepts", "data")
            kinds = (*WRONG, "missing") if takes_both else (*WRONG, "missing", "another kind")
            yield from ((command, name, kind, []) for kind in kinds)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").touch()
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "nothing").symlink_to(folder / "none")
    return folder


@pytest.mark.parametrize(
    ("command", "name", "kind", "more"), list(bad_flags()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_wrong_path_is_one_sentence(places, command, name, kind, more):
    if kind in WRONG:
        path, sentence = WRONG[kind]
    elif kind == "missing":
        path, sentence = "{tmp}/none", "is not there; expected"
    elif kind == "a link to nothing":
        path, sentence = "{tmp}/nothing", "is a link to what is not there"
    else:
        path, sentence = (
            ("{tmp}/folder", "is a folder; expected") if name in FILES else ("{tmp}/file", "is a file; exp")
        )
    done = in_process(command, *more, f"--{name}={path.format(tmp=places)}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: --{name}") and sentence in done.stderr, done.stderr
    assert {path.name for path in places.iterdir()} == {"file", "folder", "loop", "nothing"}


@pytest.mark.parametrize("command", ["evaluate", "serve", "search", "maps", "embed", "export", "convert"])
def test_what_can_be_loaded_from_anywhere_is_checked_too(places, command):
    flag = "--workdir" if command in ("search", "maps", "embed", "export") else "--source"
    for path in ("", str(places / ("a" * 300)), "/dev/null/x"):
        done = in_process(command, f"{flag}={path}")
        assert done.returncode == 2 and done.stderr.startswith(f"error: {flag}"), done.stderr


def test_several_wrong_paths_are_named_at_once(places):
    done = in_process("embed", "--gallery=", f"--target={places / 'file'}")
    assert "--gallery is empty" in done.stderr and "--target=" in done.stderr and done.stderr.count("\n") == 1


def test_a_folder_that_can_not_be_written_to_is_named(places, monkeypatch):
    monkeypatch.setattr(paths.os, "access", lambda path, mode: False)  # the superuser may everything
    assert "can't be written to" in paths.fault(places / "new", Place.NEW_FOLDER, "--target")
    assert "can't be read (Permission denied)" in paths.fault(places / "file", Place.FILE, "--check")


USERS = [errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO]
DISKS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG]


@pytest.mark.parametrize("number", [*USERS, *DISKS], ids=lambda number: errno.errorcode[number])
def test_an_error_of_a_place_that_the_user_gave_is_one_sentence(places, number, capsys):
    paths.fault(places, Place.FOLDER, "--workdir")
    with pytest.raises(SystemExit) as ended:
        cli.guard(lambda: _raise(OSError(number, "wrong", str(places / "below"))))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"error: {places / 'below'} can't be written or read (wrong);")


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "wrong", "/elsewhere/x") for number in [*USERS, errno.ENOENT]),
        OSError(errno.ENOENT, "wrong", "{places}/below"),  # of the program's own, which nobody gave
        *(OSError(number, "wrong") for number in (errno.ENOENT, errno.EBADF, errno.ECONNREFUSED)),
        OSError("no number at all"),
        ValueError("no OSError"),
    ],
    ids=repr,
)
def test_any_other_error_is_a_bug_and_keeps_its_traceback(places, error):
    """The interpreter prints it, with exit code 1."""
    paths.fault(places, Place.FOLDER, "--workdir")
    if isinstance(error, OSError) and error.filename:
        error.filename = error.filename.format(places=places)
    with pytest.raises(type(error)) as raised:
        cli.guard(lambda: _raise(error))
    assert raised.value is error


def _raise(error):
    raise error


def test_every_flag_that_is_a_path_is_checked():
    """A new one is defined by `define_path`."""
    names = {"source", *(name for group, _ in NEW.values() for name in group), *itertools.chain(*READ.values())}
    for file in Path("experiments").glob("*.py"):
        paths = names - {"target"} if file.stem == "plan" else names  # its target is a chip
        assert not re.search(rf'DEFINE_string\(\s*"({"|".join(paths)})"', file.read_text()), file


def test_a_flag_is_no_path_where_another_commands_flag_of_that_name_is_one():
    in_process("embed", "--help")
    done = in_process("catalogue", "--attributes=gender:audience")
    assert done.returncode == 2 and "gender:audience" not in done.stderr
