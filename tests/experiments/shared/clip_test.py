"""A tiny CLIP or SigLIP is trained on pairs, evaluated, reported and converted; data that are no pairs."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import contextjax
from configs.clip import get_config
from contextjax.models.clip import CLIP
from contextjax.pretrained import write_pretrained
from contextjax.tokenizers import TextTokenizer
from contextjax.types import UserError
from contextjax.variants import make_model, make_spec
from experiments.shared import systems
from tests.commands import in_process
from tests.pretrained.conftest import SIGLIP_CONFIG, random_params
from tests.tokenizer_files_test import write_gemma


def test_triplets_and_cached_features_are_no_pairs():
    config = get_config("tiny")
    model = make_model(make_spec(config.model, vocabulary=500))
    for key, value, said in (("reader", "cirr", "whose records are no captions"), ("cached", True, "unset it")):
        changed = get_config("tiny")
        changed.data[key] = value
        with pytest.raises(UserError, match=said):
            systems.of(changed).make_phases(changed, model)
    config.loss.weights.contrastive = 0.0
    with pytest.raises(UserError, match="no weight"):
        systems.of(config).make_phases(config, model)


def pairs(pictograms, folder):
    """Writes some of the pictograms' captions as a folder of one's own, two of each picture."""
    for split in ("train", "val"):
        rows = []
        for row in json.loads((pictograms / f"image_captions/captions.{split}.json").read_text())[:24]:
            path = folder / row["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((pictograms / "img_raw" / row["image"]).read_bytes())
            rows.append({"image": row["image"], "caption": [row["caption"], f"a picture: {row['caption']}"]})
        (folder / f"{split}.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def siglip(tmp_path):
    """A SigLIP 2 in Hugging Face's layout."""
    folder, tokenizer = tmp_path / "siglip", write_gemma(tmp_path / "tokenizer")
    vocabulary = TextTokenizer.read(tokenizer, length=8).vocabulary
    text = dataclasses.replace(SIGLIP_CONFIG.text, vocabulary=vocabulary, pad_token=0)
    config = dataclasses.replace(SIGLIP_CONFIG, text=text)
    write_pretrained(folder, config, random_params(CLIP(config)))
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_clip_is_trained_on_pairs_evaluated_and_converted(family, request, pictograms, tmp_path):
    clip = request.getfixturevalue(family)
    folder, run = pairs(pictograms, tmp_path / "pairs"), tmp_path / "run"
    sizes = {"data.batch_size": 16, "data.text_length": 10, "model.dtype": "float32", "training.micro_batches": 2}
    steps = {f"training.{name}": 2 for name in ("steps", "log_every", "checkpoint_every", "evaluate_every")}
    settings = {"data.folder": folder, "model.pretrained": clip, "optimizer.warmup_steps": 0, **sizes, **steps}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    recipe = "pairs,image0" if family == "clip" else "pairs,SigLIP2-B16,image0"
    done = in_process("train", f"--config=configs/clip.py:{recipe}", f"--workdir={run}", *flags)
    assert done.returncode == 0, done.stderr
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"val/IR@1", "val/TR@10", "val/Avg"} <= line.keys()
    done = in_process("evaluate", f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "evaluation.json").read_text())
    assert result["protocol"] == "captions" and result["metrics"]["Avg"] == pytest.approx(line["val/Avg"], abs=1e-3)
    done = in_process("report", f"--workdir={run}")
    assert done.returncode == 0 and "TR@1" in (run / "report" / "index.html").read_text(), done.stderr
    done = in_process("convert", f"--source={run}", f"--target={tmp_path / 'hf'}")
    assert done.returncode == 0, done.stderr
    before, own, theirs = (contextjax.load(source) for source in (clip, run, tmp_path / "hf"))
    np.testing.assert_allclose(own.encode_text(["a dog"]), theirs.encode_text(["a dog"]), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, own.params["vision"], before.params["vision"])
    moved = lambda name: np.abs(jax.tree.leaves(own.params[name])[0] - jax.tree.leaves(before.params[name])[0]).max()
    assert moved("text_projection") > 0 and moved("logit_scale") > 0
    if family == "siglip":
        assert moved("logit_bias") > 0 and '"bias": ' in (run / "metrics.jsonl").read_text()
        assert theirs.spec.title == own.spec.title == "SigLIP"


def test_a_published_clip_is_scored_on_karpathys_splits(clip, pictograms, tmp_path):
    pictures = sorted((pictograms / "img_raw" / "dev").iterdir())[:3]
    rows = []
    for number, picture in enumerate(pictures):
        (tmp_path / "val2014").mkdir(exist_ok=True)
        (tmp_path / "val2014" / picture.name).write_bytes(picture.read_bytes())
        sentences = [{"raw": f"a dog {number} {text}"} for text in range(6)]
        rows.append({"filepath": "val2014", "filename": picture.name, "split": "test", "sentences": sentences})
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": rows}))
    flags = [f"--data={tmp_path}", "--protocol=karpathy", "--split=test", f"--workdir={tmp_path / 'result'}"]
    done = in_process("evaluate", f"--source={clip}", *flags)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "result").glob("*.json")
    result = json.loads(file.read_text())
    assert result["n_queries"] == 15 and result["n_gallery"] == 3 and result["query"] == "text"
    names = {f"{way}@{k}" for way in ("IR", "TR") for k in (1, 5, 10)}
    assert result["metrics"].keys() == {*names, "Avg"} and result["metrics"]["IR@5"] == 100.0
    done = in_process("evaluate", f"--source={clip}", *flags[:2], "--split=val", flags[3])
    assert done.returncode == 2 and "has no split 'val' to evaluate; it has test" in done.stderr
