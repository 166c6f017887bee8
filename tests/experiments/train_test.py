"""train: flags that do not fit end with one sentence before anything is loaded."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from contextjax.checkpoints.reader import CheckpointReader
from tests.commands import in_own_process, in_process

TINY = "--config=configs/pictograms.py:tiny"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([TINY, "--workdir={tmp}", "--profile=7:99"], "--profile is '7:99'; expected the first and the last step"),
        ([TINY, "--workdir={tmp}", "--config.data.batch_size=9"], "batch_size is 9, but the mesh cuts a batch into 8"),
        ([TINY, "--workdir={tmp}", "--step_timeout=-1"], "step_timeout"),
        ([TINY, "--workdir={tmp}", "--track=comet"], "--track is 'comet'; expected some of wandb, mlflow"),
        ([TINY, "--workdir={tmp}", "extra"], "got the extra argument 'extra'"),
    ],
)
def test_mistakes_end_with_one_sentence(tmp_path, arguments, sentence):
    done = in_process("train", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def run(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_another_tokenizer_or_system_is_refused_wherever_the_run_is_used(run, pictograms, tmp_path):
    """Ids that are exchanged train, evaluate and export without any other sign of it."""
    commands = {
        "train": [TINY, f"--workdir={run}", f"--config.data.folder={pictograms}"],
        "evaluate": [f"--workdir={run}"],
        "export": [f"--workdir={run}", f"--target={tmp_path / 'export'}"],
        "serve": [f"--source={run}", "--port=0"],
    }
    tokenizer, system = (run / name for name in ("tokenizer.json", "system.json"))
    whole = {path: path.read_text() for path in (tokenizer, system)}
    content = json.loads(whole[tokenizer])
    ids = content["model"]["vocab"]
    first, second = list(ids)[20:22]
    ids[first], ids[second] = ids[second], ids[first]
    changed = {tokenizer: json.dumps(content), system: whole[system].replace('"query": "fusion"', '"query": "sum"')}
    for path, text in changed.items():
        path.write_text(text)
        for command, flags in commands.items():
            if command == "train" and path == system:
                continue
            # Trainings of one process would define the flags of their settings twice.
            done = (in_own_process if command == "train" else in_process)(command, *flags)
            assert done.returncode == 2 and f"{path} is not the file that the checkpoint" in done.stderr, done.stderr
        path.write_text(whole[path])


@pytest.mark.long
def test_a_damaged_file_of_a_run_is_one_sentence_that_names_it(run):
    for name in ("config.json", "system.json", "tokenizer.json"):
        whole = (run / name).read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], b"\xff\xfe", b"[]", b"{}"):
            (run / name).write_bytes(damaged)
            done = in_process("evaluate", f"--workdir={run}")
            assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
            assert str(run / name) in done.stderr, done.stderr
        (run / name).unlink()
        (run / name).mkdir()
        done = in_process("evaluate", f"--workdir={run}")
        assert done.returncode == 2 and str(run / name) in done.stderr, done.stderr
        (run / name).rmdir()
        (run / name).write_bytes(whole)
    config = json.loads((run / "config.json").read_text())
    config["data"]["text_length"] -= 1
    (run / "config.json").write_text(json.dumps(config))
    done = in_process("evaluate", f"--workdir={run}")
    assert done.returncode == 2 and "and the checkpoint was trained with" in done.stderr


@pytest.mark.long
def test_adapters_are_trained_on_a_run_go_on_and_are_used_like_any_other(tiny_run, pictograms, tmp_path):
    """Trains ConText-CIR with lora2 on a run of ours: the same command continues; evaluation and export are merged."""
    import contextjax

    base, run = (Path(shutil.copytree(tiny_run, tmp_path / "base")), tmp_path / "run")
    flags = [
        "--config=configs/context_cir.py:tiny,lora2", f"--workdir={run}", f"--config.data.folder={pictograms}",
        f"--config.model.start={base}", "--config.data.text_length=24", "--config.training.steps=5",
        "--config.training.evaluate_every=5",
    ]  # fmt: skip
    done = in_own_process("train", *flags)
    assert done.returncode == 0 and "start from" in done.stdout, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith(("clip/", "lora"))}
    assert "frozen" in lines["clip/vision"] and "frozen" in lines["clip/text"] and "frozen" not in lines["lora"]
    with contextlib.closing(CheckpointReader(run / "checkpoints")) as checkpoints:
        saved = checkpoints.restore_arrays("newest")[0]["params"]
    assert "lora" in saved and set(saved["clip"]) == {"logit_scale"}  # both frozen towers stay in the base
    assert in_own_process("train", *flags).returncode == 0  # which reads the base again, and has nothing to do
    done = in_process("evaluate", f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    done = in_process("export", f"--workdir={run}", f"--target={tmp_path / 'out'}", "--format=safetensors")
    assert done.returncode == 0 and "rank 2, merged" in (tmp_path / "out" / "README.md").read_text(), done.stderr
    shutil.rmtree(base)
    assert "lora" not in contextjax.load(tmp_path / "out").params
    done = in_process("evaluate", f"--workdir={run}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"The adapters in {run} were trained on {base}, which can't be read" in done.stderr
