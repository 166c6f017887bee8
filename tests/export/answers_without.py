"""Runs an export where packages are missing: python -m tests.export.answers_without PACKAGES WAY EXPORT INPUT OUTPUT.

PACKAGES are joined by commas; their import fails. WAY is `load`, or `onnx`: that runtime, without `contextjax.load`.
"""

import importlib.abc
import sys
from pathlib import Path


class Block(importlib.abc.MetaPathFinder):
    """Refuses the import of some packages."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"{name} is blocked")


if __name__ == "__main__":
    packages, way, folder, source, target = sys.argv[1:]
    sys.meta_path.insert(0, Block(packages.split(",")))

    import numpy as np

    if way == "load":
        from contextjax import load

        system = load(folder)
    else:
        from contextjax.export.exported import open_export

        system = open_export(Path(folder), runtime=way)
    inputs = np.load(source)
    pictures = [inputs[name] for name in sorted(inputs.files)]
    np.savez(
        target,
        query=system.encode_query(pictures[:2], ["remove the dog", "make it large"]),
        gallery=system.encode_gallery(pictures),
        score=system.score_candidates(pictures, "make it large"),
    )
