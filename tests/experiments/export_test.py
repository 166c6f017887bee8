"""export: mistakes are one sentence before anything is loaded. weights_test has what is written."""

import pytest

from tests.commands import in_process


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--target={tmp}/x"], "--workdir is missing"),
        (["--workdir={run}"], "--target is missing"),
        (["--workdir={tmp}/none", "--target={tmp}/x"], "nothing at"),
        (["--workdir={run}", "--target={tmp}/x", "--format=tensorrt"], "--format is 'tensorrt'; expected some of"),
        (["--workdir={run}", "--target={tmp}/x", "--dtype=int8"], "int8 is a type of onnx alone, and --format"),
        (["--workdir={run}", "--target={tmp}/x", "--dtype=int4"], "dtype"),
        (["--workdir={run}", "--target={tmp}/x", "--checkpoint=77"], "has no checkpoint '77'"),
        (["--workdir={run}", "--target={run}"], "exists already"),
    ],
)
def test_mistakes_end_with_one_sentence(tiny_run, tmp_path, flags, sentence):
    done = in_process("export", *(flag.format(tmp=tmp_path, run=tiny_run) for flag in flags))
    assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_parameters_of_a_run_are_exported(tiny_run, tmp_path):
    done = in_process("export", f"--workdir={tiny_run}", f"--target={tmp_path / 'out'}", "--format=safetensors")
    assert done.returncode == 0 and "model.safetensors (" in done.stdout, done.stderr
    assert {"README.md", "export.json", "config.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
