"""Bad input of run_mteb: one sentence each, before mteb does anything."""

import sys
import types

import pytest

from tests.commands import in_process


def task_metadata(*modalities: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(name="Task", modalities=modalities, dataset={"path": "owner/data"})


@pytest.fixture
def stand_in(monkeypatch):
    """A module in place of mteb, whose tasks can't be loaded: bad input is refused before mteb does anything."""

    class Away:
        def __init__(self, *modalities):
            self.metadata = task_metadata(*modalities)

        def load_data(self):
            raise ConnectionError("no route to huggingface.co\nmore")

    def get_task(name):
        if name == "Nothing":
            raise KeyError("KeyError: 'Nothing' not found. Did you mean: 'NothingRetrieval'?")
        return Away("audio", "text") if name == "Sounds" else Away("text", "image")

    monkeypatch.setitem(sys.modules, "mteb", types.SimpleNamespace(get_task=get_task))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tasks=Nothing"], "mteb has no task 'Nothing' ('Nothing' not found. Did you mean: 'NothingRetrieval'?)"),
        (["--tasks=Pictures,Sounds"], "asks for audio, and this library embeds texts and pictures"),
        (["--tasks=Pictures"], "can't be loaded from owner/data (no route to huggingface.co)"),
        (["--tasks=Pictures", "--query=fusion"], "has no fusion"),
        (["--tasks=Pictures", "--name=mine"], "expects organisation/model"),
        (["--tasks="], "names no task"),
        ([], "--tasks is missing"),
    ],
)
def test_bad_input_ends_with_one_sentence(clip, stand_in, tmp_path, arguments, sentence):
    done = in_process("mteb", f"--source={clip}", f"--target={tmp_path}", *arguments)
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
