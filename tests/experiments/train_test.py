"""train: flags that do not fit end with one sentence before anything is loaded."""

import pytest

from tests.commands import in_process

TINY = "--config=configs/pictograms.py:tiny"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([TINY, "--workdir={tmp}", "--profile=7:99"], "--profile is '7:99'; expected the first and the last step"),
        ([TINY, "--workdir={tmp}", "--config.data.batch_size=9"], "batch_size is 9, but the mesh cuts a batch into 8"),
        ([TINY, "--workdir={tmp}", "--step_timeout=-1"], "step_timeout"),
        ([TINY, "--workdir={tmp}", "extra"], "got the extra argument 'extra'"),
    ],
)
def test_mistakes_end_with_one_sentence(tmp_path, arguments, sentence):
    done = in_process("train", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())
