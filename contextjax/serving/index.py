"""An exact index of pictures in a folder: names and embeddings, which grow, shrink and are searched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from contextjax.files import flush, locked
from contextjax.serving import filters, interface, segments
from contextjax.serving.attributes import Attributes
from contextjax.serving.exact import ExactSearch
from contextjax.serving.filters import Value
from contextjax.serving.interface import Hits
from contextjax.serving.segments import BadPicture, Manifest, Segment
from contextjax.serving.storage import DTYPES, Packed, concatenate, pack
from contextjax.types import UserError

LARGEST = 65_536  # rows of a segment that a later one is still merged with
KEPT = 32  # filters whose rows are kept in memory


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
    segments: list[Segment]
    names: list[str]  # of all rows
    _search: ExactSearch | None
    _attributes: Attributes | None = None
    _kinds: dict[str, str]
    _masks: dict[str, np.ndarray]

    def __init__(self, folder: Path, *, devices: int | None = None):
        """Opens the index in `folder`, to be searched on the first `devices` of this process; None: on all.

        Raises:
          UserError: there is none, or it is damaged.
        """
        self.folder, self._devices = folder, devices
        self._open()

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
        segments.remove_unused(folder, used=set())  # a damaged index's, whose manifest was removed
        near = segments.path_between(folder, gallery)
        segments.write_manifest(folder, Manifest(dimension, storage, fingerprint, gallery, near))
        return cls(folder, devices=devices)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dimension(self) -> int:
        """The number of values of an embedding."""
        return self.manifest.dimension

    @property
    def gallery(self) -> str:
        """The place of the pictures; empty where they are of no gallery.

        Where nothing is there any more, it is the place that lies to the index as that one did, if something is there.
        """
        place, near = self.manifest.gallery, self.manifest.near
        moved = (self.folder / near).resolve() if near else None
        return str(moved) if moved is not None and moved.exists() and not Path(place).exists() else place

    @property
    def skipped(self) -> list[BadPicture]:
        """The gallery's pictures that can't be read."""
        return [bad for segment in self.segments for bad in segment.skipped]

    def check(self, fingerprint: str) -> None:
        """Raises a UserError where another system than this one made the embeddings."""
        interface.check_fingerprint(self.manifest.fingerprint, fingerprint, place=str(self.folder))

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
        interface.check_rows(names, embeddings, self.dimension)
        packed = pack(embeddings, self.manifest.storage)
        stamps = interface.check_stamps(names, stamps)
        with locked(self.folder):
            self._refresh()
            interface.check_new(names, self.names, place=str(self.folder))
            kept, merged, rows = list(self.segments), [], len(names)
            while kept and len(kept[-1].names) <= rows <= LARGEST - len(kept[-1].names):  # few segments are read faster
                merged.insert(0, kept.pop())
                rows += len(merged[0].names)
            new = Segment.write(
                self.folder,
                [name for segment in merged for name in segment.names] + list(names),
                np.concatenate([*(segment.stamps for segment in merged), stamps]),
                concatenate([*(segment.embeddings() for segment in merged), packed]),
                [bad for segment in merged for bad in segment.skipped],
            )
            self._commit([*kept, new])
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
            interface.check_present(gone, self.names, place=str(self.folder))
            self._replace([self._only(segment, lambda name, stamp: name not in gone) for segment in self.segments])

    def follow(self, gallery: str) -> None:
        """Makes a place that of the gallery, which has been moved or copied there. The caller has locked the folder."""
        near = segments.path_between(self.folder, gallery)
        self.manifest = dataclasses.replace(self.manifest, gallery=gallery, near=near)
        segments.write_manifest(self.folder, self.manifest)

    def missing(self, stamps: Mapping[str, list[int]]) -> dict[str, list[int]]:
        """Returns the pictures of a gallery that no segment holds, not even one that a killed run has left.

        Args:
          stamps: the stamp of every picture by its name.
        """
        missing = dict(stamps)
        for segment in (*self.segments, *self._left_behind()):
            for name, stamp in segment.stamp_of().items():
                if missing.get(name) == stamp:
                    del missing[name]
        return missing

    def update(self, stamps: Mapping[str, list[int]]) -> None:
        """Makes the index that of a gallery, in one change. The caller has locked the folder.

        Rows and bad pictures stay where they have the gallery's stamps. The others are removed, and those that are
        missing then are taken from segments that were written and do not count yet, in the gallery's order.

        Args:
          stamps: the stamp of every picture by its name.

        Raises:
          UserError: the index has changed since it was opened, or a picture is in no segment.
        """
        if segments.read_manifest(self.folder) != self.manifest:
            raise UserError(f"Another process has changed {self.folder} meanwhile; run the same command again.")
        order, wanted = {name: row for row, name in enumerate(stamps)}, dict(stamps)
        first = lambda segment: min((order.get(name, len(order)) for name in segment.stamp_of()), default=len(order))
        if left := sorted(self._left_behind(), key=first):
            flush(self.folder / segments.FOLDER)  # a run may have been killed before it did
        # A name is taken from the first segment that holds it, and only once.
        keep = lambda name, stamp: wanted.get(name) == stamp and wanted.pop(name) is not None
        kept = [self._only(segment, keep) for segment in (*self.segments, *left)]
        if wanted:
            raise UserError(
                f"{interface.list_names([*wanted])} are in no segment of {self.folder}; run the same command again."
            )
        self._replace(kept)

    def _left_behind(self) -> list[Segment]:
        """Returns the segments that do not count. A damaged one is removed."""
        left = []
        for path in (self.folder / segments.FOLDER).glob("*.safetensors"):
            if path.name not in self.manifest.segments:
                try:
                    left.append(Segment.open(path))
                except UserError:
                    path.unlink()
        return left

    def _only(self, segment: Segment, keep: Callable[[str, list[int]], bool]) -> Segment | None:
        """Returns a segment with only the pictures to keep, by name and stamp; None where none is left."""
        rows = np.asarray([keep(*row) for row in zip(segment.names, segment.stamps.tolist(), strict=True)], bool)
        skipped = [bad for bad in segment.skipped if keep(bad.name, bad.stamp)]
        if rows.all() and skipped == segment.skipped:
            return segment
        if not rows.any() and not skipped:
            return None
        names = [name for name, kept in zip(segment.names, rows, strict=True) if kept]
        return Segment.write(self.folder, names, segment.stamps[rows], segment.embeddings()[rows], skipped)

    def _replace(self, kept: Sequence[Segment | None]) -> None:
        """Makes the given segments the index; None is left out. The embeddings are read again."""
        present = [segment for segment in kept if segment is not None]
        if present != self.segments:
            self._commit(present)
            self._search = None

    def _commit(self, kept: list[Segment]) -> None:
        files = tuple(segment.path.name for segment in kept)
        segments.remove_unused(self.folder, used={*self.manifest.segments, *files})
        manifest = dataclasses.replace(self.manifest, segments=files)
        segments.write_manifest(self.folder, manifest)
        self._become(manifest, kept)

    def _become(self, manifest: Manifest, kept: list[Segment]) -> None:
        self.manifest, self.segments = manifest, kept
        self.names = [name for segment in kept for name in segment.names]
        self._attributes = None

    def _open(self) -> None:
        """Reads the index as it is now, also where another process changes it meanwhile."""
        manifest = segments.read_manifest(self.folder)
        try:
            kept = [Segment.open(self.folder / segments.FOLDER / file) for file in manifest.segments]
        except UserError:
            if segments.read_manifest(self.folder) == manifest:
                raise
            return self._open()
        self._become(manifest, kept)
        self._search = None
        return None

    def _refresh(self) -> bool:
        """Reads what another process has changed. Returns whether there is such a change."""
        is_changed = segments.read_manifest(self.folder) != self.manifest
        if is_changed:
            self._open()
        return is_changed

    def embeddings(self) -> Iterator[Packed]:
        """Yields the embeddings of each segment as they are stored, read one at a time.

        Raises:
          UserError: a file is missing or damaged, or holds others than the manifest says.
        """
        for segment in self.segments:
            packed, expected = segment.embeddings(), (len(segment.names), self.dimension)
            if packed.vectors.shape != expected or packed.vectors.dtype != DTYPES[self.manifest.storage]:
                raise UserError(
                    f"{segment.path} holds {packed.vectors.dtype} {list(packed.vectors.shape)}; expected "
                    f"{self.manifest.storage} {list(expected)}: embed again."
                )
            yield packed

    def load(self) -> ExactSearch:
        """Returns the search of the embeddings, which are read at the first call.

        Raises:
          UserError: see embeddings.
        """
        while self._search is None:
            search = ExactSearch(self.dimension, self.manifest.storage, devices=self._devices)
            try:
                for packed in self.embeddings():
                    search.add(packed)
                self._search = search
            except UserError:
                if not self._refresh():
                    raise
        return self._search

    def set_attributes(self, attributes: Attributes) -> int:
        """Gives the pictures the attributes of a table instead of those that they had. Returns how many it has.

        Rows of other names stay, for pictures that are added later.

        Raises:
          UserError: the table has no row of any picture.
        """
        count = len(self.present(attributes.names))
        if not count:
            examples = [interface.list_names(names[:2]) for names in (self.names, attributes.names)]
            raise UserError(
                f"No row of the table is of a picture in {self.folder}, which has {examples[0]}; the table has "
                f"{examples[1] or 'no rows'}: give the names as the index has them."
            )
        attributes.write(self.folder)
        self._attributes = None
        return count

    @property
    def attributes(self) -> Attributes:
        """The attributes of the pictures, a row for each of `names`. Read at the first use."""
        if self._attributes is None:
            table = Attributes.open(self.folder)
            self._kinds, self._masks, self._attributes = table.kinds, {}, table.of(self.names)
        return self._attributes

    @property
    def kinds(self) -> Mapping[str, str]:
        """The kind ("text", "number" or "truth value") of each attribute that the pictures have."""
        return self._kinds if self.attributes else {}

    def attributes_of(self, names: Sequence[str]) -> list[dict[str, Value]]:
        """Returns the attributes of each picture by their names, without those that it lacks."""
        return self.attributes.of(names).rows()

    def _mask(self, where: str) -> np.ndarray:
        """Returns bool [N], True for the pictures that fit a filter. Those of the last filters are kept."""
        attributes = self.attributes
        if where not in self._masks:
            while len(self._masks) >= KEPT:
                del self._masks[next(iter(self._masks))]
            condition = filters.parse(where, self._kinds)
            self._masks[where] = filters.mask(condition, attributes.columns, len(self))
        return self._masks[where]

    def search_rows(self, queries: np.ndarray, k: int, where: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns (rows int64 [B, k], cosines float32 [B, k]) of queries [B, D], see ExactSearch.search."""
        search = self.load()  # which may read names again
        return search.search(queries, k, allowed=None if where is None else self._mask(where))

    def search(
        self, queries: np.ndarray, k: int, *, threshold: float | None = None, where: str | None = None
    ) -> list[Hits]:
        """Returns the k best (name, cosine) of each query [B, D], best first; of equal ones, the lower row first.

        `threshold`: the least cosine of an answer; `where`: a filter by the pictures' attributes, see filters.parse.

        Raises:
          UserError: the index is empty, the queries do not fit it, or the filter can't be read.
        """
        rows, cosines = self.search_rows(queries, k, where)
        least = -np.inf if threshold is None else threshold
        return [
            [(self.names[row], float(cosine)) for row, cosine in zip(*best, strict=True) if -np.inf < cosine >= least]
            for best in zip(rows, cosines, strict=True)
        ]
