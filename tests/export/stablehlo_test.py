"""The StableHLO form: parameters are inputs, and what it lacks or can not read is one sentence."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from contextjax.export.stablehlo import open_stablehlo, to_stablehlo
from contextjax.types import UserError
from tests.commands import ROOT, environment

PROGRAMS = {"double": {"files": {"stablehlo": "double.stablehlo"}}}


@pytest.fixture
def folder(tmp_path):
    """The program x -> w * x for any number of rows."""
    save_file({"w": np.float32([2.0, 3.0])}, tmp_path / "model.safetensors")
    rows = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("rows"), 2), np.float32)
    program = to_stablehlo(lambda tensors, x: tensors["w"] * x, {"w": np.zeros(2, np.float32)}, [rows])
    (tmp_path / "double.stablehlo").write_bytes(program)
    return tmp_path


def test_a_program_is_run_with_the_parameters_beside_it(folder):
    run = open_stablehlo(folder, PROGRAMS)["double"]
    for rows in (1, 3):
        np.testing.assert_array_equal(run(np.ones((rows, 2), np.float32)), [[2.0, 3.0]] * rows)


def test_a_program_that_can_not_be_read_is_named(folder):
    (folder / "double.stablehlo").write_bytes(b"\0" * 64)
    with pytest.raises(UserError, match=r"double\.stablehlo can't be read by JAX .*export again"):
        open_stablehlo(folder, PROGRAMS)


def test_what_running_it_lacks_is_named(case):
    code = f"""
import sys
sys.modules["flatbuffers"] = None
import contextjax
from contextjax.spec import SystemSpec
from contextjax.types import UserError
try:
    contextjax.load({str(case.export)!r})
except UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert re.search(r"needs a package .*flatbuffers.*pip install 'contextjax\[export\]'", done.stdout), done.stdout
