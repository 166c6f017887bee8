"""Records, batches, evaluation protocols and the training state, as dataclasses and tuples with shapes.

Axes, by the letters that shapes use (in jaxtyping annotations the same letters in lower case):

  B  pictures, or (picture, text) pairs, in a batch
  R  references in a batch of composed queries; M modifications of each; N = R * M queries
  S  texts about candidate sets; U sets (several texts may be about one); K candidates of a set;
     J propositions (short sentences) of a text
  G  groups of a batch's phrases, one a device; P phrases packed into a group; L tokens of a phrase.
     In evaluation, G is the number of gallery pictures and Q that of queries
  T  tokens of a text, special tokens included
  I  image tokens: 1 + patches, CLS first
  W  width of a tower's states; D width of the embedding space
  H, W, 3  rows, columns and channels of pictures, uint8
  K  in metrics: the cut-off of R@K and mAP@K
  N, M  in losses: queries (and their targets), and pure negatives; n, m: those of one device

Logical axes of parameters and activations, which the model names and the config places on the mesh:

  "batch"       rows of a batch             "mlp"         hidden features of an MLP
  "embed"       features of a tower         "vocab"       token ids
  "heads"       features of attention       "projection"  features of the embedding space
  "lookup"      rows of a batch while their tokens are looked up in a table

Masks are True where a value is real. This module imports neither jax nor flax: code that runs without an accelerator
uses it too.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np


class UserError(Exception):
    """A user's mistake, in one sentence: what was given, what was expected, what to do. Commands exit with code 2."""

    def __str__(self) -> str:
        return printable(super().__str__())  # names of files may be in it


class Stopped(Exception):
    """A run was asked to stop and has saved its state; the same command continues it. Exit code 143, as for SIGTERM."""


NAMED = 10  # items that a message names; it counts the others
UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's control and format characters, halves, line separators


def printable(text: str) -> str:
    """Returns a text that is safe to print: control characters, such as an ESC in a file's name, become "\\x1b"."""
    if text.isprintable():
        return text
    odd = lambda character: character not in "\n\t\u200c\u200d" and unicodedata.category(character) in UNPRINTABLE
    return "".join(ascii(character)[1:-1] if odd(character) else character for character in text)


def listed(items: Collection[object], *, between: str = ", ") -> str:
    """Returns the first items of a list for a message, each of at most 400 characters, and how many more there are."""
    shown = [text if len(text) <= 400 else text[:400] + "…" for text in map(str, [*items][:NAMED])]
    shown = [printable(text).replace("\n", "\\n").replace("\t", "\\t") for text in shown]
    more = f"{between.rstrip(', ')} and {len(items) - NAMED:,} more" if len(items) > NAMED else ""
    return between.join(shown) + more


# ----------------------------------------------------------------------------------------- records


class PictureBoxes(NamedTuple):
    """A picture's size, and the name and box (left, top, right, bottom) of each thing in it."""

    size: tuple[int, int]  # in pixels, as all
    things: tuple[tuple[str, tuple[float, ...]], ...]


@dataclasses.dataclass(frozen=True)
class ComposedRecord:
    """One composed query: reference picture + text -> target picture (None in test splits whose answers are secret)."""

    id: str
    reference: str
    text: str
    target: str | None = None
    subset: tuple[str, ...] = ()  # the other members of the reference's group, where the set has groups
    kinds: tuple[str, ...] = ()  # kinds of edit, where the set names them: metrics are reported for each kind
    truths: tuple[str, ...] = ()  # all correct pictures, `target` first, where there are several
    rewordings: tuple[str, ...] = ()  # other texts that ask for the same
    boxes: PictureBoxes | None = None  # of `boxed_picture`, where the set has boxes

    @property
    def boxed_picture(self) -> str:
        """The picture whose things the text is about: the reference."""
        return self.reference


@dataclasses.dataclass(frozen=True)
class CandidateRecord:
    """One description of one picture among K nearly identical ones."""

    id: str
    images: tuple[str, ...]  # the K candidates, in the order that `target` counts
    text: str
    target: int | None  # index into images; None in test splits whose answers are secret
    kind: str = ""  # kind of candidates, such as "video" or "static"
    set: str = ""  # name of the set of candidates, where several texts are about one set
    kinds: tuple[str, ...] = ()  # all kinds that it is counted under: `kind`, and those of the text
    boxes: PictureBoxes | None = None  # of `boxed_picture`, where the set has boxes

    @property
    def boxed_picture(self) -> str | None:
        """The picture whose things the text is about: the one that it describes; None where that is secret."""
        return None if self.target is None else self.images[self.target]

    def __post_init__(self):
        """Counts `kind` among the kinds."""
        if self.kind and self.kind not in self.kinds:
            object.__setattr__(self, "kinds", (self.kind, *self.kinds))

    @property
    def is_ordered(self) -> bool:
        """True where the candidates follow each other in time; two frames of a video count as unordered."""
        return self.kind == "video" and len(self.images) > 2


@dataclasses.dataclass(frozen=True)
class CaptionRecord:
    """A picture and a text that describes it; a picture may have several."""

    id: str
    image: str
    text: str


# ----------------------------------------------------------------------------------------- batches


SLOT = -1  # the id of a token in whose place a picture's pseudo-word stands


class Tokens(NamedTuple):
    """Token ids and their mask, both of shape [..., T]."""

    ids: Any  # int32
    mask: Any  # bool


LOST = ("no_room", "truncated", "unaligned")  # why phrases are missing from a batch, see Phrases.lost


class Phrases(NamedTuple):
    """The noun phrases of a batch, packed into a fixed budget of P rows for each of its G groups.

    A group is R / G references in a row, the part of the batch that one device holds, so that a phrase is on the same
    device as the text it stands in.
    """

    tokens: Tokens  # [G, P, L]: the phrase by itself, with BOS and EOS
    text: Any  # int32 [G, P]: the text that the phrase stands in, a row of the group's flattened [R / G * M] texts
    span: Any  # int32 [G, P, 2]: the phrase's tokens [start, end) in that text
    valid: Any  # bool [G, P]
    # int32 [R, 3]: number of phrases of each reference that are missing, by the reasons of LOST: the budget was full,
    # the text was cut before the phrase ends, or no token of the text belongs to the phrase.
    lost: Any


class ComposedBatch(NamedTuple):
    """R references with M modifications each; a reference is encoded once and is one pure negative."""

    references: Any  # uint8 [R, H, W, 3]
    targets: Any  # uint8 [R, M, H, W, 3]
    texts: Tokens  # [R, M, T]
    valid: Any  # bool [R, M]: False where a reference has fewer than M modifications
    reference_ids: Any  # int32 [R]: row of the picture table; pictures with the same caption have that of the first
    target_ids: Any  # int32 [R, M]
    records: Any  # int32 [R, M]: row of the record table
    phrases: Phrases | None = None
    captions: Tokens | None = None  # [R, 1 + M, T]: captions of the reference, then of the targets
    masked: Tokens | None = None  # [R, 1 + M, T]: these captions with SLOT in place of each noun phrase


class FeaturePairs(NamedTuple):
    """N composed queries as the features of a frozen model, not normalised: those of a ComposedBatch with M = 1."""

    reference: Any  # float32 [N, D]
    text: Any  # float32 [N, D]
    target: Any  # float32 [N, D]
    reference_ids: Any  # int32 [N], as in ComposedBatch
    target_ids: Any  # int32 [N]
    records: Any  # int32 [N]


class TextBatch(NamedTuple):
    """B texts without pictures, for a pseudo-word network."""

    texts: Tokens  # [B, T]
    masked: Tokens  # [B, T]: the texts with SLOT in place of each noun phrase
    records: Any  # int32 [B]


class CaptionBatch(NamedTuple):
    """B pictures, each with a text that describes it."""

    images: Any  # uint8 [B, H, W, 3]
    texts: Tokens  # [B, T]
    image_ids: Any  # int32 [B]: row of the picture table
    records: Any  # int32 [B]: row of the record table


class CandidateBatch(NamedTuple):
    """S descriptions, each of one of K nearly identical candidates.

    Where several descriptions are about one set, `images` holds it once: U sets, with S / U descriptions in a row each.
    """

    images: Any  # uint8 [U, K, H, W, 3]
    texts: Tokens  # [S, T]
    target: Any  # int32 [S]: index of the candidate that is described
    valid: Any  # bool [S, K]: False where the set has fewer candidates, or its text does not ask for this one
    ordered: Any  # bool [S]: True where the candidates follow each other in time (frames of a video)
    records: Any  # int32 [S]: row of the record table
    propositions: Tokens | None = None  # [S, J, T]: the texts in short sentences; missing ones have an empty mask


class FeatureBatch(NamedTuple):
    """A CandidateBatch as the features of a frozen model: one vector for each candidate and one for the text."""

    features: Any  # float32 [S, K, W]: f of each candidate, see models.context_blip
    base: Any  # float32 [S, K]: the score to which the head's is added
    text: Any  # float32 [S, W]: pooled state of the text by itself
    target: Any
    valid: Any
    ordered: Any
    records: Any


# -------------------------------------------------------------------------------------- evaluation


@dataclasses.dataclass(frozen=True)
class EvaluationProtocol:
    """The rules by which a retrieval benchmark is scored, as plain data.

    R@K and Rs@K (R@K within the query's own group) look for a record's `target`, mAP@K for all its `truths`. With
    `any_truth`, R@K looks for any of the `truths`, and Rs@K is over the queries that have a group. With `both_ways`
    texts look for their pictures (IR@K, image retrieval) and pictures for any of their texts (TR@K, text retrieval).
    A gallery "instance" is that of the pictures whose ids are the target's up to their first "/"; of the precision over
    all of it, mAP is the mean over queries, and mmAP the mean over instances of the mean over their queries.
    """

    name: str
    recall_at: tuple[int, ...] = ()
    subset_recall_at: tuple[int, ...] = ()
    map_at: tuple[int, ...] = ()
    gallery: str = "all"  # all pictures of the split; "named": references and targets; "own": a few for each query;
    # "instance": see above
    excludes_reference: bool = True  # the query's own reference is removed from its ranking
    average: tuple[str, ...] = ()  # the metrics whose mean is reported as "Avg"
    parts: tuple[str, ...] = ()  # splits "<part>.<split>" that are scored one by one; metrics are their mean
    any_truth: bool = False  # see above
    averages_rewordings: bool = False  # a query is the mean of the embeddings of its text and its rewordings
    pairs: bool = False  # candidate sets of two: also count sets of which both texts are answered correctly
    both_ways: bool = False  # see above
    captions_per_picture: int = 0  # of a picture's captions, so many are asked, the first ones; 0: all
    query: str = ""  # how every system is queried, such as "text"; "": as it is meant to be
    reader: str = ""  # name of the reader of the benchmark's files
    template: str = ""  # name of the template of the texts, where several are in use and give other figures


# ---------------------------------------------------------------------------------------- training


class Health(NamedTuple):
    """The record by which a bad step (non-finite, or with a far too large gradient) is recognised and skipped."""

    bad_steps: Any  # int32 []: bad steps in a row
    skipped: Any  # int32 []: all bad steps
    norms: Any  # float32 [2]: exponentially decayed sum and count of the gradient norms of good steps


class TrainState(NamedTuple):
    """Everything that a training step changes."""

    step: Any  # int32 []
    params: Any
    opt_state: Any
    rng: Any  # a random key, into which each step folds its number
    health: Health

    @classmethod
    def fresh(cls, params: Any, opt_state: Any, rng: Any) -> TrainState:
        """Returns the state before the first step."""
        zero = lambda: np.zeros((), np.int32)  # a new array for each field: a step may donate their buffers
        return cls(zero(), params, opt_state, rng, Health(zero(), zero(), np.zeros(2, np.float32)))


Terms = Mapping[str, tuple[Any, Any]]  # name -> (sum, count), divided once, after both are summed over devices
Picture = np.ndarray  # uint8 [H, W, 3]
