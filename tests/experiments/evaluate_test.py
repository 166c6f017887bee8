"""experiments.evaluate from the command: submissions and their check, propositions, pairs, and what it records."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.commands import in_process
from tests.data_pipelines.layouts import icir


@pytest.fixture(scope="module")
def source(tiny, tmp_path_factory) -> str:
    """The flag that names a tiny CLIP, whose texts end after ten tokens."""
    from contextjax.models.clip import CLIP
    from contextjax.pretrained import write_pretrained
    from contextjax.tokenizers import train_tokenizer
    from tests.pretrained.conftest import random_params

    text = dataclasses.replace(tiny.clip.text, vocabulary=280, positions=10, eos_token=1)
    config = dataclasses.replace(tiny.clip, text=text)
    folder = write_pretrained(tmp_path_factory.mktemp("models") / "clip", config, random_params(CLIP(config)))
    train_tokenizer(["a dog"], vocabulary=280, length=10).save(folder / "tokenizer.json")
    return f"--source={folder}"


def test_a_split_with_secret_targets_becomes_a_submission(source, pictograms_copy, edit_json, tmp_path):
    pictograms, workdir = pictograms_copy, tmp_path / "run"
    secret = ("target_hard", "target_soft")
    edit_json(
        pictograms / "captions/cap.rc2.test1.json",
        lambda items: [{key: value for key, value in item.items() if key not in secret} for item in items],
    )
    edit_json(  # as that of pair 27098 in the published file
        pictograms / "captions/cap.rc2.test1.json", lambda items: [items[0] | {"caption": " "}, *items[1:]]
    )
    data = [f"--data={pictograms}", "--protocol=cirr", "--split=test1"]
    refused = in_process("evaluate", f"--workdir={workdir}", source, *data)
    assert refused.returncode == 2 and "targets are secret; give --submission=DIR" in refused.stderr
    done = in_process("evaluate", f"--workdir={workdir}", source, *data, f"--submission={workdir / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "cirr, test1: targets are secret, so there are no metrics" in done.stdout
    assert done.stdout.count("is evaluated as it is, with 1 records without a text") <= 1  # said once in a process
    items = json.loads((pictograms / "captions/cap.rc2.test1.json").read_text())
    for metric in ("recall", "recall_subset"):
        found = json.loads((workdir / "out" / f"cirr.{metric}.json").read_text())
        assert (found["version"], found["metric"]) == ("rc2", metric)
        assert set(found) == {"version", "metric", *(str(item["pairid"]) for item in items)}
    assert sorted(path.name for path in workdir.iterdir()) == ["out"]

    file = workdir / "out" / "cirr.recall.json"
    checked = in_process("evaluate", f"--check={file}", *data)
    assert checked.returncode == 0, checked.stderr
    assert f"keeps all rules of cirr, test1: {len(items)} queries" in checked.stdout
    other = in_process("evaluate", f"--check={file}", *data[:2], "--split=val")
    assert other.returncode == 2 and "is unknown" in other.stderr and len(other.stderr.splitlines()) == 1


def test_propositions_are_a_variant_of_their_own(source, pictogram_sets, tmp_path):
    sets = json.loads((pictogram_sets / "valid_data.json").read_text())
    texts = [text for descriptions in sets.values() for text in descriptions.values()]
    (tmp_path / "propositions.json").write_text(json.dumps({texts[0]: ["There is a dog.", "There is no cat."]}))
    done = in_process("evaluate",
        f"--workdir={tmp_path}", source, f"--data={pictogram_sets}", "--protocol=imagecode",
        f"--propositions={tmp_path}", "--share=0.25", f"--submission={tmp_path / 'out'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(next(tmp_path.glob("evaluation.imagecode+propositions.val.*.json")).read_text())
    assert (result["protocol"], result["split"], result["share"]) == ("imagecode+propositions", "val", 0.25)
    assert f"1 of {len(texts)} descriptions have propositions" in done.stdout
    assert "imagecode+propositions, val:" in done.stdout
    assert result["texts_cut"] >= len(texts)  # every description is longer than ten tokens
    assert f"{result['texts_cut']} of {len(texts) + 2} texts are longer than 10 tokens and were cut" in done.stdout
    answers = json.loads((tmp_path / "out" / "imagecode.json").read_text())
    assert {name: len(row) for name, row in answers.items()} == {name: len(row) for name, row in sets.items()}


def test_candidate_sets_have_accuracies_by_kind_and_the_bounds_of_their_data(source, pictogram_sets, tmp_path):
    data = shutil.copytree(pictogram_sets, tmp_path / "sets", symlinks=True)
    (data / "bounds.json").write_text(json.dumps({"absolute": 45.5, "comparative": 50.0}))
    given = f"--workdir={tmp_path}", source, f"--data={data}", "--protocol=imagecode", "--nobaselines"
    done = in_process("evaluate", *given)
    assert done.returncode == 0, done.stderr
    result = json.loads(next(tmp_path.glob("evaluation.imagecode.val*.json")).read_text())
    assert result["accuracy/absolute"] == result["by_kind"]["absolute"]["accuracy"]
    assert result["bound/absolute"] == 45.5 and "bound/comparative" not in result
    assert "bound/absolute" in done.stdout


def test_pairs_are_scored_by_their_protocol(source, tmp_path):
    rows = ["1,Color,a red dog", "2,Color,a green dog", "3,Text,one", "4,Text,two"]
    (tmp_path / "Questions.csv").write_text("\n".join(["Question ID,Type,Statement", *rows]) + "\n")
    for row in rows:
        number, kind, _ = row.split(",")
        folder = tmp_path / "MLLM_VLM Images" / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (60 * int(number), 9, 9)).save(folder / f"{number}.jpg")
    done = in_process(
        "evaluate", f"--workdir={tmp_path}", source, f"--data={tmp_path}", "--protocol=mmvp", "--split=test"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(next(tmp_path.glob("evaluation.mmvp.test.*.json")).read_text())
    assert list(result["metrics"]) == ["accuracy", "pair accuracy", "low95", "high95"]
    assert result["baselines"]["random"] == {"accuracy": 50, "pair accuracy": 25}
    assert result["accuracy/Color"] == result["by_kind"]["Color"]["accuracy"] and "bound/Color" not in result
    assert set(result["by_kind"]) == {"Color", "Text"} and result["n_queries"] == result["n_gallery"] == 4
    assert "mmvp, test: 4 queries" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--check={tmp}/x.json", "--protocol=cirr"], "--data or --protocol is missing"),
        (
            ["--check={tmp}/x.json", "--protocol=cirr", "--data={data}"],
            "--split is None; expected the one",
        ),
        (["--check={tmp}/y.json", "--protocol=cirr", "--data={data}", "--split=val"], "y.json is not there"),
        (
            ["--check={tmp}/x.json", "--protocol=mmvp", "--data={data}", "--split=val"],
            "has no leaderboard",
        ),
        (["--check={tmp}/x.json", "--protocol=fashion", "--data={data}"], "known are cirr,"),
    ],
)
def test_mistakes_are_told(pictograms, tmp_path, arguments, sentence):
    (tmp_path / "x.json").write_text("{}")
    done = in_process("evaluate", *(argument.format(data=pictograms, tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_checking_a_submission_imports_no_jax(pictograms, tmp_path):
    """Whoever checks a file in a browser's download folder waits for no compiler."""
    (tmp_path / "x.json").write_text("{}")
    command = [
        "-m",
        "experiments.evaluate",
        f"--check={tmp_path / 'x.json'}",
        f"--data={pictograms}",
        "--protocol=cirr",
        "--split=val",
    ]
    done = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=False)
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 2 and "x.json has" in done.stderr
    assert "experiments" in modules and not modules & {"jax", "flax", "tensorflow", "torch", "transformers"}


def test_a_clip_is_evaluated_on_shards_of_instances(source, tmp_path):
    """Both means of i-CIR's protocol are printed and kept, and so are those of the simpler ways to ask."""
    icir(tmp_path / "icir")
    arguments = [source, f"--data={tmp_path / 'icir'}", "--protocol=icir", "--split=test"]
    done = in_process("evaluate", *arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "run").glob("evaluation*.json")
    result = json.loads(file.read_text())
    assert {"mAP", "mmAP", "R@1", "R@5", "R@10"} == set(result["metrics"]) == set(result["baselines"]["image"])
    assert result["n_queries"] == 3 and result["n_gallery"] == 4 and 0 < result["metrics"]["mmAP"] <= 100
    assert "mmAP" in done.stdout
