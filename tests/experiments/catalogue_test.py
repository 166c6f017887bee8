"""catalogue: a folder is checked and described, and a system is trained and evaluated on it."""

import dataclasses
import json
import shutil

import pytest
from PIL import ImageOps

from tests.catalogues import product_rows, write_catalogue
from tests.commands import in_own_process, in_process
from tests.photographs import NAMES, photograph

COLUMNS = ["--tables=styles.csv", "--title=name"]
ATTRIBUTES = "--attributes=gender:audience,articleType:kind,baseColour:colour,category:fixed"


def test_a_folder_is_checked_and_described(tmp_path):
    folder = write_catalogue(tmp_path / "c", product_rows(60))
    (folder / "catalogue.json").unlink()
    done = in_process("catalogue", f"--data={folder}", *COLUMNS, ATTRIBUTES)
    assert done.returncode == 0, done.stderr
    assert "60 products; 0 rows are left out." in done.stdout and "val: 20 products, " in done.stdout
    written = json.loads((folder / "catalogue.json").read_text())
    assert written["attributes"]["baseColour"] == "colour" and written["faults"] == "fail"


def test_faults_are_listed_and_nothing_is_written_unless_they_are_skipped(tmp_path):
    folder = write_catalogue(tmp_path / "c", [*product_rows(60), ("7",), product_rows(60)[3]])
    (folder / "catalogue.json").unlink()
    (folder / "images" / "1001.jpg").unlink()
    command = ["catalogue", f"--data={folder}", *COLUMNS, ATTRIBUTES]
    done = in_process(*command)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "has 3 faults" in done.stderr
    for fault in (
        "line 62 of styles.csv has 1 values",
        "line 63 of styles.csv has the id",
        "no picture images/1001.jpg",
    ):
        assert fault in done.stderr
    assert not (folder / "catalogue.json").exists()
    assert "59 products; 3 rows are left out." in in_process(*command, "--skip").stdout


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([*COLUMNS, "--attributes=gender"], "--attributes has 'gender'; expected COLUMN:ROLE"),
        ([*COLUMNS, "--attributes=size:plain"], "have no column size"),
        ([*COLUMNS, "--attributes=gender:audience,gender:plain"], "has the column gender twice"),
        (["--tables=names.csv", ATTRIBUTES], "names.csv is missing"),
        ([ATTRIBUTES], "--tables is missing"),
    ],
)
def test_wrong_flags_are_one_sentence(catalogue_folder, tmp_path, flags, sentence):
    folder = shutil.copytree(catalogue_folder, tmp_path / "c")
    done = in_process("catalogue", f"--data={folder}", *flags)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and sentence in done.stderr


@pytest.mark.long
def test_a_system_is_trained_and_evaluated(catalogue_folder, tmp_path):
    folder = shutil.copytree(catalogue_folder, tmp_path / "c")
    workdir = f"--workdir={tmp_path / 'run'}"
    done = in_own_process("train", "--config=configs/catalogue.py:tiny", f"--config.data.folder={folder}", workdir)
    assert done.returncode == 0, done.stderr
    done = in_own_process("evaluate", workdir)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert {"mAP@10", "R@1", "Rs@1"} <= set(result["by_kind"]["colour"]) and "Rs@1" not in result["by_kind"]["two"]
    assert set(result["baselines"]) == {"image", "text", "sum"}


@pytest.mark.long
def test_a_clip_of_224_pixels_is_trained_on_photographs(tiny, tmp_path):
    """The photographs have 400 by 300 pixels and a tint; CLIP's preprocessing crops them."""
    from contextjax import load
    from contextjax.models.clip import CLIP
    from contextjax.pretrained import write_pretrained
    from contextjax.tokenizers import train_tokenizer
    from tests.pretrained.conftest import random_params

    rows = product_rows(60)
    folder = write_catalogue(tmp_path / "c", rows)
    for number, (id, *_, colour, _) in enumerate(rows):
        small = ImageOps.fit(photograph(NAMES[number % len(NAMES)]), (400, 300))
        tint = "navy" if colour == "Navy Blue" else colour.lower()
        ImageOps.colorize(small.convert("L"), tint, "yellow").save(folder / "images" / f"{id}.jpg")
    vision = dataclasses.replace(tiny.clip.vision, image_size=224, patch_size=32)
    text = dataclasses.replace(tiny.clip.text, vocabulary=300, positions=24, eos_token=1)
    config = dataclasses.replace(tiny.clip, vision=vision, text=text)
    clip = write_pretrained(tmp_path / "clip", config, random_params(CLIP(config)))
    train_tokenizer(["in navy blue instead"], vocabulary=300, length=24).save(clip / "tokenizer.json")
    small = {"data.batch_size": 8, "data.text_length": 24, "data.caption_length": 24, "model.dtype": "float32"}
    steps = {f"training.{name}": 2 for name in ("steps", "log_every", "checkpoint_every", "evaluate_every")}
    settings = {"data.folder": folder, "model.pretrained": clip, "optimizer.warmup_steps": 0, **small, **steps}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    run = tmp_path / "run"
    done = in_process("train", "--config=configs/catalogue.py:pretrained", f"--workdir={run}", *flags)
    assert done.returncode == 0, done.stderr
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < line["val/mAP@10"] < 100
    system = load(run)
    assert system.vision.image_size == 224 and system.vision.fit == "crop"
    embedded = system.encode_gallery([photograph("chelsea"), folder / "images" / f"{rows[0][0]}.jpg"])
    assert embedded.shape == (2, config.projection)
