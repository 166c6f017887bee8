"""The machine: its name, cores and memory."""

import os

import pytest

from contextjax.types import UserError
from experiments.shared import machine


def test_the_machine_has_a_name():
    assert machine.cpu_model()


def test_threads_are_limited_to_the_first_cores():
    cores = os.sched_getaffinity(0)
    try:
        machine.limit_threads(1)
        assert os.sched_getaffinity(0) == {min(cores)}
        with pytest.raises(UserError, match="--threads is 2; this machine offers 1 cores"):
            machine.limit_threads(2)
    finally:
        os.sched_setaffinity(0, cores)


def test_freed_memory_is_kept_unless_the_user_has_set_glibc(monkeypatch):
    kept = []
    monkeypatch.setattr(machine, "keep_memory", lambda: kept.append(True))
    monkeypatch.setattr(machine.Path, "glob", lambda self, pattern: [])  # no GPU or TPU
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)
    machine.keep_memory_on_cpu()
    assert kept == [True]
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    machine.keep_memory_on_cpu()
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    monkeypatch.setattr(machine.Path, "glob", lambda self, pattern: ["/dev/nvidia0"])
    machine.keep_memory_on_cpu()
    assert kept == [True]
