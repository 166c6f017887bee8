"""Pickles are converted where they hold tensors alone; without PyTorch, the message says what to install."""

import importlib.util
import pickle

import pytest

from contextjax.pretrained.unpickle import _main


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Code()))
    reason = "no pickle of tensors alone" if importlib.util.find_spec("torch") else "PyTorch is not installed; pip"
    with pytest.raises(SystemExit, match=reason):
        _main(str(tmp_path / "x.pth"), str(tmp_path / "x.safetensors"))
    assert capsys.readouterr().out == "" and not (tmp_path / "x.safetensors").exists()
