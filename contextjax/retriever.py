"""Retriever, what a system and its export share: pictures and texts become arrays, in batches of few sizes.

Importing this module imports no JAX.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from contextjax import images as image_files
from contextjax.spec import QueryMode, ScoreMode, SystemSpec
from contextjax.tokenizers import TextTokenizer, tokenize_propositions, tokenize_queries
from contextjax.types import UserError

BATCH = 256  # the largest batch of one call; smaller ones are padded to a power of two, so few programs are compiled
TOKENS = 16  # texts are padded to a multiple of this, for the same reason


def identity_of(tensors: Mapping[str, np.ndarray], spec: SystemSpec) -> str:
    """Returns 32 hex digits of a model, whatever file or program it comes from.

    The hash covers everything that decides on embeddings: the named parameters, the family and the preprocessing.
    """
    digest = hashlib.sha256(json.dumps({"family": spec.family, **spec.preprocessing}, sort_keys=True).encode())
    for name in sorted(tensors):
        x = np.ascontiguousarray(tensors[name])
        digest.update(json.dumps([name, str(x.dtype), x.shape]).encode())
        digest.update(x.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]


class Retriever:
    """Encodes queries and galleries and scores candidates. Its subclasses have the programs, `_embed_query` to
    `_score_sets`, which are given as many rows as `_padded` makes of at most BATCH.

    Images are paths, PIL pictures or uint8 arrays [H, W, 3].
    """

    def __init__(self, tokenizer: TextTokenizer, *, image_size: int, fit: str, projection: int, query: QueryMode,
                 score: ScoreMode, propositions: tuple[int, int] = (0, 0), fingerprint: str = "",
                 template: str = "{}"):  # fmt: skip
        self.tokenizer = tokenizer
        self.image_size = image_size  # side in pixels of the pictures that the model sees
        self.projection = projection  # the width D of embeddings
        self.fit = fit  # how pictures are made square, see images.preprocess
        self.query: QueryMode = query  # how the gallery is queried
        self.score: ScoreMode = score  # how candidates are scored
        self.propositions = propositions  # of a ContextBLIP: into how many each text is split, of how many tokens
        self.template = template  # of the text of a query, around the user's own
        self.fingerprint = fingerprint  # which model it is: what an index of a gallery belongs to

    def encode_query(self, images: Sequence[Any], texts: Sequence[str], *, shares: bool = True) -> np.ndarray:
        """Returns query embeddings float32 [B, D], L2-normalised, of a reference picture and a modification text each.

        With `shares`, equal pictures are encoded once; otherwise each picture is, by one program per batch size.
        """
        if len(images) != len(texts):
            raise UserError(f"There are {len(images)} pictures and {len(texts)} texts; expected one text a picture.")
        if not len(images):
            return self._none()
        pixels, tokens = self._each(images), self._tokens(texts, self.template)
        if shares:
            return self._map_shared(self._embed_query, pixels, *tokens)
        rows = np.arange(len(images), dtype=np.int32) % BATCH
        return self._map(self._embed_query, np.stack(list(pixels)), *tokens, rows)

    def encode_gallery(self, images: Sequence[Any]) -> np.ndarray:
        """Returns gallery embeddings float32 [N, D], L2-normalised."""
        if not len(images):
            return self._none()
        return self._map(self._embed_gallery, self._pixels(images))

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Returns text embeddings float32 [B, D], L2-normalised: those of the text tower alone."""
        if not len(texts):
            return self._none()
        return self._map(self._embed_text, *self._tokens(texts))

    def encode(self, images: Sequence[Any], texts: Sequence[str | None], *, shares: bool = True) -> np.ndarray:
        """Returns embeddings float32 [B, D] of questions, each of which is a picture, a text, or both as a query.

        None stands for what a question lacks. A picture alone is embedded as the gallery's are, a text alone by the
        text tower. `shares`: see encode_query.
        """
        if len(images) != len(texts):
            raise UserError(
                f"There are {len(images)} pictures and {len(texts)} texts; expected one of each a question."
            )
        embeddings = np.zeros((len(images), self.projection), np.float32)
        kinds = [(image is not None, text is not None) for image, text in zip(images, texts, strict=True)]
        for kind in sorted(set(kinds)):
            rows = [row for row, own in enumerate(kinds) if own == kind]
            pictures, words = [images[row] for row in rows], [texts[row] or "" for row in rows]
            if kind == (True, True):
                embeddings[rows] = self.encode_query(pictures, words, shares=shares)
            elif kind == (False, False):
                raise UserError("A question has neither a picture nor a text; give one of them, or both.")
            else:
                embeddings[rows] = self.encode_gallery(pictures) if kind[0] else self.encode_text(words)
        return embeddings

    def score_candidates(self, images: Sequence[Any], text: str, *, ordered: bool = False) -> np.ndarray:
        """Returns how well each of K pictures fits the text: float32 [K], higher is better.

        `ordered`: the pictures are one after the other in time.
        """
        return self.score_sets([images], [text], [ordered])[0]

    def score_sets(
        self, sets: Sequence[Sequence[Any]], texts: Sequence[str], ordered: Sequence[bool] | None = None
    ) -> np.ndarray:
        """Returns the scores float32 [S, K] of S sets of K pictures each, with a text each; see score_candidates.

        A set may come with several texts: its pictures are encoded once.
        """
        pixels, batch = self._set_pixels(sets)
        orders = np.asarray([False] * len(texts) if ordered is None else ordered, bool)
        return self._map_shared(self._score_sets, pixels, *self._set_tokens(texts), orders, batch=batch)

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """Returns the characters that are read of each text that is too long for the tokenizer; empty where all fit."""
        if not len(texts):
            return []
        encoded = tokenize_queries(self.tokenizer, texts, self.template)
        ends = encoded.offsets[:, :, 1].max(axis=1)
        return [text[:end] for text, end, cut in zip(texts, ends, encoded.truncated, strict=True) if cut]

    def _none(self) -> np.ndarray:
        """Returns an empty array of embeddings, [0, D]."""
        return np.zeros((0, self.projection), np.float32)

    def _tokens(self, texts: Sequence[str], template: str = "{}") -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and mask, as long as the longest text needs. Texts may be blank, as in some published sets."""
        ids, mask = tokenize_queries(self.tokenizer, texts, template).tokens
        length = min(-(-int(mask.sum(-1).max(initial=1)) // TOKENS) * TOKENS, ids.shape[1])
        return ids[:, :length], mask[:, :length]

    def _set_tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, ...]:
        """Returns ids and mask of whole texts [N, T], and of their propositions [N, J, T'], which may be themselves."""
        ids, mask = self._tokens(texts)
        limit, length = self.propositions
        if not limit:
            return ids, mask, ids[:, None], mask[:, None]
        return ids, mask, *tokenize_propositions(self.tokenizer, texts, limit=limit, length=length)[0]

    def _set_pixels(self, sets: Sequence[Sequence[Any]]) -> tuple[Iterator[np.ndarray], int]:
        """Returns uint8 [K, H, W, 3] of each set, and how many sets are computed together."""
        sizes = sorted({len(images) for images in sets})
        if sizes in ([], [0]):
            raise UserError("There are no candidates; expected at least one picture.")
        if len(sizes) > 1:
            raise UserError(f"The sets have {sizes[0]} to {sizes[-1]} candidates; score those of one size together.")
        return (self._pixels(images) for images in sets), max(BATCH // sizes[0], 1)

    def _pixels(self, images: Sequence[Any]) -> np.ndarray:
        return np.stack(list(self._each(images)))

    def _each(self, images: Sequence[Any]) -> Iterator[np.ndarray]:
        return (image_files.load(image, self.image_size, fit=self.fit) for image in images)

    def _map(self, run: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
        """Runs a program on arrays [N, ...], at most BATCH rows at a time."""
        outputs = []
        for begin in range(0, len(arrays[0]), BATCH):
            inputs = [array[begin : begin + BATCH] for array in arrays]
            outputs.append(run(*(_padded(x, BATCH) for x in inputs))[: len(inputs[0])])
        return np.concatenate(outputs)

    def _map_shared(
        self, run: Callable[..., Any], pictures: Iterable[np.ndarray], *arrays: np.ndarray, batch: int = 0
    ) -> Any:
        """Runs a program on N pictures or sets and arrays [N, ...], at most `batch` rows at a time.

        Equal pictures are given to it once, with the row of each text's picture as its last input: texts about one
        picture go together, unless there are more of them than `batch`. Returns what the program does, an array
        [N, ...] or a NamedTuple of them.
        """
        batch = batch or BATCH
        pixels, rows = _distinct(pictures)
        order, outputs = np.argsort(rows, kind="stable"), []
        for part in _parts(rows[order], batch):
            own = order[part]
            used, local = np.unique(rows[own], return_inverse=True)
            inputs = pixels[used], *(array[own] for array in arrays), local.astype(np.int32)
            output = run(*(_padded(x, batch) for x in inputs))
            outputs.append(_on_each(lambda x, own=own: x[: len(own)], output))
        back = np.argsort(order)
        return _on_each(lambda *columns: np.concatenate(columns)[back], *outputs)

    def _embed_query(self, pixels: np.ndarray, ids: np.ndarray, mask: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Runs programs.embed_query."""
        raise NotImplementedError

    def _embed_gallery(self, pixels: np.ndarray) -> np.ndarray:
        """Runs programs.embed_gallery."""
        raise NotImplementedError

    def _embed_text(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Runs programs.embed_text, of a system that has a text tower."""
        raise UserError("This system reads no text without a picture; give a picture with it.")

    def _score_sets(self, *inputs: np.ndarray) -> np.ndarray:
        """Runs programs.score_sets on all of its inputs."""
        raise NotImplementedError


def _on_each(function: Callable[..., np.ndarray], *values: Any) -> Any:
    """Calls a function of arrays; of NamedTuples, on the arrays of each of their fields."""
    if isinstance(values[0], tuple):
        return type(values[0])(*(function(*fields) for fields in zip(*values, strict=True)))  # pyright: ignore
    return function(*values)


def _distinct(pictures: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct arrays, stacked, and the row of each input array among them."""
    place: dict[bytes, int] = {}
    kept, rows = [], []
    for pixels in pictures:
        key = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        if key not in place:
            place[key] = len(kept)
            kept.append(pixels)
        rows.append(place[key])
    return np.stack(kept), np.asarray(rows)


def _parts(rows: np.ndarray, batch: int) -> Iterator[slice]:
    """Yields slices of at most `batch` ascending numbers; equal numbers stay together where they fit."""
    begin = 0
    while begin < len(rows):
        end = min(begin + batch, len(rows))
        if end < len(rows) and rows[end - 1] == rows[end]:
            first = int(np.searchsorted(rows, rows[end]))
            end = first if first > begin else end
        yield slice(begin, end)
        begin = end


def _padded(rows: np.ndarray, batch: int) -> np.ndarray:
    """Returns rows padded, by the first one, to a power of two or to `batch`."""
    missing = min(1 << (len(rows) - 1).bit_length(), batch) - len(rows)
    return np.concatenate([rows, np.repeat(rows[:1], missing, axis=0)])
