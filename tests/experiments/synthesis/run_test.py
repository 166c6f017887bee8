"""A run mines a folder of pictures, and gives the same set again."""

import pytest

from data_pipelines.datasets import READERS
from data_pipelines.synthesis.review import read_drafts
from tests.commands import in_process


@pytest.mark.long
def test_the_command_makes_a_set_of_a_folder_and_the_same_again(clip, pictograms, tmp_path):
    target = tmp_path / "set"
    flags = [f"--pictures={pictograms / 'img_raw' / 'train'}", f"--workdir={clip}", f"--target={target}"]
    printed = []
    for more in ((), ("--agreement=-2", "--seed=0")):
        done = in_process("synthesize", *flags, "--backend=rules", "--band=-1,1", "--group=3", *more)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert all("Groups of 3 in the band: 6; " in text and "18 pairs of 18 pictures." in text for text in printed)
    drafts = list(read_drafts(target, "train"))
    assert len(drafts) == 18 and all(draft.reference != draft.target for draft in drafts)
    kept = [sentence for draft in drafts for sentence in draft.kept]
    assert kept and all("agreement" in sentence.passed for sentence in kept)
    assert (target / "synthesis" / "band.html").exists()
    assert [record.text for record in READERS["manifest"](target).records("train")] == [s.text for s in kept]
