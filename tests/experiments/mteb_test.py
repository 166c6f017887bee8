"""Tests of experiments.mteb: a task of mteb's own by a tiny CLIP, and a package that is not there."""

import importlib.util
import json
import sys

import pytest

from tests.commands import in_process

needs_mteb = pytest.mark.skipif(importlib.util.find_spec("mteb") is None, reason="needs the extra [mteb]")


def test_a_missing_package_names_its_extra(clip, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mteb", None)
    done = in_process("mteb", f"--source={clip}", "--tasks=A", f"--target={tmp_path}")
    assert done.returncode == 2 and "contextjax[mteb]" in done.stderr


@needs_mteb
@pytest.mark.long
def test_a_task_is_run_and_its_results_are_kept(clip, tmp_path, monkeypatch):
    import mteb
    from mteb.mocks import mock_tasks

    monkeypatch.setattr(mteb, "get_task", lambda name: getattr(mock_tasks, name)())
    arguments = [f"--source={clip}", "--tasks=MockAny2AnyRetrievalT2ITask", f"--target={tmp_path}"]
    done = in_process("mteb", *arguments, "--query=image", "--name=shop/mine")
    assert done.returncode == 0 and "MockAny2AnyRetrievalT2I test default: ndcg_at_10 " in done.stdout, done.stderr
    (file,) = tmp_path.rglob("MockAny2AnyRetrievalT2I.json")
    assert file.parent.name.endswith("-image") and file.parent.parent.name == "shop__mine"
    assert json.loads(file.read_text())["scores"]["test"][0]["main_score"] >= 0
