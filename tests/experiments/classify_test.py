"""Tests of experiments.classify: zero-shot and probe on a folder of classes by a tiny CLIP; bad input."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.commands import in_process


@pytest.fixture
def classes(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, colour in (("red_thing", (220, 20, 20)), ("blue", (20, 20, 220))):
            for number in range(6):
                path = tmp_path / "set" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((np.asarray(colour) + rng.integers(0, 30, (16, 16, 3))).astype(np.uint8)).save(path)
    return tmp_path / "set"


def test_a_folder_of_classes_is_classified(clip, classes, tmp_path):
    result = tmp_path / "result.json"
    arguments = [f"--source={clip}", f"--data={classes}", "--probe", f"--result={result}", "--template=a {}"]
    done = in_process("classify", *arguments, "--template={}")
    assert done.returncode == 0, done.stderr
    assert "test: 12 pictures of 2 classes" in done.stdout and "zero_shot" in done.stdout
    values = json.loads(result.read_text())
    assert values["linear_probe"]["top1"] == 100.0 and values["n_training"] == 12 and values["split"] == "test"
    assert 0 <= values["zero_shot"]["top1"] <= 100 and values["templates"] == ["a {}", "{}"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data={set}/test", "--probe"], "trains on"),
        (["--data={set}", "--split=val"], "has no split 'val'; it has train, test"),
        (["--data={set}", "--split=train", "--probe"], "tests on another split"),
        (["--data={set}", "--template=a photo"], "expected {} where"),
        (["--data={set}", "--names={set}/names.json"], "names.json has no words for red_thing"),
        (["--data={set}/train/blue"], "holds 0 folders"),
        ([], "--data is missing"),
    ],
)
def test_bad_input_ends_with_one_sentence(clip, classes, arguments, sentence):
    (classes / "names.json").write_text('{"blue": "blue"}')
    done = in_process("classify", f"--source={clip}", *(x.replace("{set}", str(classes)) for x in arguments))
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
