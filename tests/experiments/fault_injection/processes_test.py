"""Functions run in processes of their own: results, failures and devices."""

import pytest

from contextjax.types import UserError
from experiments.fault_injection.processes import is_running
from tests.experiments.fault_injection import scripts


def device_count() -> int:
    import jax

    print("counted", flush=True)
    return jax.device_count()


@pytest.mark.parametrize("devices", [1, 3])
def test_a_function_has_its_devices_and_its_result_comes_back(processes, tmp_path, devices):
    assert processes.call(device_count, log=tmp_path / "log", devices=devices) == devices
    assert (tmp_path / "log").read_text() == "counted\n"


def test_a_failure_names_its_exit_code_and_its_log(processes, tmp_path):
    with pytest.raises(UserError, match=rf"ends with exit code 3; see {tmp_path}/log"):
        processes.call(scripts.fail, tmp_path, log=tmp_path / "log")


def test_a_process_is_running_until_it_ends(processes, tmp_path):
    process = processes.start(scripts.idle, 60, log=tmp_path / "log")
    assert is_running(process)
    process.kill()
    assert not is_running(process, 30)
