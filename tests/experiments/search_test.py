"""Tests of experiments.search: by a gallery that is embedded on the way, and bad input."""

import shutil

import pytest

from tests.commands import in_process


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A copy of the tiny run, in which galleries are kept."""
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("runs") / "run")


def test_a_gallery_is_embedded_once_and_the_query_s_picture_is_left_out(run, folder):
    image = sorted(folder.iterdir())[0]
    arguments = [f"--workdir={run}", f"--gallery={folder}", f"--image={image}", "--top=3"]
    first = in_process("search", *arguments, "--text=remove everything")
    assert first.returncode == 0, first.stderr
    assert len(first.stdout.splitlines()) == 3 and image.name not in first.stdout
    assert len(list((run / "galleries").iterdir())) == 1
    long = in_process("search", *arguments, "--text=" + "swap the dog and the cat and " * 20)
    assert long.returncode == 0 and "longer than 36 tokens" in long.stdout


def test_texts_and_pictures_are_asked_alone_and_several_at_once(run, folder):
    images = sorted(folder.iterdir())[:2]
    ask = lambda *more: in_process("search", f"--workdir={run}", f"--gallery={folder}", "--top=2", *more)
    pictures, texts = [f"--image={image}" for image in images], ["--text=a dog", "--text=two cats"]
    alone = [ask(argument) for argument in (*pictures, *texts)]
    assert [done.returncode for done in alone] == [0] * 4, alone
    assert all(len(done.stdout.splitlines()) == 2 for done in alone)
    assert images[0].name not in alone[0].stdout and images[1].name not in alone[1].stdout
    lines = ask(*texts).stdout.splitlines()
    assert lines[::3] == ["'a dog'", "'two cats'"]
    names = lambda lines: [line.split()[-1] for line in lines]  # of scores the last digit may be another one
    assert names(lines[1:3] + lines[4:]) == names((alone[2].stdout + alone[3].stdout).splitlines())
    assert ask(*pictures, texts[0]).stdout.splitlines()[::3] == [f"{image} + 'a dog'" for image in images]
    none = ask(texts[0], "--threshold=1")
    assert none.returncode == 0 and none.stdout.startswith("No picture is an answer; the best has the score ")


def test_a_truncated_picture_in_the_gallery_is_named(run, folder):
    broken, image = sorted(folder.iterdir())[3], sorted(folder.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    done = in_process("search", f"--workdir={run}", f"--gallery={folder}", f"--image={image}", "--text=x")
    assert done.returncode == 0 and "1 picture(s) can't be read" in done.stdout and broken.name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--gallery={tmp}/empty", "--image={image}", "--text=x"], "no pictures"),
        (["--gallery={dev}", "--image={tmp}/q.png", "--text=x"], "is not there; expected a file"),
        (["--gallery={dev}", "--image={image}", "--text= "], "text is empty"),
        (["--image={image}", "--text=x"], "--gallery is missing"),
        (["--gallery={dev}"], "neither a picture nor a text"),
        (["--gallery={dev}", "--text=x", "--text=y", *["--image={image}"] * 3], "3 pictures and 2 texts; expected as"),
        (["--gallery={dev}", "--text=x", "--threshold=2"], "threshold"),
    ],
)
def test_bad_input_ends_with_one_sentence(tiny_run, pictograms, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir()
    dev = pictograms / "img_raw" / "dev"
    places = {"tmp": tmp_path, "dev": dev, "image": sorted(dev.iterdir())[0]}
    done = in_process("search", f"--workdir={tiny_run}", *(argument.format(**places) for argument in arguments))
    assert done.returncode == 2 and done.stderr.startswith("error: ") and sentence in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and [path.name for path in tmp_path.iterdir()] == ["empty"]
