"""A system as people use it: encode_query, encode_gallery, score_candidates, attention_maps."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contextjax import images as image_files
from contextjax import pretrained
from contextjax.models.blip import BLIP
from contextjax.models.context_blip import ContextBLIP
from contextjax.models.context_cir import ContextCIR, combine
from contextjax.models.layers import normalize
from contextjax.sharding import activations, mesh_of, place_batch
from contextjax.tokenizers import TextTokenizer, tokenize_propositions
from contextjax.types import Tokens, UserError

BATCH = 256  # the largest batch of one call; smaller ones are padded to a power of two, so few programs are compiled
TOKENS = 16  # texts are padded to a multiple of this, for the same reason
QUERIES = ("fusion", "image", "text", "sum")
SCORES = ("itc", "itm", "sum", "selection")


@dataclasses.dataclass(frozen=True)
class TokenMap:
    """Attention [patches, tokens] between picture and text, and the characters [tokens, 2] of each token.

    ConText-CIR: how much each patch reads each token. ContextBLIP and BLIP: how much each token reads each patch.
    """

    attention: np.ndarray
    offsets: np.ndarray
    grid: int  # patches a side

    def phrase(self, start: int, end: int) -> np.ndarray:
        """Mean map [grid, grid] of the tokens that overlap the characters [start, end)."""
        inside = (self.offsets[:, 1] > start) & (self.offsets[:, 0] < end)
        if not inside.any():
            return np.zeros((self.grid, self.grid), np.float32)
        return self.attention[:, inside].mean(-1).reshape(self.grid, self.grid)


class System:
    """A model, its parameters and its tokenizer.

    The model is a ContextCIR, a ContextBLIP, or a plain CLIP or BLIP. All but the first answer composed queries by the
    sum of their embeddings of picture and text. Images are paths, PIL pictures or uint8 arrays [H, W, 3].
    """

    def __init__(self, model: Any, params: Any, tokenizer: TextTokenizer, *, query: str = "", score: str = "",
                 propositions: tuple[int, int] = (0, 0), fingerprint: str = ""):  # fmt: skip
        self.model = model  # a Linen module
        self.params, self.tokenizer = params, tokenizer
        self.query = query or getattr(model.config, "query", "sum")
        self.score = score or self.scores[-1]
        self.propositions = propositions  # of a ContextBLIP: into how many each text is split, of how many tokens
        self.fingerprint = fingerprint  # config hash and step: what an index of a gallery belongs to
        self.vision = pretrained.towers(model.config).vision  # a VisionConfig

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures that the model sees."""
        return self.vision.image_size

    @property
    def fit(self) -> str:
        """How pictures are made square, see images.preprocess."""
        return self.vision.fit

    @property
    def scores(self) -> tuple[str, ...]:
        """The ways in which this system scores candidates, the one meant for it last."""
        if isinstance(self.model, ContextBLIP):
            selects = self.model.config.selection != "none"
            return ("itc", "sum", "itm", "selection") if selects else ("itc", "sum", "itm")
        return ("itc", "itm", "sum") if isinstance(self.model, BLIP) else ("itc",)

    def with_query(self, query: str) -> System:
        """The same towers queried by "fusion", or by the baselines "image", "text" or "sum"."""
        if query not in QUERIES:
            raise UserError(f"query is '{query}'; expected one of {', '.join(QUERIES)}.")
        if query == "fusion" and getattr(self.model.config, "query", "") != "fusion":
            raise UserError(f"This system has no fusion; it is queried by '{self.query}'.")
        return self._with(query=query)

    def with_score(self, score: str) -> System:
        """The same model scoring candidates otherwise.

        "itc": cosine of the embeddings, or ContextBLIP's base score where it reads propositions; "itm": log-odds of a
        match (as the match's probability, it ranks ContextBLIP's zero-shot); "sum": cosine plus logit of a match, as
        BLIP ranks; "selection": ContextBLIP's trained score.
        """
        if score not in SCORES:
            raise UserError(f"score is '{score}'; expected one of {', '.join(SCORES)}.")
        if score not in self.scores:
            raise UserError(
                f"This system has no {'trained score' if score == 'selection' else 'matching head'}; its candidates "
                f"are scored by {' or '.join(map(repr, self.scores))}, not by '{score}'."
            )
        return self._with(score=score)

    def _with(self, **changes: str) -> System:
        settings = {"query": self.query, "score": self.score, "fingerprint": self.fingerprint} | changes
        return System(self.model, self.params, self.tokenizer, propositions=self.propositions, **settings)

    def encode_query(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """Query embeddings float32 [B, D], L2-normalised, of a reference picture and a modification text each."""
        if len(images) != len(texts):
            raise UserError(f"There are {len(images)} pictures and {len(texts)} texts; expected one text a picture.")
        return self._map_shared(f"query:{self.query}", self._each(images), *self._tokens(texts))

    def encode_gallery(self, images: Sequence[Any]) -> np.ndarray:
        """Gallery embeddings float32 [N, D], L2-normalised."""
        if not len(images):
            raise UserError("The gallery is empty; expected at least one picture.")
        return self._map("gallery", self._pixels(images))

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Text embeddings float32 [B, D], L2-normalised: those of the text tower alone."""
        return self._map("text", *self._tokens(texts))

    def score_candidates(self, images: Sequence[Any], text: str, *, ordered: bool = False) -> np.ndarray:
        """How well each of K pictures fits the text: float32 [K], higher is better.

        `ordered`: the pictures are one after the other in time.
        """
        return self.score_sets([images], [text], [ordered])[0]

    def score_sets(
        self, sets: Sequence[Sequence[Any]], texts: Sequence[str], ordered: Sequence[bool] | None = None
    ) -> np.ndarray:
        """float32 [S, K]: score_candidates of S sets of K pictures each, with a text each.

        A set may come with several texts: its pictures are encoded once.
        """
        pixels, batch = self._set_pixels(sets)
        orders = np.asarray([False] * len(texts) if ordered is None else ordered, bool)
        return self._map_shared(f"score:{self.score}", pixels, *self._set_tokens(texts), orders, batch=batch)

    def set_features(
        self, sets: Sequence[Sequence[Any]], texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What ContextBLIP's selection reads, float32: features [S, K, W], base scores [S, K] and texts [S, W]."""
        if not isinstance(self.model, ContextBLIP):
            raise UserError("Only a ContextBLIP has features of candidate sets.")
        pixels, batch = self._set_pixels(sets)
        found = self._map_shared("features", pixels, *self._set_tokens(texts), batch=batch)
        return found[:, :-1, 1:], found[:, :-1, 0], found[:, -1, 1:]

    def attention_maps(self, images: Sequence[Any], texts: Sequence[str]) -> list[TokenMap]:
        """Attention between each picture and its text, mean over blocks and heads, see TokenMap.

        A picture may come with several texts: it is encoded once.
        """
        if self.query != "fusion" and not isinstance(self.model, BLIP | ContextBLIP):
            raise UserError(f"A system whose query is '{self.query}' has no fusion and no attention maps.")
        if len(images) != len(texts):
            raise UserError(f"There are {len(images)} pictures and {len(texts)} texts; expected one text a picture.")
        encoded = self.tokenizer(texts)
        attention = self._map_shared("attention", self._each(images), *self._tokens(texts))
        grid = self.vision.image_size // self.vision.patch_size
        maps = zip(attention[:, 1:], encoded.offsets, encoded.tokens.mask.sum(-1), strict=True)
        return [TokenMap(a[:, :n], o[:n], grid) for a, o, n in maps]

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """What is read of each text that is longer than the tokenizer's length; empty where all fit."""
        encoded = self.tokenizer(texts)
        ends = encoded.offsets[:, :, 1].max(axis=1)
        return [text[:end] for text, end, cut in zip(texts, ends, encoded.truncated, strict=True) if cut]

    def _tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask, as long as the longest text needs."""
        for text in texts:
            if not text.strip():
                raise UserError("A text is empty; say what the picture that you look for is like.")
        ids, mask = self.tokenizer(texts).tokens
        length = min(-(-int(mask.sum(-1).max(initial=1)) // TOKENS) * TOKENS, ids.shape[1])
        return ids[:, :length], mask[:, :length]

    def _set_tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, ...]:
        """Ids and mask of whole texts [N, T], then those of their propositions [N, J, T']: the texts, where J is 0."""
        ids, mask = self._tokens(texts)
        limit, length = self.propositions
        if not limit:
            return ids, mask, ids[:, None], mask[:, None]
        return ids, mask, *tokenize_propositions(self.tokenizer, texts, limit=limit, length=length)[0]

    def _set_pixels(self, sets: Sequence[Sequence[Any]]) -> tuple[Iterator[np.ndarray], int]:
        """uint8 [K, H, W, 3] of each set, and how many sets go together."""
        sizes = sorted({len(images) for images in sets})
        if sizes in ([], [0]):
            raise UserError("There are no candidates; expected at least one picture.")
        if len(sizes) > 1:
            raise UserError(f"The sets have {sizes[0]} to {sizes[-1]} candidates; score those of one size together.")
        return (self._pixels(images) for images in sets), max(BATCH // sizes[0], 1)

    def _pixels(self, images: Sequence[Any]) -> np.ndarray:
        return np.stack(list(self._each(images)))

    def _each(self, images: Sequence[Any]) -> Iterator[np.ndarray]:
        return (image_files.load(image, self.image_size, fit=self.vision.fit) for image in images)

    def _map(self, name: str, *arrays: np.ndarray) -> np.ndarray:
        """A program of arrays [N, ...], at most BATCH rows at a time."""
        found = []
        for begin in range(0, len(arrays[0]), BATCH):
            part = [array[begin : begin + BATCH] for array in arrays]
            found.append(self._run(name, *(_padded(x, BATCH) for x in part))[: len(part[0])])
        return np.concatenate(found)

    def _map_shared(self, name: str, pictures: Iterable[np.ndarray], *arrays: np.ndarray, batch: int = 0) -> np.ndarray:
        """A program of N pictures or sets and arrays [N, ...] that is given equal pictures once, at most `batch` rows
        at a time: rows of one picture go together, unless there are more of them."""
        batch = batch or BATCH
        pixels, rows = _distinct(pictures)
        order, found = np.argsort(rows, kind="stable"), []
        for part in _parts(rows[order], batch):
            own = order[part]
            used, local = np.unique(rows[own], return_inverse=True)
            inputs = pixels[used], *(array[own] for array in arrays), local.astype(np.int32)
            found.append(self._run(name, *(_padded(x, batch) for x in inputs))[: len(own)])
        return np.concatenate(found)[np.argsort(order)]

    def _run(self, name: str, *inputs: np.ndarray) -> np.ndarray:
        """What a program gives. Where the parameters are on a mesh, each device has its part of the inputs."""
        program, mesh = _program(self.model, name), mesh_of(self.params)
        if mesh is None:
            return np.asarray(program(self.params, *inputs))
        with activations(mesh):
            return np.asarray(program(self.params, *place_batch(inputs, mesh)))


def _distinct(pictures: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The different ones of some arrays, stacked, and which of them each is."""
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
    """Parts of at most `batch` of some ascending numbers; equal ones stay together where they fit."""
    begin = 0
    while begin < len(rows):
        end = min(begin + batch, len(rows))
        if end < len(rows) and rows[end - 1] == rows[end]:
            first = int(np.searchsorted(rows, rows[end]))
            end = first if first > begin else end
        yield slice(begin, end)
        begin = end


def _padded(rows: np.ndarray, batch: int) -> np.ndarray:
    """Padded (by the first row) to a power of two or to `batch`."""
    missing = min(1 << (len(rows) - 1).bit_length(), batch) - len(rows)
    return np.concatenate([rows, np.repeat(rows[:1], missing, axis=0)])


@functools.lru_cache(maxsize=32)
def _program(model: Any, name: str) -> Callable:
    """The compiled encoder of that name; one for each model, whatever the parameters."""

    def encode(model: Any, pixels, rows):
        """What the image tower makes of each row's picture; without `rows`, each has its own."""
        image = model.encode_image(pixels)
        return image if rows is None else jax.tree.map(lambda x: x[rows], image)

    def compose(model: ContextCIR, pixels, ids, mask, rows):
        return model.compose(encode(model, pixels, rows), model.encode_text(ids, mask), mask)

    def query(model: Any, pixels, ids, mask, rows=None):
        if name == "query:fusion":
            return normalize(compose(model, pixels, ids, mask, rows).query)
        image, text = model.embed_image(encode(model, pixels, rows)), model.embed_text(model.encode_text(ids, mask))
        return normalize(combine(name.removeprefix("query:"), image, text))

    def read(model: Any, image, ids, mask, rows):
        tokens = model.adapt(image) if isinstance(model, ContextBLIP) else model.normalize_tokens(image.tokens)
        return model.read(tokens, ids, mask, rows)

    def score(model: Any, pixels, ids, mask, short_ids, short_mask, ordered, sets):
        """[S, K] of pixels [U, K, H, W, 3], texts [S, T], their propositions [S, J, T'], the row of each text's set."""
        kind, count = name.removeprefix("score:"), pixels.shape[1]
        reads_propositions = isinstance(model, ContextBLIP) and model.config.propositions
        if kind == "selection" or (kind == "itc" and reads_propositions):
            found = model.represent_sets(pixels, ids, mask, sets, Tokens(short_ids, short_mask))
            valid = jnp.ones(found.base.shape, bool)
            return (
                found.base if kind == "itc" else model.select(found.features, found.base, valid, ordered, found.summary)
            )
        image, total = model.encode_image(pixels.reshape(-1, *pixels.shape[2:])), jnp.zeros((len(ids), count))
        if kind != "itm":
            text, images = model.embed_text(model.encode_text(ids, mask)), model.embed_image(image)
            total = total + (images.reshape(len(pixels), count, -1)[sets] * text[:, None]).sum(-1)
        if kind != "itc":
            candidates = (sets[:, None] * count + jnp.arange(count)).reshape(-1)
            fused = read(model, image, jnp.repeat(ids, count, axis=0), jnp.repeat(mask, count, axis=0), candidates)
            logits = model.match_states(fused).astype(jnp.float32).reshape(*total.shape, 2)
            total = total + (logits[..., 1] - logits[..., 0] if kind == "itm" else logits[..., 1])
        return total

    def features(model: ContextBLIP, pixels, ids, mask, short_ids, short_mask, sets):
        """[S, K + 1, 1 + W]: base scores and features, then (nothing and) the text's state."""
        found = model.represent_sets(pixels, ids, mask, sets, Tokens(short_ids, short_mask))
        text = jnp.pad(found.summary, ((0, 0), (1, 0)))[:, None]
        return jnp.concatenate([jnp.concatenate([found.base[..., None], found.features], axis=-1), text], axis=1)

    def attention(model: Any, pixels, ids, mask, rows):
        """[B, I, T]."""
        if isinstance(model, ContextCIR):
            return compose(model, pixels, ids, mask, rows).attention.astype(jnp.float32)
        found = read(model, model.encode_image(pixels), ids, mask, rows).attention
        return jnp.swapaxes(found, -1, -2).astype(jnp.float32)

    methods: dict[str, Callable] = {
        "query": query,
        "score": score,
        "gallery": lambda model, pixels: model.embed_image(model.encode_image(pixels)),
        "text": lambda model, ids, mask: model.embed_text(model.encode_text(ids, mask)),
        "features": features,
        "attention": attention,
    }
    method = methods[name.partition(":")[0]]
    return jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs, method=method))
