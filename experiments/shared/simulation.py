"""Simulated CPU devices, more than the machine has, for programs that are compiled and not run."""

from __future__ import annotations

import math
import os
import re
import sys

from contextjax.analysis.targets import Target, prepare
from contextjax.types import UserError

# What is not run need not be fast: less work for LLVM, the same program.
MOST = 2048  # of one process of XLA's CPU backend
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def count_devices(mesh: str) -> int:
    """Returns the number of devices of a mesh that names all its sizes.

    Raises:
      UserError: the size of an axis is -1, or there are too many devices.
    """
    if "-1" in mesh:
        raise UserError(
            f"mesh is '{mesh}', whose -1 takes the devices there are; a plan needs numbers, as --mesh=data:8,fsdp:4."
        )
    count = math.prod(int(size) for size in re.findall(r":([1-9][0-9]*)", mesh))
    if count > MOST:
        raise UserError(
            f"mesh '{mesh}' has {count} devices, and {MOST} can be simulated; a chip's own compiler makes a plan of "
            "more, as --target=v5p:16x16x16, or plan a smaller data axis with the same batch a device."
        )
    return count


def simulate_devices(count: int) -> None:
    """Makes JAX see `count` CPU devices, if it has not been loaded yet; make_mesh reports if they do not suffice.

    Raises:
      UserError: there are too many.
    """
    if count > MOST:
        raise UserError(f"{count} devices are asked for, and {MOST} can be simulated; ask for fewer.")
    if "jax" in sys.modules:
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    flags = f"--xla_force_host_platform_device_count={count} {FLAGS}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


def simulate_beside(target: Target, *, wanted: bool) -> bool:
    """Prepares this process to compile for a target and, if `wanted`, for as many simulated devices.

    Returns:
      whether the target's devices are simulated too; more than MOST are not.

    Raises:
      UserError: the target's compiler is not installed.
    """
    prepare(target)
    simulated = wanted and target.count <= MOST
    simulate_devices(target.count if simulated else 1)
    return simulated
