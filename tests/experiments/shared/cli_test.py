"""The command line: a disk that is full is one sentence."""

import os

import pytest

from contextjax.files import write_whole
from experiments.shared import cli


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
