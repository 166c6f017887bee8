"""Prepares a folder of captions, until it is killed: python -m tests.data_pipelines.prepares FOLDER."""

import sys
from pathlib import Path

from data_pipelines.datasets.captions import CaptionsReader
from data_pipelines.prepare import prepare

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print("begins", flush=True)
    prepared = prepare(CaptionsReader(folder), folder, "train")
    assert len(prepared.pictures) == len(prepared.ids) == len(prepared.records)
