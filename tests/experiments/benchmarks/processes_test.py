"""The benchmark in processes of its own: a sweep of batches, failures, and the compile cache."""

import json
import math

import pytest

from contextjax.types import UserError
from experiments.benchmarks import processes
from tests.commands import interpreter
from tests.experiments.benchmarks.conftest import TINY


@pytest.mark.long
def test_the_command_in_processes_of_its_own(tmp_path, capsys):
    """A sweep of one-layer towers runs each batch in a process and reports one that fails."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from configs import pictograms\n\n\ndef get_config():\n"
        "    config = pictograms.get_config('no_consistency,tiny')\n"
        f"    config.update_from_flattened_dict({TINY!r})\n    return config\n"
    )
    arguments = [f"--config={recipe}", "--mode=embedding", "--steps=1"]
    (result,) = processes.sweep(arguments, batch=2, largest=3)
    assert result["batch"] == 2 and result["mode"] == "embedding" and math.isfinite(result["samples_per_second"])
    with pytest.raises(UserError, match="ended with code 2: error: flag --mode=nothing"):
        processes.run_again("--mode=nothing", arguments=arguments)
    assert not list(processes.sweep([*arguments, "--mode=nothing"], batch=2, largest=4))
    assert "batch 2 does not fit" in capsys.readouterr().out


@pytest.mark.slow
def test_the_first_step_is_timed_without_and_with_what_was_compiled(tmp_path):
    output = tmp_path / "result.json"
    done = interpreter(
        "benchmark", "--config=configs/pictograms.py:sum", "--batch=2", "--steps=1", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert 0 < result["first_step_warm_seconds"] < result["first_step_cold_seconds"]
    assert result["recompiles"] == 0 and result["steps"] == 1
