"""A system as people use it: load(...), encode_query, encode_gallery, score_candidates, attention_maps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contextjax import images as image_files
from contextjax import pretrained
from contextjax.checkpoints import Checkpoints
from contextjax.models.blip import BLIP
from contextjax.models.context_blip import ContextBLIP
from contextjax.models.context_cir import ContextCIR, combine
from contextjax.models.layers import normalize
from contextjax.pretrained.tensors import read_json
from contextjax.sharding import make_mesh, place_params
from contextjax.tokenizers import TextTokenizer
from contextjax.types import UserError
from contextjax.variants import make_model

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
                 fingerprint: str = ""):  # fmt: skip
        self.model = model  # a Linen module
        self.params, self.tokenizer = params, tokenizer
        self.query = query or getattr(model.config, "query", "sum")
        self.score = score or self.scores[-1]
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

        "itc": cosine of the embeddings; "itm": log-odds of a match (as the match's probability, it ranks ContextBLIP's
        zero-shot); "sum": cosine plus the logit of a match, as BLIP ranks; "selection": ContextBLIP's trained score.
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
        return System(self.model, self.params, self.tokenizer, **settings)

    def encode_query(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """Query embeddings float32 [B, D], L2-normalised, of a reference picture and a modification text each."""
        if len(images) != len(texts):
            raise UserError(f"There are {len(images)} pictures and {len(texts)} texts; expected one text a picture.")
        return self._map(f"query:{self.query}", self._pixels(images), *self._tokens(texts))

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
        """float32 [S, K]: score_candidates of S sets of K pictures each, with a text each."""
        pixels = self._set_pixels(sets)
        orders = np.asarray([False] * len(texts) if ordered is None else ordered, bool)
        return self._map(f"score:{self.score}", pixels, *self._tokens(texts), orders, batch=BATCH // pixels.shape[1])

    def set_features(self, sets: Sequence[Sequence[Any]], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """What ContextBLIP's selection reads of S sets: features float32 [S, K, W] and base scores [S, K]."""
        if not isinstance(self.model, ContextBLIP):
            raise UserError("Only a ContextBLIP has features of candidate sets.")
        pixels = self._set_pixels(sets)
        found = self._map("features", pixels, *self._tokens(texts), batch=BATCH // pixels.shape[1])
        return found[..., 1:], found[..., 0]

    def attention_maps(self, images: Sequence[Any], texts: Sequence[str]) -> list[TokenMap]:
        """Attention between each picture and its text, mean over blocks and heads, see TokenMap."""
        if self.query != "fusion" and not isinstance(self.model, BLIP | ContextBLIP):
            raise UserError(f"A system whose query is '{self.query}' has no fusion and no attention maps.")
        if len(images) != len(texts):
            raise UserError(f"There are {len(images)} pictures and {len(texts)} texts; expected one text a picture.")
        encoded = self.tokenizer(texts)
        attention = self._map("attention", self._pixels(images), *self._tokens(texts))
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

    def _set_pixels(self, sets: Sequence[Sequence[Any]]) -> np.ndarray:
        """uint8 [S, K, H, W, 3]."""
        sizes = sorted({len(images) for images in sets})
        if sizes in ([], [0]):
            raise UserError("There are no candidates; expected at least one picture.")
        if len(sizes) > 1:
            raise UserError(f"The sets have {sizes[0]} to {sizes[-1]} candidates; score those of one size together.")
        return np.stack([self._pixels(images) for images in sets])

    def _pixels(self, images: Sequence[Any]) -> np.ndarray:
        return np.stack([image_files.load(image, self.image_size, fit=self.vision.fit) for image in images])

    def _map(self, name: str, *arrays: np.ndarray, batch: int = 0) -> np.ndarray:
        program = _program(self.model, name)
        parts = _parts(arrays, max(batch, 1) if batch else BATCH)
        return np.concatenate([np.asarray(program(self.params, *part))[:n] for n, part in parts])


def _parts(arrays: Sequence[np.ndarray], batch: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Parts of at most `batch` rows, padded (by the first row) to a power of two or to `batch`; with the number of
    real rows."""
    for begin in range(0, len(arrays[0]), batch):
        part = [array[begin : begin + batch] for array in arrays]
        count = len(part[0])
        missing = min(1 << (count - 1).bit_length(), batch) - count
        yield count, [np.concatenate([x, np.repeat(x[:1], missing, axis=0)]) for x in part]


@functools.lru_cache(maxsize=32)
def _program(model: Any, name: str) -> Callable:
    """The compiled encoder of that name; one for each model, whatever the parameters."""

    def compose(model: ContextCIR, pixels, ids, mask):
        return model.compose(model.encode_image(pixels), model.encode_text(ids, mask), mask)

    def query(model: Any, pixels, ids, mask):
        if name == "query:fusion":
            return normalize(compose(model, pixels, ids, mask).query)
        image, text = model.embed_image(model.encode_image(pixels)), model.embed_text(model.encode_text(ids, mask))
        return normalize(combine(name.removeprefix("query:"), image, text))

    def read(model: Any, image, ids, mask):
        tokens = model.adapt(image) if isinstance(model, ContextBLIP) else model.normalize_tokens(image.tokens)
        return model.read(tokens, ids, mask)

    def score(model: Any, pixels, ids, mask, ordered):
        """[S, K] of pixels [S, K, H, W, 3] and texts [S, T]; all candidates are encoded as one batch."""
        kind, (sets, count) = name.removeprefix("score:"), pixels.shape[:2]
        if kind == "selection":
            found = model.represent_sets(pixels, ids, mask)
            return model.select(found.features, found.base, jnp.ones((sets, count), bool), ordered)
        image, total = model.encode_image(pixels.reshape(-1, *pixels.shape[2:])), jnp.zeros((sets, count))
        if kind != "itm":
            text, images = model.embed_text(model.encode_text(ids, mask)), model.embed_image(image)
            total = total + (images.reshape(sets, count, -1) * text[:, None]).sum(-1)
        if kind != "itc":
            fused = read(model, image, jnp.repeat(ids, count, axis=0), jnp.repeat(mask, count, axis=0))
            logits = model.match_states(fused).astype(jnp.float32).reshape(sets, count, 2)
            total = total + (logits[..., 1] - logits[..., 0] if kind == "itm" else logits[..., 1])
        return total

    def features(model: ContextBLIP, pixels, ids, mask):
        """[S, K, 1 + W]: base scores and features."""
        sets = model.represent_sets(pixels, ids, mask)
        return jnp.concatenate([sets.base[..., None], sets.features], axis=-1)

    def attention(model: Any, pixels, ids, mask):
        """[B, I, T]."""
        if isinstance(model, ContextCIR):
            return compose(model, pixels, ids, mask).attention.astype(jnp.float32)
        found = read(model, model.encode_image(pixels), ids, mask).attention
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


def load(source: str | Path, *, mesh: str = "", image_size: int | None = None, text_length: int | None = None,
         dtype: Any = None, checkpoint: str | int = "") -> System:  # fmt: skip
    """The system of a workdir, of an export, or of a CLIP or BLIP folder or hub id.

    Of a workdir it is the best checkpoint where the run had a rule of what is best (training.best), else the newest.

    Args:
      source: a --workdir, a folder that `experiments.convert` wrote, a folder in Hugging Face's or OpenCLIP's layout,
        or a hub id, "owner/name".
      mesh: where the parameters of a CLIP, a BLIP or an export go, as "fsdp:8"; default: the first device.
      image_size: another resolution of a CLIP or BLIP; its position embeddings are resized.
      text_length: tokens of a text at most, where a CLIP's or BLIP's own limit is not wanted.
      dtype: of the computation of a CLIP or BLIP; parameters are float32.
      checkpoint: of a workdir: "best", "newest", or a step, where another one is wanted.

    Raises:
      UserError: `source` is none of these, is not whole, or has no such checkpoint.
    """
    folder = Path(source)
    config = _own_config(folder)
    if config is not None:
        return _load_own(folder, config, mesh, checkpoint)
    if checkpoint:
        raise UserError(f"A checkpoint ('{checkpoint}') is asked for, but {source} is no run; leave it out.")
    found = pretrained.read_pretrained(source, image_size=image_size, dtype=dtype)
    config = pretrained.towers(found.model.config)
    if not hasattr(config, "vision"):
        raise UserError(f"{source} is a {found.family} text encoder without pictures; expected a CLIP or a BLIP.")
    text = config.text
    tokenizer = TextTokenizer.read(found.folder, length=min(text_length or text.positions, text.positions))
    if tokenizer.vocabulary > text.vocabulary:
        raise UserError(
            f"{found.folder}'s tokenizer has {tokenizer.vocabulary} ids, but its model's table {text.vocabulary} rows; "
            "tokenizer and weights are not of one model."
        )
    return System(
        found.model,
        _placed(found.params, found.abstract, mesh),
        tokenizer,
        fingerprint=f"{source}@{config.vision.image_size}-0",
    )


def _own_config(folder: Path) -> Any:
    """The config of a workdir or an export of ours; None where `folder` is something else."""
    file = folder / "config.json"
    if not file.exists():
        if folder.is_dir() and not any(folder.glob("*.safetensors*")) and not any(folder.glob("*config.json")):
            raise UserError(f"{folder} holds no config.json; expected the --workdir of a training run, or a model.")
        return None
    config = read_json(file)
    if not isinstance(config.get("model"), Mapping):
        return None
    from ml_collections import ConfigDict

    return ConfigDict(dict(config))


def _load_own(folder: Path, config: Any, mesh: str, checkpoint: str | int) -> System:
    length = config.model.text["positions"]
    if config.model.get("system") == "context_blip":
        length = min(length, config.data.text_length)  # descriptions are read as far as they were in training
    tokenizer = TextTokenizer.read(folder / "tokenizer.json", length=length)
    trained = config.get("data", {}).get("vocabulary", 0)  # else the tokenizer came with the towers
    model = make_model(config.model, vocabulary=tokenizer.vocabulary if trained else None)
    if (folder / "model.safetensors").exists():
        if checkpoint:
            raise UserError(f"A checkpoint ('{checkpoint}') is asked for, but {folder} is an export; leave it out.")
        unread, abstract = pretrained.read_own(folder, model)
        meta = config.get("exported", {})
        fingerprint = f"{meta.get('config_hash', '')}-{meta.get('step', 0)}"
        return System(model, _placed(unread, abstract, mesh), tokenizer, fingerprint=fingerprint)
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        params, meta = checkpoints.restore_params(checkpoint)
    finally:
        checkpoints.close()
    return System(model, params, tokenizer, fingerprint=f"{meta['config_hash']}-{meta['step']}")


def _placed(unread: Any, abstract: Any, mesh: str) -> Any:
    if mesh:
        return place_params(unread, abstract, make_mesh(mesh))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), unread)
