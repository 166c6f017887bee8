"""The tables of the plans that lie in the repository, and a folder without any."""

from tests.commands import in_process


def test_the_tables_of_a_folder_are_printed(tmp_path):
    done = in_process("scaling")
    assert done.returncode == 0 and done.stdout.count("|---") >= 5, done.stderr
    (tmp_path / "empty").mkdir()
    done = in_process("scaling", f"--plans={tmp_path / 'empty'}")
    assert done.returncode == 2 and "has no plan; expected what experiments.plan" in done.stderr
    done = in_process("scaling", f"--plans={tmp_path / 'none'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
