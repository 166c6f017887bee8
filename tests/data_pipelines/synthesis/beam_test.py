"""Beam's local runner comes to the drafts that threads do; BEAM_PYTHON names the Python of an environment with it."""

import functools
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contextjax.types import UserError
from data_pipelines.datasets import READERS
from data_pipelines.synthesis import rules
from data_pipelines.synthesis.beam import run_beam
from data_pipelines.synthesis.drafts import to_line
from data_pipelines.synthesis.pairs import existing_pairs
from data_pipelines.synthesis.pipeline import Pipeline, run_local

HAS_BEAM = importlib.util.find_spec("apache_beam") is not None
PYTHON = os.environ.get("BEAM_PYTHON") or (sys.executable if HAS_BEAM else "")
needs_beam = pytest.mark.skipif(not PYTHON, reason="no Apache Beam: set BEAM_PYTHON to the Python of an environment")


def make_pipeline(folder: Path, place: Path, *, scenes: str = "val"):
    pictures, pairs = existing_pairs(READERS["cirr"](folder), "val")
    make = functools.partial(rules.with_scenes, folder, (scenes,))
    return pairs, Pipeline(pictures=pictures, make_model=make, answers=place / "answers.sqlite", run="test")


SCRIPT = f"""
import functools, sys
from pathlib import Path
from data_pipelines.datasets import READERS
from data_pipelines.synthesis import rules
from data_pipelines.synthesis.beam import run_beam
from data_pipelines.synthesis.drafts import to_line
from data_pipelines.synthesis.pipeline import Pipeline
from data_pipelines.synthesis.pairs import existing_pairs

{inspect.getsource(make_pipeline)}

folder, place, scenes, *options = sys.argv[1:]
pairs, pipeline = make_pipeline(Path(folder), Path(place), scenes=scenes)
for draft in run_beam(pairs, pipeline, options, place=Path(place)):
    print(to_line(draft))
"""


def beam(*arguments):
    """Runs the script there: that environment has no pytest."""
    return subprocess.run(
        [PYTHON, "-c", SCRIPT, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
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
