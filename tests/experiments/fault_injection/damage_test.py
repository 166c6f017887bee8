"""Every damage of a checkpoint is noticed, and checks that miss one are found."""

from contextjax.checkpoints import integrity
from experiments.fault_injection.damage import damage_files
from experiments.fault_injection.workdirs import differences


def test_every_damage_is_noticed(whole, tmp_path):
    outcome = damage_files(whole[0], tmp_path / "scratch", times=0)
    files = [path for path in (whole[0] / "checkpoints" / "12").rglob("*") if path.is_file()]
    assert outcome.passed and outcome.times == 3 * len(files) > 30, outcome
    assert not differences(tmp_path / "scratch", whole[0])[1:]  # but for the log: the copy is as it was


def test_a_check_that_sees_nothing_is_found(whole, tmp_path, monkeypatch):
    damage = integrity.damage
    blind = lambda folder: "" if damage(folder).startswith("meta") else damage(folder)
    monkeypatch.setattr(integrity, "damage", blind)
    outcome = damage_files(whole[0], tmp_path / "scratch", times=0)
    assert outcome.corrupt >= 3 and not outcome.passed
    assert all("of meta/" in problem for problem in outcome.problems)
