"""Tests of experiments.maps: a sheet for each phrase, and bad input."""

import numpy as np
import pytest
from PIL import Image

from tests.commands import in_process


@pytest.mark.long
def test_a_wide_picture_keeps_its_shape_on_a_sheet_for_each_phrase(tiny_run, pictograms, tmp_path):
    wide, target = tmp_path / "wide.png", tmp_path / "new" / "maps"
    Image.open(sorted((pictograms / "img_raw" / "dev").iterdir())[0]).resize((120, 60)).save(wide)
    arguments = [f"--workdir={tiny_run}", f"--image={wide}", f"--target={target}"]
    done = in_process("maps", *arguments, "--text=swap the dog for a big cat")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in target.iterdir()) == ["1-the-dog.png", "2-a-big-cat.png"]
    assert done.stdout.splitlines() == [f"{target}/1-the-dog.png  the dog", f"{target}/2-a-big-cat.png  a big cat"]
    first, second = (np.asarray(Image.open(path)) for path in sorted(target.iterdir()))
    assert first.shape == second.shape and (first != second).any()
    assert first.shape[1] > 3 * 384 and 192 < first.shape[0] < 384
    named = in_process("maps", *arguments, "--text=make it darker", "--phrase=darker", "--phrase=make it")
    assert named.returncode == 0 and (target / "1-darker.png").exists() and (target / "2-make-it.png").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--image={tmp}/q.png", "--text=x", "--target={tmp}/x"], "is not there; expected a file"),
        (["--image={image}", "--text=", "--target={tmp}/x"], "text is empty"),
        (["--image={image}", "--text=make darker", "--target={tmp}/x"], '--phrase="make"'),
        (["--image={image}", "--text=a dog", "--phrase=cat", "--target={tmp}/x"], "no part of the text"),
        (["--image={image}", "--text=a dog", "--target={image}"], "is a file"),
    ],
)
def test_bad_input_ends_with_one_sentence(tiny_run, pictograms, tmp_path, arguments, sentence):
    places = {"tmp": tmp_path, "image": sorted((pictograms / "img_raw" / "dev").iterdir())[0]}
    done = in_process("maps", f"--workdir={tiny_run}", *(argument.format(**places) for argument in arguments))
    assert done.returncode == 2 and done.stderr.startswith("error: ") and sentence in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_system_without_fusion_is_refused(clip, pictograms, tmp_path):
    image = sorted((pictograms / "img_raw" / "dev").iterdir())[0]
    done = in_process("maps", f"--workdir={clip}", f"--image={image}", "--text=a dog", f"--target={tmp_path}/x")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "no fusion" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "x").exists()
