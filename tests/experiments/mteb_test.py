"""Tests of experiments.mteb: a task of mteb's own by a tiny CLIP, and a package that is not there."""

import importlib.util
import json
import sys

import pytest

from tests.commands import in_own_process, in_process

needs_mteb = pytest.mark.skipif(importlib.util.find_spec("mteb") is None, reason="needs the extra [mteb]")


def test_a_missing_package_names_its_extra(clip, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mteb", None)
    done = in_process("mteb", f"--source={clip}", "--tasks=A", f"--target={tmp_path}")
    assert done.returncode == 2 and "contextjax[mteb]" in done.stderr


@needs_mteb
@pytest.mark.long
@pytest.mark.parametrize("task", ["MockAny2AnyRetrievalT2ITask", "MockMultiChoiceTask"])
def test_a_task_is_run_and_its_results_are_kept(clip, tmp_path, monkeypatch, task):
    """A CLIP and its export have the same score."""
    import mteb
    from mteb.mocks import mock_tasks

    monkeypatch.setattr(mteb, "get_task", lambda name: getattr(mock_tasks, name)())
    done = in_own_process("export", f"--workdir={clip}", f"--target={tmp_path / 'export'}", "--format=onnx")
    assert done.returncode == 0, done.stderr
    scores = []
    for source, more in ((clip, ["--name=shop/mine"]), (tmp_path / "export", [])):
        done = in_process("mteb", f"--source={source}", f"--tasks={task}", f"--target={tmp_path / source.name}", *more)
        assert done.returncode == 0, done.stderr
        (file,) = (path for path in (tmp_path / source.name).rglob("Mock*.json"))
        assert file.parent.name.endswith("-sum")
        assert file.parent.parent.name == ("shop__mine" if more else "contextjax__sum")
        scores.append(json.loads(file.read_text())["scores"]["test"][0]["main_score"])
        assert f"{100 * scores[-1]:.2f}" in done.stdout and "results: " in done.stdout
    assert scores[0] == scores[1] >= 0
