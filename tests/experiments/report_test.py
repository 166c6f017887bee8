"""The report command ends with one sentence where there is no run to show."""

from tests.commands import in_process


def test_a_missing_workdir_is_reported(tmp_path):
    done = in_process("report")
    assert done.returncode == 2 and done.stderr == "error: --workdir is missing; give it as --workdir=...\n"
    done = in_process("report", f"--workdir={tmp_path / 'nowhere'}")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "nowhere") in done.stderr
