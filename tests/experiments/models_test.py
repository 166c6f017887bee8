"""Tests of experiments.models: a line for each checkpoint, with the page of its licence."""

from contextjax.pretrained.known import KNOWN
from tests.commands import in_process


def test_every_checkpoint_is_listed_with_the_page_of_its_licence():
    done = in_process("models")
    head, *lines = done.stdout.splitlines()
    assert done.returncode == 0 and head.split()[:3] == ["CHECKPOINT", "FAMILY", "SIZE"] and len(lines) == len(KNOWN)
    for row, line in zip(KNOWN, lines, strict=True):
        assert line.startswith(f"{row.id} ") and line.endswith(row.page) and row.licence in line
    assert "not read" in done.stdout and "see its config" in done.stdout


def test_one_family():
    done = in_process("models", "--family=blip2")
    assert done.returncode == 0 and all(" blip2 " in line for line in done.stdout.splitlines()[1:])
    done = in_process("models", "--family=resnet")
    assert done.returncode == 2 and "expected one of clip, blip, blip2" in done.stderr
