"""The real entry points on a tiny data set: train, resume, evaluate, search, and what bad input says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from contextjax.training.metrics_log import read_metrics
from tests.commands import in_own_process, in_process


@pytest.fixture(scope="session")
def data(pictograms) -> Path:
    return pictograms


def drive(data: Path, workdir: Path, *, cut: int = 0, devices: int = 1, **changes) -> subprocess.CompletedProcess:
    """Trains the tiny recipe in a process of its own, on `devices` simulated devices; see tests/driver.py."""
    settings = json.dumps({"data.folder": str(data)} | changes)
    return in_own_process("tests.driver", settings, str(workdir), str(cut), devices=devices)


@pytest.fixture(scope="session")
def trained(tiny_run, tmp_path_factory) -> Path:
    """A copy of the tiny run, which tests may evaluate."""
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("runs") / "whole"))


def without_seconds(workdir: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(workdir)]


def params_of(workdir: Path):
    import contextjax

    return jax.tree.leaves_with_path(contextjax.load(workdir).params)


def test_training_leaves_what_the_design_says(trained):
    assert json.loads((trained / "config.json").read_text())["model"]["variant"] == "S16"
    lines = read_metrics(trained)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert {"contrastive", "consistency", "captions", "grad_norm", "learning_rate"} <= set(lines[-2])
    assert lines[-1]["step"] == 12 and 0 <= lines[-1]["val/R@5"] <= 100
    assert any((trained / "tensorboard").iterdir()) and (trained / "tokenizer.json").exists()


def test_no_compilation_after_the_second_step(trained):
    recompiles = [line["recompiles"] for line in read_metrics(trained) if "recompiles" in line]
    assert recompiles and not any(recompiles)


@pytest.mark.long
def test_resumed_equals_uninterrupted_bitwise(data, trained, tmp_path):
    """Cut between two checkpoints, where lines past the first have to go; fault injection has the other places."""
    workdir, cut = tmp_path / "cut", 9
    interrupted = drive(data, workdir, cut=cut)
    assert "KeyboardInterrupt" in interrupted.stderr
    assert [line["step"] for line in read_metrics(workdir)][-1:] == [cut - 1]
    resumed = drive(data, workdir)
    assert resumed.returncode == 0, resumed.stderr
    assert without_seconds(workdir) == without_seconds(trained)
    for (path, a), (_, b) in zip(params_of(workdir), params_of(trained), strict=True):
        assert np.array_equal(a, b), path


def test_another_config_is_refused_and_nothing_changes(data, trained):
    before = {path: path.read_bytes() for path in trained.glob("*.json*")}
    done = drive(data, trained, **{"optimizer.learning_rate": 1e-3})
    assert "another config: optimizer.learning_rate was 0.002 and is now 0.001" in done.stderr
    assert {path: path.read_bytes() for path in trained.glob("*.json*")} == before


@pytest.mark.long
def test_a_bad_step_ends_the_run_with_its_records(data, tmp_path):
    changes = {"optimizer.learning_rate": 1e30, "optimizer.warmup_steps": 0, "loss.lead_steps": 0}
    done = drive(data, tmp_path / "bad", **changes)
    assert re.search(r"UserError: Step \d+ had a non-finite loss or gradient .* records: \d+", done.stderr), done.stderr


def test_evaluation(trained):
    done = in_own_process("evaluate", f"--workdir={trained}")
    assert done.returncode == 0, done.stderr
    result = json.loads((trained / "evaluation.json").read_text())
    assert result["n_queries"] == 12 and result["n_gallery"] == 12 and result["step"] == 12
    assert set(result["baselines"]) == {"image", "text", "sum"}
    assert set(result["metrics"]) == {"R@1", "R@5", "R@10", "R@50", "Rs@1", "Rs@2", "Rs@3", "Avg"}
    assert read_metrics(trained)[-1]["val/R@5"] == result["metrics"]["R@5"]
    assert "two-step" in done.stdout


def test_a_run_converted_is_the_same_system(trained, data, tmp_path):
    done = in_process("convert", f"--source={trained}", f"--target={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "ConText-CIR" in done.stdout and "model.safetensors" in done.stdout
    done = in_process("evaluate", f"--workdir={tmp_path / 'again'}", f"--source={tmp_path / 'out'}", f"--data={data}",
               "--protocol=cirr", "--nobaselines")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "again").glob("evaluation.cirr.val*.json")
    result = json.loads(file.read_text())
    assert result["metrics"]["R@5"] == read_metrics(trained)[-1]["val/R@5"] and result["step"] == 12
    twice = in_process(
        "convert", f"--source={tmp_path / 'out'}", f"--target={tmp_path / 'twice'}"
    )  # an export goes on, too
    assert twice.returncode == 0, twice.stderr
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "twice")]
    assert weights[0] == weights[1]
    refused = in_process("convert", f"--source={trained}", f"--target={tmp_path / 'hf'}", "--format=hf")
    assert refused.returncode == 2 and "has no stem" in refused.stderr and not (tmp_path / "hf").exists()


@pytest.fixture(scope="session")
def clip(tiny, tmp_path_factory) -> Path:
    """A tiny CLIP in Hugging Face's layout, with a tokenizer. Read only."""
    import dataclasses

    from contextjax.models.clip import CLIP
    from contextjax.pretrained import write_pretrained
    from contextjax.tokenizers import train_tokenizer
    from tests.pretrained.conftest import random_params

    text = dataclasses.replace(tiny.clip.text, vocabulary=280, positions=77, eos_token=1)
    config = dataclasses.replace(tiny.clip, text=text)
    folder = write_pretrained(tmp_path_factory.mktemp("models") / "clip", config, random_params(CLIP(config)))
    train_tokenizer(["a dog"], vocabulary=280, length=77).save(folder / "tokenizer.json")
    return folder


@pytest.mark.long
def test_the_published_recipe_starts_from_a_clip(clip, data, tmp_path):
    """At step 0 the gallery side is CLIP's bitwise; the run trains, diagnoses, resumes and evaluates."""
    import contextjax

    arguments = [
        "--config=configs/context_cir.py:B32", f"--config.model.pretrained={clip}", f"--config.data.folder={data}",
        f"--workdir={tmp_path / 'run'}", "--config.model.dtype=float32", "--config.data.batch_size=4",
        "--config.model.fusion_layers=1", "--config.training.steps=2", "--config.training.checkpoint_every=1",
        "--config.training.log_every=1", "--config.training.diagnose_every=2", "--config.optimizer.learning_rate=0",
    ]  # fmt: skip
    done = in_own_process("train", *arguments)
    assert done.returncode == 0, done.stderr
    lines = read_metrics(tmp_path / "run")
    told = next(line for line in lines if "grad_norm/consistency" in line)
    assert told["step"] == 2 and told["grad_norm/contrastive"] > 0
    system, plain = contextjax.load(tmp_path / "run"), contextjax.load(clip)  # the learning rate was zero
    pictures = [np.full((20, 16, 3), value, np.uint8) for value in (0, 90, 255)]
    np.testing.assert_array_equal(system.encode_gallery(pictures), plain.encode_gallery(pictures))
    texts = ["make it red", "remove the dog", "two cats"]
    queries = system.encode_query(pictures, texts)
    np.testing.assert_array_equal(queries, system.encode_query(pictures, texts[::-1]))  # the text is not read yet
    again = in_own_process("train", *arguments)
    assert again.returncode == 0 and read_metrics(tmp_path / "run") == lines
    sizes = in_own_process("train", *arguments, "--config.model.fusion_layers=2")
    assert sizes.returncode == 2 and "fusion_layers" in sizes.stderr


def test_a_clip_is_converted_and_scored_as_it_is(clip, data, pictogram_sets, tmp_path):
    """Hugging Face's layout in and out, then composed queries and candidate sets without any training."""
    done = in_process("convert", f"--source={clip}", f"--target={tmp_path / 'clip'}", "--image_size=32")
    assert done.returncode == 0, done.stderr
    assert "32 px, quick_gelu" in done.stdout and (tmp_path / "clip" / "tokenizer.json").exists()
    for folder, protocol, names in (
        (data, "cirr", {"image", "text"}),
        (pictogram_sets, "imagecode", {"random", "best constant index", "texts of other sets"}),
    ):
        places = [f"--workdir={tmp_path / 'zero'}", f"--source={tmp_path / 'clip'}", f"--data={folder}"]
        done = in_process("evaluate", *places, f"--protocol={protocol}")
        assert done.returncode == 0, done.stderr
        (file,) = (tmp_path / "zero").glob(f"evaluation.{protocol}.val.*.json")
        result = json.loads(file.read_text())
        assert file.name == f"evaluation.{protocol}.val.{folder.name}-{result['data']['identity']}.json"
        assert set(result["baselines"]) == names and result["n_queries"] >= 4
    image = sorted((data / "img_raw" / "dev").iterdir())[0]
    refused = in_process(
        "maps", f"--workdir={tmp_path / 'clip'}", f"--image={image}", "--text=a dog", f"--target={tmp_path}/x"
    )
    assert refused.returncode == 2 and refused.stderr.startswith("error: ") and "no fusion" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1 and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        ("train", ["--config=configs/pictograms.py", "--workdir={tmp}/x", "--config.data.folder={tmp}/no"],
         "no is not there"),
        ("train", ["--config=configs/pictograms.py", "--workdir={tmp}/x", "--config.optimizer.lerning_rate=1"],
         "optimizer.learning_rate"),
        ("train", ["--config=configs/none.py", "--workdir={tmp}/x"], "none.py"),
        ("train", ["--config=configs/pictograms.py"], "--workdir is missing"),
        ("train", ["--config=configs/pictograms.py", "--workdir={tmp}/x", "--config.mesh=data:3"], "devices"),
        ("train", ["--config=configs/pictograms.py", "--workdir={tmp}/x", "--config.training.steps=many"], "many"),
        ("evaluate", ["--workdir={tmp}/none"], "There is nothing at"),
        ("evaluate", ["--workdir={run}", "--split=nope"], "no split 'nope'"),
        ("evaluate", ["--workdir={tmp}/x", "--source={tmp}/no"], "--data or --protocol is missing"),
        ("evaluate", ["--workdir={tmp}/x", "--source={tmp}/no", "--data={dev}", "--protocol=cirr"], "nothing at"),
        ("convert", ["--source={tmp}/no.pth", "--target={tmp}/x", "--allow_pickle"], "no pickle at"),
        ("convert", ["--source={dev}", "--target={tmp}/x"], "no model.safetensors"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_one_sentence(data, trained, tmp_path, module, arguments, sentence):
    dev = data / "img_raw" / "dev"
    places = {"tmp": tmp_path, "run": trained, "dev": dev, "image": sorted(dev.iterdir())[0]}
    done = in_process(module, *(argument.format(**places) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and sentence in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_the_whole_command_on_eight_devices(data, trained, tmp_path):
    done = drive(data, tmp_path / "eight", devices=8, mesh="data:2,fsdp:2,tensor:2", **{"training.steps": 6})
    assert done.returncode == 0, done.stderr
    losses = [[line["loss"] for line in read_metrics(w) if "loss" in line][:3] for w in (tmp_path / "eight", trained)]
    # The schedules differ in length, but not in the warm-up, where the first steps are.
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("module", ["train", "evaluate", "search", "generate", "report", "convert", "maps", "prepare"])
def test_help(module):
    done = in_process(module, "--help")
    assert done.returncode in (0, 1) and f"experiments.{module}" in done.stdout


def test_a_checkpoint_of_the_published_implementation_moves_here(clip, tmp_path):
    """A folder with its names, its CLIP's config.json and tokenizer becomes one that loads as the same system."""
    from safetensors.numpy import save_file

    import contextjax
    from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
    from contextjax.pretrained.context_cir import published_table
    from contextjax.pretrained.names import flatten, write
    from tests.pretrained.conftest import random_params

    source = Path(shutil.copytree(clip, tmp_path / "published"))
    config = ContextCIRConfig(contextjax.load(clip).model.config, fusion_layers=3)
    params = random_params(ContextCIR(config))
    save_file(write(published_table(config), flatten(params)), source / "model.safetensors")
    done = in_process("convert", f"--source={source}", f"--target={tmp_path / 'ours'}")
    assert done.returncode == 0, done.stderr
    assert "ConText-CIR (published implementation)" in done.stdout
    before, after = contextjax.load(source), contextjax.load(tmp_path / "ours")
    assert before.query == after.query == "fusion" and after.model.config == config
    picture = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    query = before.encode_query(picture, ["a dog"])
    np.testing.assert_array_equal(query, after.encode_query(picture, ["a dog"]))
    assert np.abs(query - after.encode_query(picture, ["a cat"])).max() > 1e-4
