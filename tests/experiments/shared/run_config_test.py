"""The config and the evaluation of a run: it goes on wherever it is computed, and nowhere as another."""

import json

import pytest

from configs import pictograms
from contextjax.types import UserError
from experiments.shared.run_config import config_hash, read_config, read_evaluation, write_config


def changed(**values):
    config = pictograms.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in values.items()})
    return config


def test_a_run_goes_on_wherever_it_is_computed_and_nowhere_as_another(tmp_path):
    write_config(tmp_path, changed(mesh="data:4,fsdp:2"))
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    moved = changed(mesh="data:2", data__workers=3, data__cache_mb=7)
    write_config(tmp_path, moved)
    assert config_hash(moved) == config_hash(changed())
    assert read_config(tmp_path).mesh == "data:4,fsdp:2"  # as it began
    other = changed(data__batch_size=4)
    with pytest.raises(UserError, match=r"is of another config: data\.batch_size was"):
        write_config(tmp_path, other)
    assert config_hash(other) != config_hash(changed())


def test_a_workdir_without_a_checkpoint_is_no_run(tmp_path):
    """Files of a start that failed are made once more; a file that it can't have left is never removed."""
    write_config(tmp_path, changed(data__batch_size=4))
    for name in ("tokenizer.json", "system.json", "metrics.jsonl", ".lock"):
        (tmp_path / name).touch()
    (tmp_path / "checkpoints").mkdir()
    write_config(tmp_path, changed())
    assert read_config(tmp_path).data.batch_size == 16 and not (tmp_path / "tokenizer.json").exists()
    (tmp_path / "config.json").write_text("{cut")
    write_config(tmp_path, changed(data__batch_size=4))
    (tmp_path / "model.safetensors").touch()  # an export
    with pytest.raises(UserError, match="is of another config"):
        write_config(tmp_path, changed())
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "checkpoints.damaged" / "5-0").mkdir(parents=True)  # its only state, set aside: a run all the same
    with pytest.raises(UserError, match="is of another config"):
        write_config(tmp_path, changed())


def test_a_config_of_another_run_and_a_damaged_one_are_refused(tmp_path):
    write_config(tmp_path, changed())
    assert read_config(tmp_path, config_hash(changed())).data.batch_size == 16
    with pytest.raises(UserError, match="the checkpoint was trained with abc; put the run's own back"):
        read_config(tmp_path, "abc")
    for content in ("{cut", "[]", "{}", '{"data": 3}', "\udcff"):
        (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(UserError, match=r"config\.json"):
            read_config(tmp_path)


def test_a_damaged_evaluation_is_one_sentence(tmp_path):
    path = tmp_path / "evaluation.json"
    whole = {
        "config_hash": "a",
        "step": 1,
        "protocol": "cirr",
        "split": "val",
        "metrics": {"R@1": 1.0},
        "baselines": {},
    }
    path.write_text(json.dumps(whole))
    assert read_evaluation(path, remedy="evaluate again") == whole
    for wrong in ({"metrics": 3}, {"step": "1"}, {"baselines": {"sum": None}}, {"metrics": {"R@1": "x"}}):
        path.write_text(json.dumps(whole | wrong))
        with pytest.raises(UserError, match=r"evaluation\.json has .*; evaluate again"):
            read_evaluation(path, remedy="evaluate again")
    for text in (b"", b"{", b"\xff", b"[1]"):
        path.write_bytes(text)
        with pytest.raises(UserError, match=r"evaluation\.json"):
            read_evaluation(path, remedy="evaluate again")
