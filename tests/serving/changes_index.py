"""Adds to an index and removes from it until it is killed: python -m tests.serving.changes_index INDEX."""

import sys
from pathlib import Path

import numpy as np

from contextjax.serving.index import Index

if __name__ == "__main__":
    index, step = Index(Path(sys.argv[1])), 0
    print("ready", flush=True)
    while True:
        names = [f"{step}-{i}" for i in range(3)]
        index.add(names, np.full((3, 16), 0.25, np.float32) * (1 + step))
        index.remove(names[:1])
        step += 1
        print(step, flush=True)
