"""A system whose embeddings are written down, and the report of its evaluation."""

import numpy as np
import pytest

from contextjax.evaluation import evaluate_retrieval
from contextjax.reports import build_report
from contextjax.system import TokenMap
from contextjax.types import ComposedRecord, EvaluationProtocol

COUNT = 40  # pictures; as many queries, whose texts name the target's row
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


@pytest.fixture
def make_report(pictures):
    """make_report(text=..., query=..., **arguments of build_report) -> Report."""

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
        return build_report(system, evaluation, pictures, **given | arguments)

    return make
