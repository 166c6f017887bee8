"""Pictures and pairs of them: the pairs of a set of composed queries, or pairs mined from unlabelled pictures.

Mining groups pictures whose embeddings are similar: neither near-duplicates nor unrelated.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from contextjax import images
from contextjax.types import ComposedRecord, UserError, listed
from data_pipelines.chat.questions import ShownPicture
from data_pipelines.prepare import located_pictures, read_bytes
from data_pipelines.readers import DatasetReader
from data_pipelines.records import PictureFile
from data_pipelines.synthesis.drafts import Draft

GRID = 2.0**20  # embeddings are compared as multiples of 1 / GRID: sums of their products are exact in any order
SAMPLED = 2000  # pictures whose similarities are counted

Bin = tuple[float, list[tuple[int, int, float]]]


@dataclasses.dataclass(frozen=True)
class SourcePictures:
    """The files of pictures, by id. Any process can read them from a pickled copy."""

    folder: Path
    files: Mapping[str, PictureFile]

    def show(self, name: str) -> ShownPicture:
        """Reads a picture's bytes and their digest.

        Raises:
          UserError: the file can't be read, or is no picture.
        """
        data = read_bytes(self.files[name], f"Picture {name}")
        images.decode(data, name=f"Picture {name}")
        return ShownPicture(name, hashlib.blake2b(data, digest_size=16).hexdigest(), data)

    def place(self, name: str) -> str:
        """Returns the path of a picture's copy: its path in the folder without img_raw/; for part of a file, a hash."""
        file = self.files[name]
        if not isinstance(file, Path):
            return f"{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}.png"
        return Path(os.path.relpath(file, self.folder)).as_posix().removeprefix(self._shared)

    @functools.cached_property
    def _shared(self) -> str:
        """The prefix "img_raw/" of CIRR's own folder, if all pictures are in it."""
        places = (os.path.relpath(str(file), self.folder) for file in self.files.values())
        return "img_raw/" if all(place.startswith("img_raw/") for place in places) else ""


def folder_pictures(folder: Path) -> SourcePictures:
    """Lists all pictures of a folder and its subfolders, by their paths in it.

    Raises:
      UserError: there is no such folder, or it holds no pictures, or a name is not UTF-8.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; give a folder of pictures as --pictures.")
    names, _ = images.find_pictures(folder)
    named = {name: folder / name for name in names}
    if not named:
        raise UserError(f"{folder} holds no pictures; expected files as cat.png or cat.jpg.")
    odd = [name for name in named if name != name.encode(errors="replace").decode()]
    if odd:
        raise UserError(
            f"{folder} has {len(odd)} picture(s) with names that are no UTF-8 ({listed(odd)}); rename them."
        )
    return SourcePictures(folder, named)


def existing_pairs(reader: DatasetReader[ComposedRecord], split: str) -> tuple[SourcePictures, list[Draft]]:
    """Returns a split's pictures, and its own (reference, target) pairs, each once, in order of their names.

    Raises:
      UserError: there is no such split, its records have no targets, or it can't be read.
    """
    if split not in reader.splits:
        raise UserError(f"The set has no split '{split}'; it has {', '.join(reader.splits)}.")
    if reader.record_type is not ComposedRecord:
        raise UserError(f"'{reader.name}' has no pairs of reference and target; give a set of composed queries.")
    pairs = {(record.reference, record.target) for record in reader.records(split) if record.target is not None}
    if not pairs:
        raise UserError(f"Split '{split}' names no targets, so it has no pairs; give another split.")
    pictures = SourcePictures(Path(getattr(reader, "folder")), located_pictures(reader, split))  # noqa: B009
    return pictures, [Draft(reference, target) for reference, target in sorted(pairs)]


def grouped_pairs(groups: Iterable[tuple[str, ...]], *, targets: int) -> list[Draft]:
    """Makes pairs of mined groups: each member is a reference, the next `targets` of its group (in a ring) its targets.

    Every member is thus a target as often as a reference.
    """
    drafts = [
        Draft(group[i], group[(i + offset) % len(group)])
        for group in groups
        for i in range(len(group))
        for offset in range(1, min(targets, len(group) - 1) + 1)
    ]
    return sorted(drafts, key=lambda draft: (draft.reference, draft.target))


@dataclasses.dataclass(frozen=True)
class SimilarityBand:
    """The cosines that two pictures of a group may have."""

    low: float
    high: float

    def __post_init__(self):
        if not -1 <= self.low < self.high <= 1:
            raise UserError(f"The similarity band is {self.low:g} to {self.high:g}; expected -1 <= low < high <= 1.")


def on_grid(embeddings: np.ndarray) -> np.ndarray:
    """Normalises embeddings [N, D] by their L2 norm and rounds them to the grid: float64 [N, D]."""
    rows = np.asarray(embeddings, np.float64)
    return np.rint(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12) * GRID) / GRID


def mine_groups(embeddings: np.ndarray, band: SimilarityBand, *, size: int = 6, seed: int = 0) -> list[tuple[int, ...]]:
    """Finds groups of `size` pictures, any two of which are within the band; no picture is in two groups.

    Pictures are tried as the first of a group in an order drawn by `seed`. The other members are those most like it
    that are within the band of all before them. At most N² cosines are computed.

    Args:
      embeddings: [N, D], a row for each picture.
      band: the cosines that two members may have.
      size: pictures of a group, two or more.
      seed: seed of the order.

    Returns:
      The rows of each group.

    Raises:
      UserError: `size` is less than 2.
    """
    if size < 2:
        raise UserError(f"A group has {size} pictures; expected 2 or more.")
    rows = on_grid(embeddings)
    free = np.ones(len(rows), bool)
    groups = []
    for first in np.random.default_rng(seed).permutation(len(rows)).tolist():
        if not free[first]:
            continue
        group = _group_of(first, rows, free, band, size)
        if len(group) == size:
            free[group] = False
            groups.append(tuple(group))
        else:
            free[first] = False  # with the pictures that are left, no group holds it
    return groups


def _group_of(first: int, rows: np.ndarray, free: np.ndarray, band: SimilarityBand, size: int) -> list[int]:
    cosines = rows @ rows[first]  # of all rows, since selecting the free ones would copy them each time
    others = np.flatnonzero(free & (cosines >= band.low) & (cosines <= band.high))
    group = [first]
    for row in others[np.argsort(-cosines[others], kind="stable")].tolist():
        if row == first:
            continue
        between = rows[group] @ rows[row]
        if (between >= band.low).all() and (between <= band.high).all():
            group.append(row)
            if len(group) == size:
                break
    return group


def sample_pairs(embeddings: np.ndarray, *, per_bin: int, edges: Sequence[float], seed: int = 0) -> list[Bin]:
    """Draws pairs of pictures from bins of similarity, to help choose a band.

    Args:
      embeddings: [N, D].
      per_bin: pairs of each bin.
      edges: cosines between the bins, ascending: bins are below the first edge, between two, and above the last.
      seed: seed of the draw, among at most SAMPLED pictures.

    Returns:
      For each bin (its share of the sampled pairs, [(row, row, cosine)]).
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(embeddings))[:SAMPLED])
    vectors = on_grid(np.asarray(embeddings)[rows])
    one, other = np.triu_indices(len(rows), 1)
    cosines = (vectors @ vectors.T)[one, other]
    bins = np.searchsorted(np.asarray(edges), cosines, side="right")
    binned = []
    for bin in range(len(edges) + 1):
        inside = np.flatnonzero(bins == bin)
        drawn = np.sort(rng.permutation(len(inside))[:per_bin])
        picked = [(int(rows[one[i]]), int(rows[other[i]]), float(cosines[i])) for i in inside[drawn]]
        binned.append((len(inside) / max(len(cosines), 1), picked))
    return binned
