"""The nouns of the house: records, batches, protocols and the training state.

Axes, by the letters used in shapes:
  R references in a batch, M modifications of each, N = R * M queries, P packed phrases, B pictures, S candidate sets,
  T tokens of a text, L tokens of a phrase, I image tokens (CLS first), W a tower's width, D projection width,
  H x W x 3 pixels (uint8), G gallery pictures, Q queries of an evaluation, K cut-off or candidates of a set.

Logical axes of parameters and activations (the model names them, the config places them):
  "batch", "embed" (a tower's width), "heads" (attention features), "mlp", "vocab", "projection".

Masks are True where a value is real. This module imports neither jax nor flax: host code uses it too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class UserError(Exception):
    """A user's mistake, told in one sentence: what was got, what was expected, what to do. Exit code 2."""


class Stopped(Exception):
    """A run was told to end, and has saved: the same command goes on. Exit code 143, as of what SIGTERM ends."""


# ----------------------------------------------------------------------------------------- records


@dataclasses.dataclass(frozen=True)
class ComposedRecord:
    """One composed query: reference picture + text -> target picture (None where it is secret)."""

    id: str
    reference: str
    text: str
    target: str | None = None
    subset: tuple[str, ...] = ()  # the other members of the reference's group, where the set has groups
    kinds: tuple[str, ...] = ()  # of edit, as far as they are known: metrics are given for each
    truths: tuple[str, ...] = ()  # all pictures that are right, `target` first, where there are several
    rewordings: tuple[str, ...] = ()  # other texts that ask for the same


@dataclasses.dataclass(frozen=True)
class CandidateRecord:
    """One description of one picture among K nearly identical ones."""

    id: str
    images: tuple[str, ...]  # the K candidates, in the order that `target` counts
    text: str
    target: int | None  # index into images, None where it is secret
    kind: str = ""  # kind of candidates, such as "video" or "static"
    set: str = ""  # which set the candidates are of, where texts about some of its pictures share them

    @property
    def kinds(self) -> tuple[str, ...]:
        """As a ComposedRecord has them."""
        return (self.kind,) if self.kind else ()

    @property
    def is_ordered(self) -> bool:
        """Whether the candidates are one after the other in time; a pair out of a video has no order."""
        return self.kind == "video" and len(self.images) > 2


@dataclasses.dataclass(frozen=True)
class CaptionRecord:
    """A picture and a text that describes it; a picture may have several."""

    id: str
    image: str
    text: str


# ----------------------------------------------------------------------------------------- batches


class Tokens(NamedTuple):
    """Token ids and their mask, both of shape [..., T]."""

    ids: Any  # int32
    mask: Any  # bool


LOST = ("no_room", "truncated", "unaligned")  # why a phrase of a batch is not in it, see Phrases.lost


class Phrases(NamedTuple):
    """The noun phrases of a batch, packed into a fixed budget of P rows for each of its G groups.

    A group is R / G references in a row: what one device has of the batch, so that its phrases' texts are there too.
    """

    tokens: Tokens  # [G, P, L] the phrase by itself, with BOS and EOS
    text: Any  # int32 [G, P]: row of the group's flattened [R / G * M] texts that it stands in
    span: Any  # int32 [G, P, 2]: its tokens [start, end) in that text
    valid: Any  # bool [G, P]
    lost: Any  # int32 [R, 3]: phrases of each reference that are missing, by LOST: the budget was full, the text was
    # cut before their end, or none of its tokens is theirs


class ComposedBatch(NamedTuple):
    """R references with M modifications each. A reference enters the negatives once."""

    references: Any  # uint8 [R, H, W, 3]
    targets: Any  # uint8 [R, M, H, W, 3]
    texts: Tokens  # [R, M, T]
    valid: Any  # bool [R, M]: False where a reference has fewer than M modifications
    reference_ids: Any  # int32 [R]: row of the picture table
    target_ids: Any  # int32 [R, M]
    records: Any  # int32 [R, M]: row of the record table
    phrases: Phrases | None = None
    captions: Tokens | None = None  # [R, 1 + M, T]: of the reference, then of the targets


class CaptionBatch(NamedTuple):
    """B pictures with a text each."""

    images: Any  # uint8 [B, H, W, 3]
    texts: Tokens  # [B, T]
    image_ids: Any  # int32 [B]: row of the picture table
    records: Any  # int32 [B]: row of the record table


class CandidateBatch(NamedTuple):
    """S descriptions, each of one of K nearly identical candidates.

    Where several descriptions are about one set, `images` holds it once: U sets, of each S / U descriptions in a row.
    """

    images: Any  # uint8 [U, K, H, W, 3]
    texts: Tokens  # [S, T]
    target: Any  # int32 [S]: index of the candidate that is described
    valid: Any  # bool [S, K]: False where the set has fewer than K candidates, and where the text is not about one
    ordered: Any  # bool [S]: the order of the candidates is one in time (frames of a video)
    records: Any  # int32 [S]: row of the record table
    propositions: Tokens | None = None  # [S, J, T]: the texts in short pieces; empty ones have no real token


class FeatureBatch(NamedTuple):
    """CandidateBatch with what a frozen model makes of it: one vector for each candidate and the text."""

    features: Any  # float32 [S, K, W]
    base: Any  # float32 [S, K]: the score that the head's adds to
    text: Any  # float32 [S, W]: of the text by itself
    target: Any
    valid: Any
    ordered: Any
    records: Any


# -------------------------------------------------------------------------------------- evaluation


@dataclasses.dataclass(frozen=True)
class EvaluationProtocol:
    """How a benchmark of retrieval is scored, as plain data.

    R@K and Rs@K (within the query's own group) ask for a record's `target`, mAP@K for all its `truths`.
    """

    name: str
    recall_at: tuple[int, ...] = ()
    subset_recall_at: tuple[int, ...] = ()
    map_at: tuple[int, ...] = ()
    gallery: str = "all"  # pictures of the split; "named": references and targets; "own": each query's own few
    excludes_reference: bool = True  # the query's own reference is taken out of its ranking
    average: tuple[str, ...] = ()  # the metrics whose mean is reported as "Avg"
    parts: tuple[str, ...] = ()  # of a split, "<part>.<split>": scored one by one, their metrics then averaged
    averages_rewordings: bool = False  # a query is the mean of the embeddings of its text and its rewordings
    pairs: bool = False  # candidate sets of two: how often both texts of a set are answered right counts, too
    reader: str = ""  # the name of the reader that gives its records
    template: str = ""  # by which its reader makes the texts, where others are in use and give other figures


# ---------------------------------------------------------------------------------------- training


class Health(NamedTuple):
    """How training fares: what tells a sick step, whose update is left out, from a good one."""

    bad_steps: Any  # int32 []: sick steps in a row
    skipped: Any  # int32 []: all sick steps
    norms: Any  # float32 [2]: sum and count of the gradient norms of good steps, older ones fading


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Any  # int32 []
    params: Any
    opt_state: Any
    rng: Any  # a key; steps fold their number in
    health: Health

    @classmethod
    def fresh(cls, params: Any, opt_state: Any, rng: Any) -> TrainState:
        """Before the first step."""
        zero = lambda: np.zeros((), np.int32)  # one each: a step may be given their buffers
        return cls(zero(), params, opt_state, rng, Health(zero(), zero(), np.zeros(2, np.float32)))


Terms = Mapping[str, tuple[Any, Any]]  # name -> (sum, count): divided once, after adding over devices
Picture = np.ndarray  # uint8 [H, W, 3]
