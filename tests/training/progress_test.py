"""Progress without a terminal: a line now and then, and always one of the last step."""

from contextjax.training.progress import Progress


def test_the_first_and_the_last_step_have_a_line(capsys):
    progress = Progress(start=3, steps=9)
    for step in range(4, 10):
        progress.show(step, {"loss": 0.5})
    progress.close()
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in shown] == ["step 4/9", "step 9/9"]
    assert all(line.endswith("loss 0.5") for line in shown)
