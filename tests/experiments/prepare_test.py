"""prepare: every split has a census, and the problems of one are reported after the others."""

from tests.commands import in_process


def test_splits_are_prepared_and_problems_come_last(pictograms_copy):
    data = f"--data={pictograms_copy}"
    next((pictograms_copy / "img_raw" / "dev").iterdir()).unlink()
    done = in_process("prepare", "--reader=cirr", data)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert done.stdout.count("tables and census:") >= 1  # of the splits that are whole
    done = in_process("prepare", "--reader=cirr", data, "--split=train")
    assert done.returncode == 0 and done.stdout.count("tables and census:") == 1, done.stderr
    assert in_process("prepare", "--reader=nope", data).stderr.startswith("error: The reader is 'nope'; known are cirr")
