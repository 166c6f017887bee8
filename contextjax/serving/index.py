"""An index of pictures: names and embeddings in a folder, searched exactly; pictures come and go, safely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from contextjax.files import is_utf8, locked
from contextjax.serving import parts
from contextjax.serving.exact import ExactSearch
from contextjax.serving.parts import Manifest, Part
from contextjax.serving.storage import pack
from contextjax.types import UserError

LARGEST = 65_536  # rows of a part that a later one is still written into

Found = list[tuple[str, float]]  # name and cosine, best first


class Index:
    """A folder's names and embeddings. Those are read when they are first searched."""

    def __init__(self, folder: Path, *, devices: int | None = None):
        """Opens the index in `folder`, to search it on the first `devices`; default: all of this process.

        Raises:
          UserError: there is none, or it is damaged.
        """
        self.folder, self._devices = folder, devices
        self._open(parts.read_manifest(folder))

    @classmethod
    def create(cls, folder: Path, dimension: int, *, storage: str = "float32", fingerprint: str = "",
               gallery: str = "", devices: int | None = None) -> Index:  # fmt: skip
        """A new, empty index.

        Args:
          folder: where; it may hold no index yet.
          dimension: of the embeddings.
          storage: "float32", "bfloat16" or "int8".
          fingerprint: of the system that makes the embeddings.
          gallery: what is embedded, where it is a gallery.
          devices: as for Index.

        Raises:
          UserError: there is one already, or an unknown storage.
        """
        if (folder / parts.MANIFEST).exists():
            raise UserError(f"{folder} holds an index already; give another folder, or remove it.")
        pack(np.zeros((0, dimension)), storage)  # an unknown one is told now
        parts.write_manifest(folder, Manifest(dimension, storage, fingerprint, gallery))
        return cls(folder, devices=devices)

    def _open(self, manifest: Manifest) -> None:
        try:
            self.names, self.skipped = parts.read_names(self.folder, manifest)
        except UserError:
            now = parts.read_manifest(self.folder)
            if now == manifest:
                raise
            return self._open(now)  # another process has moved on since it was read, and has removed old parts
        self.manifest: Manifest = manifest
        self._search: ExactSearch | None = None
        return None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dimension(self) -> int:
        """Of the embeddings."""
        return self.manifest.dimension

    def present(self, names: Sequence[str]) -> list[str]:
        """Those of some names that are there."""
        known = set(self.names)
        return [name for name in names if name in known]

    def check(self, fingerprint: str) -> None:
        """Raises a UserError where another system than this one made the embeddings."""
        check_fingerprint(self.manifest.fingerprint, fingerprint, place=str(self.folder))

    def add(self, names: Sequence[str], embeddings: np.ndarray, *, stamps: np.ndarray | None = None) -> None:
        """Appends pictures; on the disk when this returns.

        Args:
          names: all different, and not in the index.
          embeddings: [N, D], L2-normalised.
          stamps: int64 [N, 2], what changes when a picture does.

        Raises:
          UserError: names that repeat, embeddings of another dimension or with values that are not finite, stamps
            that are not one for each name.
        """
        check_rows(names, embeddings, self.dimension)
        packed = pack(embeddings, self.manifest.storage)
        stamps = check_stamps(names, stamps)
        with locked(self.folder):
            self._refresh()
            check_new(names, self.names, place=str(self.folder))
            kept, new = list(self.manifest.parts), Part(list(names), packed, stamps)
            while kept and kept[-1][1] <= len(new) <= LARGEST - kept[-1][1]:  # so there are few parts
                new = parts.joined([parts.read_part(self.folder / parts.FOLDER / kept.pop()[0]), new])
            self._write(kept, new)
        self.names = [*self.names, *names]
        if self._search is not None:
            self._search.add(packed)

    def remove(self, names: Collection[str]) -> None:
        """Removes pictures: what is left is written again where it shares a part with them.

        Raises:
          UserError: some are not in the index.
        """
        gone = set(names)
        with locked(self.folder):
            self._refresh()
            if unknown := sorted(gone - set(self.names)):
                raise UserError(f"{self.folder} has no {listed(unknown)}; only what is in it can be removed.")
            self._change(gone)

    def stamps(self) -> dict[str, list[int]]:
        """What was known of each picture when it was embedded, or skipped."""
        rows = dict(zip(self.names, self.row_stamps().tolist(), strict=True))
        return {bad.name: bad.stamp for bad in self.skipped} | rows

    def row_stamps(self) -> np.ndarray:
        """int64 [N, 2], of every row."""
        return parts.read_stamps(self.folder, self.manifest)

    def replace(self, gone: Collection[str], staged: Sequence[tuple[Path, int]], *, expected: Manifest) -> None:
        """Removes pictures, also those that were skipped, and appends files of parts.write_part, all at once.

        Args:
          gone: names to remove.
          staged: files and their row counts.
          expected: what the index is; both were made for that.

        Raises:
          UserError: the index has changed, or a file has names that come twice, or are in the index and stay there.
        """
        with locked(self.folder):
            self._refresh()
            if self.manifest != expected:
                raise UserError(f"Another process has changed {self.folder} meanwhile; run the same command again.")
            gone = set(gone)
            new = [name for path, _ in staged for name in parts.read_listing(path)[0]]
            check_new(new, [name for name in self.names if name not in gone], place=str(self.folder))
            self._change(gone, staged)

    def _change(self, gone: set[str], staged: Sequence[tuple[Path, int]] = ()) -> None:
        parts.remove_unused(self.folder, self.manifest)
        kept = []
        for file, count in self.manifest.parts:
            path = self.folder / parts.FOLDER / file
            names, skipped = parts.read_listing(path) if gone else ([], [])
            if gone.isdisjoint([*names, *(bad.name for bad in skipped)]):
                kept.append((file, count))
                continue
            skipped = [bad for bad in skipped if bad.name not in gone]
            part = parts.read_part(path)
            left = part.only(np.asarray([name not in gone for name in part.names], bool), skipped)
            if left.names or left.skipped:
                kept.append(parts.add_part(self.folder, left))
        kept += [parts.adopt_part(self.folder, path, count) for path, count in staged]
        self._commit(kept)
        self._open(self.manifest)

    def _write(self, kept: list[tuple[str, int]], new: Part) -> None:
        parts.remove_unused(self.folder, self.manifest)
        self._commit([*kept, parts.add_part(self.folder, new)])

    def _commit(self, files: list[tuple[str, int]]) -> None:
        m = self.manifest
        self.manifest = Manifest(m.dimension, m.storage, m.fingerprint, m.gallery, tuple(files))
        parts.write_manifest(self.folder, self.manifest)

    def _refresh(self) -> None:
        """Sees what another process has changed."""
        manifest = parts.read_manifest(self.folder)
        if manifest != self.manifest:
            self._open(manifest)

    def search_rows(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows int64 [B, k], cosines float32 [B, k]) of queries [B, D], see ExactSearch.search."""
        return self.load().search(queries, k)

    def load(self) -> ExactSearch:
        """Reads the embeddings, if they have not been: those of now, where the ones of then are gone."""
        if self._search is None:
            try:
                self._search = self._read()
            except UserError:
                before = self.manifest
                self._refresh()
                if self.manifest == before:
                    raise
                self._search = self._read()
        return self._search

    def _read(self) -> ExactSearch:
        search = ExactSearch(self.dimension, self.manifest.storage, devices=self._devices)
        for part in parts.iterate(self.folder, self.manifest):
            search.add(part.embeddings)
        return search

    def search(self, queries: np.ndarray, k: int) -> list[Found]:
        """The best k (name, cosine) of each query [B, D], best first; of equals, what came first.

        Raises:
          UserError: the index is empty, or the queries do not fit it.
        """
        rows, scores = self.search_rows(queries, k)
        return [
            [(self.names[row], float(score)) for row, score in zip(*found, strict=True)]
            for found in zip(rows, scores, strict=True)
        ]


def check_fingerprint(known: str, given: str, *, place: str) -> None:
    """Raises a UserError where an index and a system don't belong together."""
    if known != given:
        raise UserError(
            f"{place} holds embeddings of the model {known or '(unnamed)'}, but this one is {given or '(unnamed)'}; "
            "embed the pictures again with this model, or load that one."
        )


def check_rows(names: Sequence[str], embeddings: np.ndarray, dimension: int) -> None:
    """Raises a UserError where names and embeddings are no new rows of an index of this dimension."""
    if embeddings.shape != (len(names), dimension):
        raise UserError(
            f"The embeddings are {list(embeddings.shape)}; expected {[len(names), dimension]}, a row for each name and "
            "the dimension of the index."
        )


def check_stamps(names: Sequence[str], stamps: np.ndarray | None) -> np.ndarray:
    """int64 [N, 2], zeros where there are none. Raises a UserError where they are not one for each name."""
    found = np.zeros((len(names), 2), np.int64) if stamps is None else np.asarray(stamps)
    if found.shape != (len(names), 2) or found.dtype.kind not in "iu":
        raise UserError(f"The stamps are {found.dtype} {list(found.shape)}; expected int64 {[len(names), 2]}.")
    return found.astype(np.int64, copy=False)


def check_new(names: Sequence[str], known: Collection[str], *, place: str) -> None:
    """Raises a UserError where some names are in the index already, come twice, or are no text."""
    if bad := [name for name in names if not is_utf8(name)]:
        raise UserError(f"{listed(bad)} can't be written in UTF-8; give other names.")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{listed(repeated)} come(s) more than once; give each picture a name of its own.")
    if repeated := sorted(set(names).intersection(known)):
        raise UserError(f"{place} has {listed(repeated)} already; remove them first, or give other names.")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, ten at most."""
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
