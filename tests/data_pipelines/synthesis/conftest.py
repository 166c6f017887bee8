"""A model that answers as a test says, and pairs for it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.chat.questions import Reply
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.pairs import folder_pictures
from data_pipelines.synthesis.pipeline import Pipeline

THINGS = json.dumps([{"object": "ball", "details": "red"}])


class Says:
    """A model whose answers are those of a function of the question."""

    name = "says"

    def __init__(self, answer):
        self.settings, self.answer_of, self.asked = {}, answer, []

    def answer(self, question) -> Reply:
        self.asked.append(question)
        found = self.answer_of(question)
        if isinstance(found, Reply):
            return found
        return Reply(question.key(self), self.name, question.prompt.id, found, tokens_in=10, tokens_out=5)


def saying(*texts: str) -> Says:
    """The same texts for every pair."""
    return Says(lambda question: json.dumps(texts) if question.prompt.name == "difference" else THINGS)


@pytest.fixture
def pictures_folder(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "sub/c.png", "sub/d.webp"):
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def make_pipeline(pictures_folder, tmp_path):
    """make_pipeline(model, ...): a pipeline on four small pictures."""

    def make(model, **options) -> Pipeline:
        options = {"answers": tmp_path / "answers.sqlite", "run": "test", **options}
        return Pipeline(pictures=folder_pictures(pictures_folder), make_model=lambda: model, **options)

    return make


@pytest.fixture
def pairs() -> list[Draft]:
    return [Draft("a.png", "b.jpg"), Draft("a.png", "sub/c.png"), Draft("b.jpg", "sub/d.webp")]
