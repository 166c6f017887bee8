"""Stand-ins with fixed embeddings, scores and attention, the reports of their evaluation, and a tiny ContextBLIP."""

import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import contextjax
from contextjax.evaluation import evaluate_candidates, evaluate_retrieval
from contextjax.models.blip import BLIPConfig
from contextjax.models.context_blip import ContextBLIP, ContextBLIPConfig
from contextjax.models.multimodal import BertConfig
from contextjax.models.vision import VisionConfig
from contextjax.reports import RunResults, build_report
from contextjax.system import TokenMap
from contextjax.tokenizers import train_tokenizer
from contextjax.types import CandidateRecord, ComposedRecord, EvaluationProtocol

COUNT = 40  # pictures; as many queries, whose texts name the target's row
SIZES = (3, 5, 10)  # of candidate sets
GRID = 4  # patches of a side
PROTOCOL = EvaluationProtocol("toy", (1, 5, 10, 50), (1, 2, 3), average=("R@5", "Rs@1"))


class Pictures:
    """Pictures that carry their row in the first pixel."""

    def __init__(self):
        self.ids = [f"picture-{row}" for row in range(COUNT)]
        self.row = {name: row for row, name in enumerate(self.ids)}

    def __len__(self):
        return COUNT

    def __getitem__(self, row):
        picture = np.random.default_rng(row).integers(0, 255, (64, 64, 3), np.uint8)
        picture[0, 0] = row
        return picture


class FakeSystem:
    """Finds the row that a text names; the later the row, the more noise."""

    fingerprint = "0123456789ab-2800"

    def __init__(self, query="fusion"):
        self.query = query
        self.gallery = np.random.default_rng(0).normal(size=(COUNT, 16)).astype(np.float32)
        self.gallery /= np.linalg.norm(self.gallery, axis=-1, keepdims=True)

    def encode_gallery(self, images):
        return self.gallery[[int(image[0, 0, 0]) for image in images]]

    def encode_query(self, images, texts):
        rows = [int(text.split()[-1]) for text in texts]
        noise = np.random.default_rng(1).normal(size=(COUNT, 16)).astype(np.float32)[rows]
        found = self.gallery[rows] + noise * np.asarray(rows)[:, None] / COUNT
        return found / np.linalg.norm(found, axis=-1, keepdims=True)

    def attention_maps(self, images, texts):
        """Tokens are BOS, the words, EOS; patch p reads word p most."""
        maps = []
        for text in texts:
            ends = np.cumsum([len(word) + 1 for word in text.split(" ")]) - 1
            starts = [0, *(ends[:-1] + 1)]
            offsets = np.asarray([(0, 0), *zip(starts, ends, strict=True), (0, 0)])
            attention = np.full((4, len(offsets)), 0.1, np.float32)
            attention[np.arange(4), 1 + np.arange(4) % len(starts)] = 0.7
            maps.append(TokenMap(attention, offsets, 2))
        return maps


def last_words(text):
    """The characters of the last two words: the stand-in for noun phrases."""
    begin = len(" ".join(text.split(" ")[:-2])) + 1
    return [(begin, len(text))]


@pytest.fixture
def pictures():
    return Pictures()


def reported(system, evaluation, pictures, **arguments):
    """Builds a report from arguments of build_report and fields of RunResults."""
    names = [field.name for field in dataclasses.fields(RunResults)]
    run = RunResults(**{name: arguments.pop(name) for name in names if name in arguments})
    return build_report(system, evaluation, pictures, run, **arguments)


@pytest.fixture
def make_report(pictures):
    """make_report(text=..., query=..., **arguments of `reported`) -> Report."""

    def make(*, text="make it picture", query="fusion", **arguments):
        system = FakeSystem(query)
        records = []
        for row in range(COUNT):
            group = tuple(pictures.ids[(row + near) % COUNT] for near in range(5))
            reference, target = pictures.ids[(row + 1) % COUNT], pictures.ids[row]
            records.append(ComposedRecord(str(row), reference, f"{text} {row}", target, group, ("swap",)))
        evaluation = evaluate_retrieval(system, PROTOCOL, records, pictures)
        steps = range(10, 2001, 10)
        lines = [{"step": s, "loss": 5 / s, "captions": 3 / s, "learning_rate": 1e-3} for s in steps]
        lines += [{"step": s, "val/R@1": s / 100, "val/Rs@1": s / 50, "val/R@5": 1.0} for s in (1000, 2000)]
        given = {
            "title": "toy run",
            "split": "val",
            "baselines": {"image": evaluation.metrics(), "text": {"R@1": 12.5}},
            "metric_lines": lines,
            "loss_weights": {"captions": 0.2},
            "phrases_of": last_words,
            "facts": {"Made by": "python -m something", "Date": "2025-01-01"},
            "credit": "Pictures by Someone (https://example.org/licence).",
        }
        return reported(system, evaluation, pictures, **given | arguments)

    return make


class FakeSets:
    """Scores and reads at random, but always the same; `broken` scores are not numbers."""

    fingerprint = "0123456789ab-120"

    def __init__(self, scores=("itc", "itm", "sum", "selection"), broken=False):
        self.scores, self.score, self.broken = scores, scores[-1], broken
        self.model = types.SimpleNamespace(config=types.SimpleNamespace(mask_rate=0.25))
        self.asked = []

    def score_sets(self, sets, texts, ordered):
        draw = lambda image, text: np.random.default_rng([int(image[0, 0, 0]), len(text), ord(text[-1])]).normal()
        found = np.asarray([[draw(image, text) for image in images] for images, text in zip(sets, texts, strict=True)])
        return np.full_like(found, np.nan) if self.broken else found

    def attention_maps(self, images, texts):
        self.asked.append([(int(image[0, 0, 0]), text) for image, text in zip(images, texts, strict=True)])
        maps = []
        for image, text in zip(images, texts, strict=True):
            words = [match.span() for match in re.finditer(r"\S+", text)]
            offsets = np.asarray([(0, 0), *words, (0, 0)])
            rng = np.random.default_rng([int(image[0, 0, 0]), len(text)])
            maps.append(TokenMap(rng.uniform(0, 0.1, (GRID**2, len(offsets))).astype(np.float32), offsets, GRID))
        return maps


@pytest.fixture
def make_sets(pictures):
    """make_sets(text=..., system=..., **arguments of `reported`) -> Report of sets of 3, 5 and 10 candidates."""

    def make(*, text="the small dog is left of the", system=None, **arguments):
        system = system or FakeSets()
        records = []
        for row in range(COUNT):
            size = SIZES[row % 3]
            images = tuple(pictures.ids[(row - row % 2 + near) % COUNT] for near in range(size))
            records.append(
                CandidateRecord(str(row), images, f"{text} cat {row}", row % size, ("static", "video")[row % 2])
            )
        evaluation = evaluate_candidates(system, records, pictures)
        given = {
            "title": "toy sets",
            "split": "val",
            "protocol": "toy",
            "baselines": {"itc": {"accuracy": 22.5, "low95": 11.25, "high95": 33.75}, **evaluation.baselines()},
            "metric_lines": [{"step": 5, "loss": 1.0, "selection": 1.0}, {"step": 10, "val/accuracy": 30.0}],
            "loss_weights": {"selection": 1.0},
            "phrases_of": last_words,
        }
        return reported(system, evaluation, pictures, **given | arguments)

    return make


def cards_of(report):
    return [card for section in report.sections for card in section.cards]


@pytest.fixture(scope="session")
def blip():
    """A tiny ContextBLIP of random parameters."""
    texts = [f"{thing} left of the small {other}" for thing in ("dog", "cat", "hammer") for other in ("bus", "tent")]
    tokenizer = train_tokenizer(texts * 9, vocabulary=300, length=16)
    vision = VisionConfig(16, 4, width=16, layers=1, heads=2, mlp=32, pre_norm=False, taps=(1,))
    text = BertConfig(tokenizer.vocabulary, 16, width=16, layers=1, heads=2, mlp=32)
    config = ContextBLIPConfig(BLIPConfig(vision, text, 8), masking="none", mask_rate=0.3, fused_token=None,
                               context_layers=0)  # fmt: skip
    model = ContextBLIP(config)
    return contextjax.System(model, random_params(model), tokenizer)


def random_params(model):
    inputs = jnp.zeros((1, 16, 16, 3), jnp.uint8), jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"])
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(
        rng.normal(size=x.shape) * (x.shape[0] ** -0.5 if len(x.shape) > 1 else 1), jnp.float32
    )
    return jax.tree.map(draw, shapes)
