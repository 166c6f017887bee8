"""A system as people use it: encode_query, encode_gallery, score_candidates, attention_maps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contextjax import pretrained
from contextjax.models.blip import BLIP
from contextjax.models.context_blip import ContextBLIP
from contextjax.models.context_cir import ContextCIR, combine
from contextjax.models.layers import normalize
from contextjax.pretrained.names import flatten, own_table, write
from contextjax.retriever import Retriever, identity_of
from contextjax.sharding import activations, mesh_of, place_batch
from contextjax.tokenizers import TextTokenizer
from contextjax.types import Tokens, UserError

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


class System(Retriever):
    """A model, its parameters and its tokenizer.

    The model is a ContextCIR, a ContextBLIP, or a plain CLIP or BLIP. All but the first answer composed queries by the
    sum of their embeddings of picture and text. Images are paths, PIL pictures or uint8 arrays [H, W, 3].
    """

    def __init__(self, model: Any, params: Any, tokenizer: TextTokenizer, *, query: str = "", score: str = "",
                 propositions: tuple[int, int] = (0, 0), fingerprint: str = ""):  # fmt: skip
        self.model, self.params = model, params  # a Linen module and its parameters
        self.vision = pretrained.towers(model.config).vision  # a VisionConfig
        super().__init__(
            tokenizer, image_size=self.vision.image_size, fit=self.vision.fit,
            query=query or getattr(model.config, "query", "sum"), score=score or self.scores[-1],
            propositions=propositions, fingerprint=fingerprint,  # config hash and step
        )  # fmt: skip

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to pictures: before the program (image_size, fit) and in it (mean, std)."""
        return {"image_size": self.image_size, "fit": self.fit, "mean": self.vision.mean, "std": self.vision.std}

    @functools.cached_property
    def identity(self) -> str:
        """Which model it is, by its parameters and preprocessing; an export in float32 has the same."""
        flat = flatten(self.params)
        return identity_of(write(own_table(flat), flat), {"class": type(self.model).__name__, **self.preprocessing})

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

    def _run(self, name: str, *inputs: np.ndarray) -> np.ndarray:
        """What a program gives. Where the parameters are on a mesh, each device has its part of the inputs."""
        run, mesh = program(self.model, name), mesh_of(self.params)
        if mesh is None:
            return np.asarray(run(self.params, *inputs))
        with activations(mesh):
            return np.asarray(run(self.params, *place_batch(inputs, mesh)))


@functools.lru_cache(maxsize=32)
def program(model: Any, name: str) -> Callable:
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
        image, total = model.encode_image(pixels.reshape(-1, *pixels.shape[2:])), jnp.zeros((ids.shape[0], count))
        if kind != "itm":
            text, images = model.embed_text(model.encode_text(ids, mask)), model.embed_image(image)
            total = total + (images.reshape(pixels.shape[0], count, -1)[sets] * text[:, None]).sum(-1)
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
