"""The split that is classified, and classes that train and it do not share."""

import pytest
from PIL import Image

from contextjax.types import UserError
from experiments.shared.classification import classify


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)


def test_train_has_the_classes_of_the_split(tmp_path):
    write(tmp_path, *(f"{split}/{name}/1.png" for split in ("train", "val") for name in ("cat", "dog")))
    write(tmp_path, "train/green/1.png")
    with pytest.raises(UserError, match=r"train and val do not have the same classes \(green is"):
        classify("no model is read", tmp_path, split="", templates=["{}"], probe=True)


def test_the_whole_folder_is_classified_where_it_has_no_splits(clip, tmp_path, capsys):
    write(tmp_path, *(f"{name}/{i}.png" for i in range(3) for name in ("cat", "dog")))
    result = classify(str(clip), tmp_path, split="", templates=["a {}"])
    assert result["split"] == "" and result["n_pictures"] == 6 and result["zero_shot"]["top1"] == 50.0
    assert f"{tmp_path}: 6 pictures of 2 classes" in capsys.readouterr().out
