"""probe: a run's accuracies under every probe, shown by its report; what has no candidate sets is one sentence."""

import json
import shutil

import pytest

from contextjax.evaluation.probes import ORDER_PROBE, PICTURE_PROBES, SAME_SCORES, STRENGTHS, TEXT_PROBE
from tests.commands import in_process
from tests.shape_checks import no_shape_checks


@pytest.mark.long
def test_a_run_is_probed_evaluated_and_reported(tiny_sets_run, tmp_path):
    run = shutil.copytree(tiny_sets_run, tmp_path / "run")
    done = in_process("probe", f"--workdir={run}", "--records=4")
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "probes.json").read_text())
    assert result["n_queries"] == 4 and list(result["probes"]) == [*PICTURE_PROBES, TEXT_PROBE, ORDER_PROBE]
    assert [row["strength"] for row in result["probes"]["all pixels"]] == list(STRENGTHS)
    assert [row["strength"] for row in result["probes"][TEXT_PROBE]] == [0, 1, 2]  # of four texts
    assert all(0 <= row["cut"] <= 100 for row in result["probes"][TEXT_PROBE])
    assert result["probes"][ORDER_PROBE]["difference"] < SAME_SCORES and "scores permute" in done.stdout
    done = in_process("evaluate", f"--workdir={run}", "--nobaselines")
    assert done.returncode == 0 and "Grounding of" in done.stdout, done.stderr
    grounding = {
        k: v for k, v in json.loads((run / "evaluation.json").read_text()).items() if k.startswith("grounding/")
    }
    assert len(grounding) == 5 and 0 < grounding["grounding/pointing_chance"] < 100
    done = in_process("report", f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    page = (run / "report" / "index.html").read_text()
    assert "How robust it is" in page and "Changed pictures" in page and "Where phrases look" in page
    assert f"{grounding['grounding/mass']:.1f}" in page and "Accuracy in percent, over 4 descriptions, as" in page
    done = in_process("probe", f"--workdir={run}", "--records=4", "--split=test")
    assert done.returncode == 0 and (run / "probes.test.json").exists(), done.stderr
    assert json.loads((run / "probes.json").read_text()) == result


@pytest.mark.long
def test_an_export_is_evaluated_and_not_probed(tiny_sets_run, tmp_path):
    """An export has one way to score, and neither maps nor patches."""
    with no_shape_checks():
        done = in_process("export", f"--workdir={tiny_sets_run}", f"--target={tmp_path / 'out'}", "--format=stablehlo")
    assert done.returncode == 0, done.stderr
    data = json.loads((tiny_sets_run / "config.json").read_text())["data"]["val_folder"]
    given = f"--workdir={tmp_path}", f"--source={tmp_path / 'out'}", f"--data={data}", "--protocol=imagecode"
    done = in_process("evaluate", *given)
    assert done.returncode == 0 and "accuracy" in done.stdout, done.stderr
    done = in_process("probe", *given)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "An export of programs has no sizes of its towers" in done.stderr


def test_what_cannot_be_probed_is_one_sentence(tiny_run, tmp_path):
    done = in_process("probe", f"--workdir={shutil.copytree(tiny_run, tmp_path / 'run')}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "'cirr' is a protocol of composed queries; probes are of candidate sets" in done.stderr
    done = in_process("probe", f"--workdir={tmp_path}", f"--source={tiny_run}")
    assert done.returncode == 2 and "--data or --protocol is missing" in done.stderr
    done = in_process("probe", f"--workdir={tmp_path / 'nowhere'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
