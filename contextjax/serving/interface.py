"""The calls that every index of pictures has, exact or in Milvus, and the checks of what these calls are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from contextjax.files import is_utf8
from contextjax.serving.filters import Value
from contextjax.types import UserError, listed

Hits = list[tuple[str, float]]  # (name, cosine), best first


class VectorIndex(Protocol):
    """Embeddings of pictures by name. Every call raises a UserError where it is given something that doesn't fit."""

    @property
    def dimension(self) -> int:
        """The number of values of an embedding."""
        ...

    @property
    def gallery(self) -> str:
        """The place of the pictures that were embedded; empty where it is not known."""
        ...

    def __len__(self) -> int: ...

    def check(self, fingerprint: str) -> None:
        """Checks that the system with this fingerprint made the embeddings."""
        ...

    def present(self, names: Sequence[str]) -> list[str]:
        """Returns those of the names that are in the index, in any order."""
        ...

    def add(self, names: Sequence[str], embeddings: np.ndarray, *, stamps: np.ndarray | None = None) -> None:
        """Appends new names with embeddings [N, D], L2-normalised, and stamps int64 [N, 2] of the pictures' state."""
        ...

    def remove(self, names: Collection[str]) -> None:
        """Removes names, all of which are in the index."""
        ...

    @property
    def kinds(self) -> Mapping[str, str]:
        """The kind ("text", "number" or "truth value") of each attribute that the pictures have."""
        ...

    def attributes_of(self, names: Sequence[str]) -> list[dict[str, Value]]:
        """Returns the attributes of each picture by their names, without those that it lacks."""
        ...

    def search(
        self, queries: np.ndarray, k: int, *, threshold: float | None = None, where: str | None = None
    ) -> list[Hits]:
        """Returns the k best (name, cosine) of each query [B, D], best first, but none below the threshold.

        `where`: a filter by the pictures' attributes, see filters.parse; None: all pictures.
        """
        ...


def above(hits: Hits, threshold: float | None) -> Hits:
    """Returns the hits whose score is the threshold or more; None: all."""
    return hits if threshold is None else [hit for hit in hits if hit[1] >= threshold]


def check_fingerprint(known: str, given: str, *, place: str) -> None:
    """Checks that the index at `place`, made by the system `known`, belongs to the system `given`.

    Raises:
      UserError: another system made the embeddings.
    """
    if known != given:
        raise UserError(
            f"{place} holds embeddings of the model {known or '(unnamed)'}, but this one is {given or '(unnamed)'}; "
            "embed the pictures again with this model, or load that one."
        )


def check_rows(names: Sequence[str], embeddings: np.ndarray, dimension: int) -> None:
    """Checks that embeddings are [len(names), dimension].

    Raises:
      UserError: they have another shape.
    """
    if embeddings.shape != (len(names), dimension):
        raise UserError(
            f"The embeddings are {list(embeddings.shape)}; expected {[len(names), dimension]}, a row for each name and "
            "the dimension of the index."
        )


def check_stamps(names: Sequence[str], stamps: np.ndarray | None) -> np.ndarray:
    """Returns the stamps as int64 [N, 2], zeros where none are given.

    Raises:
      UserError: they are not two whole numbers for each name.
    """
    given = np.zeros((len(names), 2), np.int64) if stamps is None else np.asarray(stamps)
    if given.shape != (len(names), 2) or given.dtype.kind not in "iu":
        raise UserError(f"The stamps are {given.dtype} {list(given.shape)}; expected int64 {[len(names), 2]}.")
    return given.astype(np.int64, copy=False)


def check_new(names: Sequence[str], known: Collection[str], *, place: str) -> None:
    """Checks that names are text, all different, and not among the `known` ones at `place`.

    Raises:
      UserError: some are not.
    """
    if bad := [name for name in names if not is_utf8(name)]:
        raise UserError(f"{list_names(bad)} can't be written in UTF-8; give other names.")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{list_names(repeated)} come(s) more than once; give each picture a name of its own.")
    if repeated := sorted(set(names).intersection(known)):
        raise UserError(f"{place} has {list_names(repeated)} already; remove them first, or give other names.")


def check_present(names: Collection[str], known: Collection[str], *, place: str) -> None:
    """Checks that names are among the `known` ones at `place`.

    Raises:
      UserError: some are not.
    """
    if unknown := sorted(set(names).difference(known)):
        raise UserError(f"{place} has no {list_names(unknown)}; only what is in it can be removed.")


def check_queries(queries: np.ndarray, k: int, dimension: int) -> np.ndarray:
    """Returns queries as float32 [B, D].

    Raises:
      UserError: they are not [B, dimension] or not finite, or k is less than 1.
    """
    if queries.ndim != 2 or queries.shape[1] != dimension or not len(queries):
        raise UserError(f"The queries are {list(queries.shape)}; expected [B, {dimension}], as the index.")
    if k < 1:
        raise UserError(f"k is {k}; expected 1 or more.")
    queries = queries.astype(np.float32, copy=False)
    if not np.isfinite(queries).all():
        raise UserError("A query holds values that are not finite; expected an embedding.")
    return queries


def list_names(names: Sequence[str]) -> str:
    """Returns names as a part of a sentence, the first ten of them."""
    return listed([repr(name) for name in names])
