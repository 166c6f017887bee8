"""The machine that a figure is measured on: its processor's name, and the limits set before anything is timed."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

from contextjax.types import UserError


def cpu_model() -> str:
    """Returns the processor's name, with the matrix extensions that the speed of bfloat16 depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = info.get("flags", "").split()
    extensions = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    model = info.get("model name", platform.processor())
    return f"{model}, family {info.get('cpu family')} model {info.get('model')} ({', '.join(extensions)})"


def limit_threads(threads: int) -> None:
    """Keeps this process to the first `threads` of its cores; JAX sizes its pool by them when it first computes.

    Raises:
      UserError: the machine has fewer cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < threads:
        raise UserError(f"--threads is {threads}; this machine offers {len(cores)} cores.")
    os.sched_setaffinity(0, cores[:threads])


def keep_memory_on_cpu() -> None:
    """Keeps freed memory (see `keep_memory`) where there is no GPU or TPU, and no setting of the user's for glibc."""
    accelerators = [
        path for pattern in ("nvidia[0-9]*", "accel*", "vfio/[0-9]*") for path in Path("/dev").glob(pattern)
    ]
    if not accelerators and not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        keep_memory()


def keep_memory() -> bool:
    """Makes glibc keep freed memory for the next step, for every library of this process; False without glibc.

    By default glibc returns large buffers to the system after each call, and the system zeroes them again page by page:
    a sixth of a training step's time. Call it before threads start.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    arena_max, mmap_max, trim_threshold = -8, -4, -1
    # A single arena: the arenas of threads fall back on mmap for large buffers.
    return all(mallopt(name, value) for name, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, -1)))
