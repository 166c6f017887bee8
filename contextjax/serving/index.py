"""An exact index of pictures in a folder: names and embeddings, which grow, shrink and are searched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from contextjax.files import locked
from contextjax.serving import segments
from contextjax.serving.exact import ExactSearch
from contextjax.serving.interface import (
    Hits,
    check_fingerprint,
    check_new,
    check_present,
    check_rows,
    check_stamps,
    list_names,
)
from contextjax.serving.segments import BadPicture, Listing, Manifest, Segment
from contextjax.serving.storage import pack
from contextjax.types import UserError

LARGEST = 65_536  # rows of a segment that a later one is still merged with


class Index:
    """The index in a folder. Its embeddings are read when they are first searched.

    Readers in other processes see the index before a change or after it, and nothing between. A reader that opened the
    index earlier moves on when it changes the index itself, or when the files that it needs are gone.

    Example:
      index = Index.create(Path("INDEX"), 512, fingerprint=system.identity)
      index.add(["a.png", "b.png"], system.encode_gallery(pictures))
      index.search(system.encode_query([picture], ["the same, but red"]), 10)  # [[("b.png", 0.31), ...]]
    """

    manifest: Manifest
    listing: Listing  # of all rows

    def __init__(self, folder: Path, *, devices: int | None = None):
        """Opens the index in `folder`, to be searched on the first `devices` of this process; None: on all.

        Raises:
          UserError: there is none, or it is damaged.
        """
        self.folder, self._devices = folder, devices
        self._open(segments.read_manifest(folder))

    @classmethod
    def create(cls, folder: Path, dimension: int, *, storage: str = "float32", fingerprint: str = "",
               gallery: str = "", devices: int | None = None) -> Index:  # fmt: skip
        """Makes a new, empty index.

        Args:
          folder: a folder that holds no index yet.
          dimension: the number of values of an embedding.
          storage: "float32", "bfloat16" or "int8".
          fingerprint: the identity of the system that makes the embeddings.
          gallery: the place of the pictures, where they are of a gallery.
          devices: see Index.

        Raises:
          UserError: the folder holds an index, or the storage is unknown.
        """
        if (folder / segments.MANIFEST).exists():
            raise UserError(f"{folder} holds an index already; give another folder, or remove it.")
        pack(np.zeros((0, dimension)), storage)  # an unknown storage is reported before anything is written
        segments.write_manifest(folder, Manifest(dimension, storage, fingerprint, gallery))
        return cls(folder, devices=devices)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dimension(self) -> int:
        """The number of values of an embedding."""
        return self.manifest.dimension

    @property
    def gallery(self) -> str:
        """The place of the pictures; empty where they are of no gallery."""
        return self.manifest.gallery

    @property
    def names(self) -> list[str]:
        """The names of all rows, in their order."""
        return self.listing.names

    @property
    def skipped(self) -> list[BadPicture]:
        """The gallery's pictures that can't be read."""
        return self.listing.skipped

    def check(self, fingerprint: str) -> None:
        """Raises a UserError where another system than this one made the embeddings."""
        check_fingerprint(self.manifest.fingerprint, fingerprint, place=str(self.folder))

    def present(self, names: Sequence[str]) -> list[str]:
        """Returns those of the names that are in the index, in the given order."""
        known = set(self.names)
        return [name for name in names if name in known]

    def add(self, names: Sequence[str], embeddings: np.ndarray, *, stamps: np.ndarray | None = None) -> None:
        """Appends pictures. They are on the disk when this returns.

        Args:
          names: different names that are not in the index.
          embeddings: [N, D], L2-normalised.
          stamps: int64 [N, 2], which differ when a picture has changed; None: zeros.

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
            kept, new = list(self.manifest.segments), Segment(list(names), stamps, [], packed)
            listing = segments.join_listings([self.listing, new])
            while kept and kept[-1][1] <= len(new.names) <= LARGEST - kept[-1][1]:  # few segments are faster to read
                last = segments.read_segment(self._segment_folder / kept.pop()[0])
                new = segments.join_segments([last, new])
            self._commit([*kept, segments.write_segment(self._segment_folder, new)])
            self.listing = listing
        if self._search is not None:
            self._search.add(packed)

    def remove(self, names: Collection[str]) -> None:
        """Removes pictures. Segments that held some of them are written again without them.

        Raises:
          UserError: some are not in the index.
        """
        gone = set(names)
        with locked(self.folder):
            self._refresh()
            check_present(gone, self.names, place=str(self.folder))
            self._replace(self._kept([], lambda name, stamp: name not in gone))

    def update(self, stamps: Mapping[str, list[int]], staged: Sequence[Path]) -> None:
        """Makes the index that of a gallery, in one change.

        Rows and bad pictures stay where they have the gallery's stamps. The others are removed, and those that are
        missing then are taken from staged segments.

        Args:
          stamps: the stamp of every picture of the gallery by its name.
          staged: files of segments.write_segment, in the order in which their rows are appended.

        Raises:
          UserError: the index has changed since it was opened, or a picture is in no segment.
        """
        with locked(self.folder):
            if segments.read_manifest(self.folder) != self.manifest:
                raise UserError(f"Another process has changed {self.folder} meanwhile; run the same command again.")
            wanted = dict(stamps)
            # A name that has been met is no longer wanted: it comes once, however many segments hold it.
            kept = self._kept(staged, lambda name, stamp: wanted.get(name) == stamp and wanted.pop(name) is not None)
            if wanted:
                raise UserError(
                    f"{list_names([*wanted])} are in no segment of {self.folder}; run the same command again."
                )
            self._replace(kept)

    def _kept(self, staged: Sequence[Path], keep: Callable[[str, list[int]], bool]) -> list[tuple[str, int]]:
        """Returns segments of the pictures to keep, by name and stamp, of the index and of staged segments."""
        kept = []
        for path in [*self.manifest.paths(self.folder), *staged]:
            listing = segments.read_listing(path)
            rows = np.asarray([keep(*row) for row in zip(listing.names, listing.stamps.tolist(), strict=True)], bool)
            skipped = [bad for bad in listing.skipped if keep(bad.name, bad.stamp)]
            if rows.all() and skipped == listing.skipped:
                segments.link_segment(path, self._segment_folder)
                kept.append((path.name, len(rows)))
            elif rows.any() or skipped:
                segment = segments.read_segment(path).select(rows, skipped)
                kept.append(segments.write_segment(self._segment_folder, segment))
        return kept

    @property
    def _segment_folder(self) -> Path:
        return self.folder / segments.FOLDER

    def _replace(self, files: Sequence[tuple[str, int]]) -> None:
        """Makes the given segments the index, and reads it again."""
        if tuple(files) != self.manifest.segments:
            self._commit(files)
            self._open(self.manifest)

    def _commit(self, files: Sequence[tuple[str, int]]) -> None:
        segments.remove_unused(self.folder, used=[*self.manifest.segments, *files])
        manifest = dataclasses.replace(self.manifest, segments=tuple(files))
        segments.write_manifest(self.folder, manifest)
        self.manifest = manifest

    def _open(self, manifest: Manifest) -> None:
        """Reads the names. Where the segments are gone, another process has moved on: reads what it has made."""
        self.manifest = manifest
        self._search: ExactSearch | None = None
        try:
            listings = [segments.read_listing(path) for path in manifest.paths(self.folder)]
        except UserError:
            now = segments.read_manifest(self.folder)
            if now == manifest:
                raise
            return self._open(now)
        self.listing = segments.join_listings(listings)
        return None

    def _refresh(self) -> None:
        """Reads what another process has changed."""
        manifest = segments.read_manifest(self.folder)
        if manifest != self.manifest:
            self._open(manifest)

    def load(self) -> ExactSearch:
        """Returns the search of the embeddings, which are read at the first call.

        Raises:
          UserError: a file is damaged.
        """
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
        for segment in segments.read_segments(self.folder, self.manifest):
            search.add(segment.embeddings)
        return search

    def search_rows(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (rows int64 [B, k], cosines float32 [B, k]) of queries [B, D], see ExactSearch.search."""
        return self.load().search(queries, k)

    def search(self, queries: np.ndarray, k: int) -> list[Hits]:
        """Returns the k best (name, cosine) of each query [B, D], best first; of equal ones, the lower row first.

        Raises:
          UserError: the index is empty, or the queries do not fit it.
        """
        rows, cosines = self.search_rows(queries, k)
        return [
            [(self.names[row], float(cosine)) for row, cosine in zip(*best, strict=True)]
            for best in zip(rows, cosines, strict=True)
        ]
