"""Prints the drafts that Beam makes: python -m tests.data_pipelines.synthesis.runs_beam FOLDER PLACE SCENES OPTIONS.

The environment with Beam has no pytest.
"""

import functools
import sys
from pathlib import Path

from data_pipelines.datasets import READERS
from data_pipelines.synthesis import rules
from data_pipelines.synthesis.beam import run_beam
from data_pipelines.synthesis.drafts import to_line
from data_pipelines.synthesis.pairs import existing_pairs
from data_pipelines.synthesis.pipeline import Pipeline


def make_pipeline(folder: Path, place: Path, *, scenes: str = "val"):
    pictures, pairs = existing_pairs(READERS["cirr"](folder), "val")
    make = functools.partial(rules.with_scenes, folder, (scenes,))
    return pairs, Pipeline(pictures=pictures, make_model=make, answers=place / "answers.sqlite", run="test")


if __name__ == "__main__":
    folder, place, scenes, *options = sys.argv[1:]
    pairs, pipeline = make_pipeline(Path(folder), Path(place), scenes=scenes)
    for draft in run_beam(pairs, pipeline, options, place=Path(place)):
        print(to_line(draft))
