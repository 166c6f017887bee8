"""The command line: obstacles of the machine and interruptions are one sentence with an exit code, bugs are not."""

import io
import os
import subprocess
import sys

import pytest

from contextjax.files import write_whole
from experiments.shared import cli
from tests.commands import ROOT, environment, interpreter


def test_a_full_disk_is_one_sentence_and_no_traceback(tmp_path, capsys):
    full = tmp_path / f".config.json.{os.getpid()}.partial"
    full.symlink_to("/dev/full")
    with pytest.raises(SystemExit) as ended:
        cli.guard(lambda: write_whole(tmp_path / "config.json", "{}"))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert said.startswith(f"error: {tmp_path / 'config.json'} can't be written or read (No space left on device);")
    with pytest.raises(FileNotFoundError):  # a bug, as far as anyone knows
        cli.guard((tmp_path / "no").read_text)


def test_a_bug_keeps_its_traceback_and_has_exit_code_1(tmp_path):
    code = "from experiments.shared import cli; cli.guard(lambda: open('/no/such/file'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1 and "Traceback" in done.stderr and "FileNotFoundError" in done.stderr


def test_what_is_printed_steers_no_terminal():
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding="ascii")
    for _ in range(2):  # a second command of this process changes nothing
        cli.make_printable(stream)
    print("3 pictures of \x1b[2Ja\u202eb/\udcff.png\tä", "\r50 %", file=stream, flush=True)
    assert data.getvalue() == b"3 pictures of \\x1b[2Ja\\u202eb/\\udcff.png\t\\xe4 \r50 %\n"


@pytest.mark.parametrize("command", ["experiments.train --help", "experiments.scaling", "experiments"])
def test_an_output_that_nobody_reads_ends_the_command_without_a_word(command):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as unread:
        done = subprocess.run(
            [sys.executable, "-m", *command.split()], stdout=unread, stderr=subprocess.PIPE, check=False, cwd=ROOT,
            env=environment(),
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (cli.UNREAD, b"")


@pytest.mark.parametrize("platform", ["cuda", "metal", "cpuu"])
@pytest.mark.long
def test_a_platform_that_is_not_there_is_named(platform, pictograms, tmp_path):
    flags = (
        "--config=configs/pictograms.py:tiny",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.folder={pictograms}",
    )
    done = interpreter("train", *flags, JAX_PLATFORMS=platform)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: JAX finds no device of the platform '{platform}'")
    assert not (tmp_path / "run").exists()
