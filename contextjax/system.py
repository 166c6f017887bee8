"""System, the object that people use: encode_query, encode_gallery, score_candidates, attention_maps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from contextjax import pretrained, programs
from contextjax.models.blip import BLIP
from contextjax.models.context_blip import ContextBLIP
from contextjax.models.context_cir import BASELINES
from contextjax.pretrained.names import flatten, own_table, write
from contextjax.retriever import Retriever, identity_of
from contextjax.sharding import activations, mesh_of, place_batch
from contextjax.spec import QUERIES, SCORES, QueryMode, ScoreMode, SystemSpec, check_template, queries_of
from contextjax.tokenizers import TextTokenizer, tokenize_queries
from contextjax.types import UserError
from contextjax.variants import spec_of


@dataclasses.dataclass(frozen=True)
class TokenMap:
    """The attention [patches, tokens] between a picture and a text, and the characters [tokens, 2] of each token.

    In ConText-CIR each patch reads the tokens; in ContextBLIP and BLIP each token reads the patches.
    """

    attention: np.ndarray
    offsets: np.ndarray
    grid: int  # patches a side

    def phrase(self, start: int, end: int) -> np.ndarray:
        """Returns the mean map [grid, grid] of the tokens that overlap the characters [start, end)."""
        inside = (self.offsets[:, 1] > start) & (self.offsets[:, 0] < end)
        if not inside.any():
            return np.zeros((self.grid, self.grid), np.float32)
        return self.attention[:, inside].mean(-1).reshape(self.grid, self.grid)


class System(Retriever):
    """A model, its parameters and its tokenizer.

    The model is one of variants.FAMILIES: a ContextCIR, a ContextBLIP, a CoVR2, or a plain CLIP, BLIP or BLIP-2. A
    ContextBLIP and the plain ones answer composed queries by the sum of their embeddings of picture and text. Images
    are paths, PIL pictures or uint8 arrays [H, W, 3].
    """

    def __init__(
        self, model: Any, params: Any, tokenizer: TextTokenizer, *, query: QueryMode | None = None,
        score: ScoreMode | None = None, propositions: tuple[int, int] = (0, 0), fingerprint: str = "",
        template: str = "{}",
    ):  # fmt: skip
        self.model, self.params = model, params  # a Linen module and its parameters
        self.vision = pretrained.towers(model.config).vision  # a VisionConfig
        super().__init__(
            tokenizer, image_size=self.vision.image_size, fit=self.vision.fit,
            projection=pretrained.towers(model.config).projection,
            query=query or getattr(model.config, "query", "sum"), score=score or self.scores[-1],
            propositions=propositions, fingerprint=fingerprint,  # config hash and step
            template=template,
        )  # fmt: skip

    @property
    def spec(self) -> SystemSpec:
        """Everything that the system needs to be loaded, beside its parameters and its tokenizer."""
        return spec_of(
            self.model, text_length=self.tokenizer.length, propositions=self.propositions, query=self.query,
            score=self.score, fingerprint=self.fingerprint, template=self.template,
        )  # fmt: skip

    @functools.cached_property
    def identity(self) -> str:
        """32 hex digits of the parameters and the preprocessing; an export in float32 has the same."""
        flat = flatten(self.params)
        return identity_of(write(own_table(flat), flat), self.spec)

    @property
    def scores(self) -> tuple[ScoreMode, ...]:
        """The ways in which this system can score candidates, its default last."""
        return spec_of(self.model).scores

    @property
    def queries(self) -> tuple[str, ...]:
        """The ways in which this system can be queried: baselines, then its own."""
        return (*BASELINES, *queries_of(getattr(self.model.config, "query", "")))

    def with_query(self, query: str, template: str = "") -> System:
        """Returns a system of the same towers with another query: its own, or a baseline; see models.context_cir.

        Baselines are "image", "text", "sum" and "raw_sum". `template` is the text around the user's own, which is "{}"
        (the default, but for the query that the system has already).

        A CoVR2 has "token_mean" and "token_max": the mean, or the largest, of the cosines of all pairs of a query's and
        a picture's vectors. Both encode_query and encode_gallery give means, which an index is searched by; an
        evaluation by "token_max" takes the vectors.
        """
        if query not in QUERIES:
            raise UserError(f"query is '{query}'; expected one of {', '.join(QUERIES)}.")
        if query not in self.queries:
            raise UserError(f"This system has no {query}; it is queried by '{self.query}'.")
        template = template or (self.template if query == self.query else "{}")
        check_template(query, template)
        return self._with(query=query, template=template)

    def with_score(self, score: str) -> System:
        """Returns a system of the same model that scores candidates in another way.

        "itc": cosine of the embeddings, or ContextBLIP's base score where it reads propositions; "itm": log-odds of a
        match (as the match's probability, it ranks ContextBLIP's zero-shot); "sum": cosine plus logit of a match, as
        BLIP ranks; "itm_cls", "sum_cls": these two with [CLS] at position 0 of a BLIP's text, where its retrieval
        evaluation, and "itm" and "sum", have [ENC]; "selection": ContextBLIP's trained score.
        """
        if score not in SCORES:
            raise UserError(f"score is '{score}'; expected one of {', '.join(SCORES)}.")
        if score not in self.scores:
            raise UserError(
                f"This system has no {'trained score' if score == 'selection' else 'matching head'}; its candidates "
                f"are scored by {' or '.join(map(repr, self.scores))}, not by '{score}'."
            )
        return self._with(score=score)

    def _with(self, **changes: Any) -> System:
        settings: dict[str, Any] = {
            "query": self.query, "score": self.score, "fingerprint": self.fingerprint, "template": self.template
        } | changes  # fmt: skip
        return System(self.model, self.params, self.tokenizer, propositions=self.propositions, **settings)

    def image_features(self, images: Sequence[Any]) -> np.ndarray:
        """Returns the projections of pictures, float32 [N, D], not normalised."""
        return self._map(functools.partial(self._run, programs.image_features), self._pixels(images))

    def text_features(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the projections of texts as they stand in queries, float32 [N, D], not normalised."""
        return self._map(functools.partial(self._run, programs.text_features), *self._tokens(texts, self.template))

    def set_features(
        self, sets: Sequence[Sequence[Any]], texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns what ContextBLIP's selection reads, float32: features [S, K, W], base scores [S, K], texts [S, W].

        Raises:
          UserError: the model is no ContextBLIP.
        """
        if not isinstance(self.model, ContextBLIP):
            raise UserError("Only a ContextBLIP has features of candidate sets.")
        run = functools.partial(self._run, programs.set_features)
        pixels, batch = self._set_pixels(sets)
        return self._map_shared(run, pixels, *self._set_tokens(texts), batch=batch)

    def encode_query_tokens(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """Returns the vectors float32 [B, L, D] of each query, L2-normalised, of a system that has several."""
        run = functools.partial(self._run, programs.embed_query_tokens)
        return self._map_shared(run, self._each(images), *self._tokens(texts, self.template))

    def encode_gallery_tokens(self, images: Sequence[Any]) -> np.ndarray:
        """Returns the vectors float32 [N, L, D] of each picture, L2-normalised, of a system that has several."""
        return self._map(functools.partial(self._run, programs.embed_gallery_tokens), self._pixels(images))

    @property
    def has_attention_maps(self) -> bool:
        """True where texts and pictures attend to each other."""
        return self.query in ("fusion", "composed") or isinstance(self.model, BLIP | ContextBLIP)

    def attention_maps(self, images: Sequence[Any], texts: Sequence[str], *, layers: str = "all") -> list[TokenMap]:
        """Returns the attention between each picture and its text, mean over heads, see TokenMap.

        A picture may come with several texts: it is encoded once. `layers`: the mean of "all" blocks, or the "last".

        Raises:
          UserError: the system has no such attention, or there are not as many pictures as texts.
        """
        if layers not in ("all", "last"):
            raise UserError(f"layers is '{layers}'; expected all or last.")
        if not self.has_attention_maps:
            raise UserError(f"A system whose query is '{self.query}' has no fusion and no attention maps.")
        if len(images) != len(texts):
            raise UserError(f"There are {len(images)} pictures and {len(texts)} texts; expected one text a picture.")
        if not len(texts):
            return []
        encoded = tokenize_queries(self.tokenizer, texts, self.template)
        run = functools.partial(self._run, programs.attention, mode=layers)
        attention = self._map_shared(run, self._each(images), *self._tokens(texts, self.template))
        grid = self.vision.image_size // self.vision.patch_size
        maps = zip(attention[:, -(grid**2) :], encoded.offsets, encoded.tokens.mask.sum(-1), strict=True)
        return [TokenMap(a[:, :n], o[:n], grid) for a, o, n in maps]

    def _embed_query(self, pixels: np.ndarray, ids: np.ndarray, mask: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self._run(programs.embed_query, pixels, ids, mask, rows, mode=self.query)

    def _embed_gallery(self, pixels: np.ndarray) -> np.ndarray:
        return self._run(programs.embed_gallery, pixels)

    def _embed_text(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self._run(programs.embed_text, ids, mask)

    def _score_sets(self, *inputs: np.ndarray) -> np.ndarray:
        return self._run(programs.score_sets, *inputs, mode=self.score)

    def _run(self, program: Callable[..., Any], *inputs: np.ndarray, **mode: str) -> Any:
        """Runs a program; where the parameters are on a mesh, each device computes a share of the rows."""
        mesh = mesh_of(self.params)
        if mesh is None:
            return jax.tree.map(np.asarray, program(self.model, self.params, *inputs, **mode))
        with activations(mesh):
            return jax.tree.map(np.asarray, program(self.model, self.params, *place_batch(inputs, mesh), **mode))
