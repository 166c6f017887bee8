"""generate: the same seed is not written twice, and bad pictures are one sentence."""

from tests.commands import in_process


def test_a_folder_of_too_few_pictures_is_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    command = ["generate", f"--target={tmp_path / 'set'}", f"--pictograms={tmp_path / 'pictures'}", "--train_groups=1"]
    done = in_process(*command)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert in_process("generate").stderr == "error: --target is missing; give it as --target=...\n"
