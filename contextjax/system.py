"""A trained system as people use it: load(...), encode_query, encode_gallery, attention_maps."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contextjax import images as image_files
from contextjax.checkpoints import Checkpoints
from contextjax.models.context_cir import ContextCIR, normalize
from contextjax.tokenizers import TextTokenizer
from contextjax.types import UserError
from contextjax.variants import make_context_cir

BATCH = 256  # the largest batch of one call; smaller ones are padded to a power of two, so few programs are compiled


@dataclasses.dataclass(frozen=True)
class TokenMap:
    """Where a query's fusion looks: attention [patches, tokens] and the characters [tokens, 2] of each token."""

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

    Images are paths, PIL pictures or uint8 arrays [H, W, 3].
    """

    def __init__(self, model: ContextCIR, params: Any, tokenizer: TextTokenizer, *, fingerprint: str = ""):
        self.model: Any = model  # a ContextCIR; Linen modules are hashable, which type checkers don't know
        self.params, self.tokenizer = params, tokenizer
        self.fingerprint = fingerprint  # config hash and step: what an index of a gallery belongs to
        self.image_size = model.config.clip.vision.image_size

    def with_query(self, query: str) -> System:
        """The same towers queried by "fusion", or by the baselines "image", "text" or "sum"."""
        if query == "fusion" and self.model.config.query != "fusion":
            raise UserError(f"This system was trained with query '{self.model.config.query}' and has no fusion.")
        model = self.model.clone(config=dataclasses.replace(self.model.config, query=query))
        return System(model, self.params, self.tokenizer, fingerprint=self.fingerprint)

    def encode_query(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """Query embeddings float32 [B, D], L2-normalised, of a reference picture and a modification text each."""
        self._check(images, texts)
        tokens = self.tokenizer(texts).tokens
        return self._map("query", self._pixels(images), tokens.ids, tokens.mask)

    def encode_gallery(self, images: Sequence[Any]) -> np.ndarray:
        """Gallery embeddings float32 [N, D], L2-normalised."""
        if not len(images):
            raise UserError("The gallery is empty; expected at least one picture.")
        return self._map("gallery", self._pixels(images))

    def attention_maps(self, images: Sequence[Any], texts: Sequence[str]) -> list[TokenMap]:
        """Attention of the fusion, mean over blocks and heads: how much each patch reads each token."""
        if self.model.config.query != "fusion":
            raise UserError(f"A system whose query is '{self.model.config.query}' has no fusion and no attention maps.")
        self._check(images, texts)
        encoded = self.tokenizer(texts)
        attention = self._map("attention", self._pixels(images), encoded.tokens.ids, encoded.tokens.mask)
        vision = self.model.config.clip.vision
        grid = vision.image_size // vision.patch_size
        maps = zip(attention[:, 1:], encoded.offsets, encoded.tokens.mask.sum(-1), strict=True)
        return [TokenMap(a[:, :n], o[:n], grid) for a, o, n in maps]

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """What is read of each text that is longer than the tokenizer's length; empty where all fit."""
        encoded = self.tokenizer(texts)
        ends = encoded.offsets[:, :, 1].max(axis=1)
        return [text[:end] for text, end, cut in zip(texts, ends, encoded.truncated, strict=True) if cut]

    def _check(self, images: Sequence[Any], texts: Sequence[str]) -> None:
        if len(images) != len(texts):
            raise UserError(f"There are {len(images)} pictures and {len(texts)} texts; expected one text a picture.")
        for text in texts:
            if not text.strip():
                raise UserError("A text is empty; say how the target differs from the picture.")

    def _pixels(self, images: Sequence[Any]) -> np.ndarray:
        return np.stack([image_files.load(image, self.image_size) for image in images])

    def _map(self, name: str, *arrays: np.ndarray) -> np.ndarray:
        program = _program(self.model, name)
        return np.concatenate([np.asarray(program(self.params, *part))[:n] for n, part in _parts(arrays)])


def _parts(arrays: Sequence[np.ndarray]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Parts of at most BATCH rows, padded (by the first row) to a power of two; with the number of real rows."""
    for begin in range(0, len(arrays[0]), BATCH):
        part = [array[begin : begin + BATCH] for array in arrays]
        count = len(part[0])
        missing = (1 << (count - 1).bit_length()) - count
        yield count, [np.concatenate([x, np.repeat(x[:1], missing, axis=0)]) for x in part]


@functools.lru_cache(maxsize=32)
def _program(model: Any, name: str) -> Callable:
    """The compiled encoder of that name; one for each model, whatever the parameters."""

    def query(model: ContextCIR, pixels, ids, mask):
        return model.compose(model.encode_image(pixels), model.encode_text(ids, mask), mask)

    methods: dict[str, Callable] = {
        "query": lambda *inputs: normalize(query(*inputs).query),
        "gallery": lambda model, pixels: model.embed_image(model.encode_image(pixels)),
        "attention": lambda *inputs: query(*inputs).attention.astype(jnp.float32),
    }
    return jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs, method=methods[name]))


def load(source: str | Path) -> System:
    """The system of a workdir: its config, tokenizer and newest checkpoint.

    Raises:
      UserError: `source` is not a workdir, or holds no whole checkpoint.
    """
    folder = Path(source)
    config_file = folder / "config.json"
    if not config_file.exists():
        raise UserError(f"{folder} holds no config.json; expected the --workdir of a training run.")
    from ml_collections import ConfigDict

    config: Any = ConfigDict(json.loads(config_file.read_text(encoding="utf-8")))
    tokenizer = TextTokenizer.read(folder / "tokenizer.json", length=config.model.text["positions"])
    model = make_context_cir(config.model, vocabulary=tokenizer.vocabulary)
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        params, meta = checkpoints.restore_params()
    finally:
        checkpoints.close()
    return System(model, params, tokenizer, fingerprint=f"{meta['config_hash']}-{meta['step']}")
