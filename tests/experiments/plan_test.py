"""The planner's command: what it prints and writes, and a mesh without numbers."""

import json

import pytest

from contextjax.analysis.chips import ATTAINABLE, CHIPS
from tests.commands import in_own_process, in_process


@pytest.mark.long
def test_the_command(tmp_path):
    """The page names the chips and the share of the peak that the library assumes."""
    output = tmp_path / "plan.json"
    recipe = "--config=configs/pictograms.py:towers,tiny"
    done = in_own_process("plan", recipe, "--mesh=data:2,fsdp:2", "--batch=4", f"--output={output}", devices=4)
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert (figures["mesh"], figures["batch"]) == ({"data": 2, "fsdp": 2, "tensor": 1}, 4)
    assert list(figures["chips"]) == list(CHIPS) and all(chip["fits"] for chip in figures["chips"].values())
    assert f"(peak x {ATTAINABLE:g})" in done.stdout and f"{figures['parameters']:,} parameters" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[-len(CHIPS) :]] == list(CHIPS)
    for target, complaint in (
        ("v9:2x2", "The target's chip is 'v9'; known are v4, v5e"),
        ("v5e:2x2x2", "The target's topology is '2x2x2'; a v5e has 2 numbers"),
        ("H100:1x1x16", "The target's servers have 16 GPUs"),
    ):
        refused = in_process("plan", recipe, "--mesh=data:8", f"--target={target}")
        assert refused.returncode == 2 and refused.stderr.startswith(f"error: {complaint}"), refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    refused = in_process("plan", recipe, "--mesh=data:-1")
    assert refused.returncode == 2 and refused.stderr.startswith("error: mesh is 'data:-1'")
    assert len(refused.stderr.splitlines()) == 1


def test_inference_prints_a_table_and_takes_nothing_of_training(tmp_path):
    recipe = "--config=configs/pictograms.py:tiny"
    done = in_process("plan", recipe, "--inference")
    assert done.returncode == 0, done.stderr
    assert "| ConText-CIR |" in done.stdout and "A candidate of ConText-CIR costs +0.0 % beside" in done.stdout
    for flag in (f"--output={tmp_path / 'x.json'}", "--mesh=data:2", "--noadvice", "--chip=v5e"):
        refused = in_process("plan", recipe, "--inference", flag)
        name = flag.lstrip("-").partition("=")[0].removeprefix("no")
        assert refused.returncode == 2, flag
        assert refused.stderr == f"error: --{name} has no meaning beside --inference; leave one of them out.\n"
    assert not (tmp_path / "x.json").exists()
