"""The compile cache: private or not at all, filled by one process and read by the next, unseen by the counter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.shared import compile_cache

PROGRAM = """
import json, os, sys
from experiments.shared.compile_cache import use_compile_cache
use_compile_cache()
folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
import jax
from contextjax.training.compile_counter import CompileCounter
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
counter = CompileCounter()
x = jax.numpy.ones((8, 8))
before = counter.unexpected
y = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda i, x: jax.numpy.sin(x @ x), x))(x)
print(json.dumps([folder, len(hits), counter.unexpected - before, float(y.sum())]))
"""


def run(folder, **environment):
    environment = {
        **{name: value for name, value in os.environ.items() if "CACHE" not in name},
        "CONTEXTJAX_COMPILE_CACHE": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_next_process_reads_what_the_first_compiled(tmp_path):
    (folder, hits, compiled, value), _ = run(tmp_path / "xla")
    assert Path(folder).parent == tmp_path / "xla" and Path(folder).stat().st_mode & 0o777 == 0o700
    assert hits == 0 and compiled == 1
    (_, hits, compiled_again, value_again), _ = run(tmp_path / "xla")
    assert hits > 0 and compiled_again == 1 and value_again == value


@pytest.mark.long
def test_off_is_off_and_what_is_open_to_others_is_left_alone(tmp_path):
    (folder, _, _, _), complaint = run("off")
    assert folder == "" and "not kept" not in complaint
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    (folder, _, _, _), complaint = run(open_folder)
    assert folder == "" and f"others can write to {open_folder}" in complaint
    (tmp_path / "link").symlink_to(tmp_path)
    (folder, _, _, _), complaint = run(tmp_path / "link")
    assert folder == "" and "is no folder of its own" in complaint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.long
def test_another_user_s_folder_is_left_alone(tmp_path):
    os.chown(tmp_path, 4321, 4321)
    (folder, _, _, _), complaint = run(tmp_path)
    assert folder == "" and f"{tmp_path} belongs to another user" in complaint


def test_a_folder_that_others_could_replace_is_left_alone(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert "or to the folder it is in" in compile_cache._make_private(shared / "xla")
    shared.chmod(0o1777)  # sticky, as /tmp is: only its owner can rename it
    assert compile_cache._make_private(shared / "xla") == ""
    assert (shared / "xla").stat().st_mode & 0o777 == 0o700


def test_the_default_is_in_the_user_s_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_cache.default_folder() == tmp_path / "contextjax" / "xla"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert compile_cache.default_folder() == Path.home() / ".cache" / "contextjax" / "xla"
