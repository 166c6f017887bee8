"""Beam's local runner comes to the drafts that threads do; BEAM_PYTHON names the Python of an environment with it."""

import importlib.util
import os
import subprocess
import sys

import pytest

from contextjax.types import UserError
from data_pipelines.synthesis.beam import run_beam
from data_pipelines.synthesis.drafts import to_line
from data_pipelines.synthesis.pipeline import run_local
from tests.commands import ROOT
from tests.data_pipelines.synthesis.runs_beam import make_pipeline

HAS_BEAM = importlib.util.find_spec("apache_beam") is not None
PYTHON = os.environ.get("BEAM_PYTHON") or (sys.executable if HAS_BEAM else "")
needs_beam = pytest.mark.skipif(not PYTHON, reason="no Apache Beam: set BEAM_PYTHON to the Python of an environment")


def beam(*arguments):
    """Runs `runs_beam` there."""
    return subprocess.run(
        [PYTHON, "-m", "tests.data_pipelines.synthesis.runs_beam", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@needs_beam
@pytest.mark.parametrize("options", [(), ("--direct_running_mode=multi_processing", "--direct_num_workers=2")])
def test_beam_gives_what_threads_give(options, pictograms, tmp_path):
    done = beam(pictograms, tmp_path / "beam", "val", "--runner=DirectRunner", *options)
    assert done.returncode == 0, done.stderr
    pairs, pipeline = make_pipeline(pictograms, tmp_path)
    assert [line for line in done.stdout.splitlines() if line[:1] == "{"] == [
        to_line(draft) for draft in run_local(pairs, pipeline)
    ]


@pytest.mark.slow
@needs_beam
def test_a_mistake_in_a_worker_is_still_one_sentence(pictograms, tmp_path):
    done = beam(pictograms, tmp_path / "beam", "train", "--runner=DirectRunner")
    assert "UserError: There is no scene graph of dev-" in done.stderr.strip().splitlines()[-1]


@pytest.mark.skipif(HAS_BEAM, reason="Beam is here")
def test_without_beam_the_way_to_it_is_reported(pictograms, tmp_path):
    pairs, pipeline = make_pipeline(pictograms, tmp_path)
    with pytest.raises(UserError, match=r"environment of its own.*docs/guides/synthesis\.md"):
        list(run_beam(pairs, pipeline, [], place=tmp_path))
