"""Compiles programs for chips that this machine does not have, by those chips' own compilers.

XLA's TPU compiler comes with libtpu (the extra [tpu]), its GPU compiler with the CUDA plugin (the extra [cuda12]). The
process itself runs on the CPU: `prepare` says so before JAX is loaded. Names: "v5p:4x4x4" is a torus of chips,
",slices=2" joins two of them by the network; "H100:1x8x8" is domains x servers x GPUs a server.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from contextjax.analysis.chips import CHIPS, Chip
from contextjax.types import UserError

GIB = 1 << 30
# What libtpu 0.0.42 leaves to a program, by its own refusals; the rest of the memory is the runtime's.
TPU_LIMITS = {"v4": 30.75 * GIB, "v5e": 15.75 * GIB, "v5p": 95.74 * GIB, "v6e": 31.25 * GIB, "tpu7x": 94.75 * GIB}
TPU_AXES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3}
DEVICES_A_CHIP = {"tpu7x": 2}
GPU_RESERVE = 0.1  # of a GPU's memory, for the driver, cuBLAS and NCCL: an assumption. The compiler enforces no limit
# Figures of GpuTargetConfigProto as openxla/xla publishes them (xla/backends/gpu/target_config/specs).
GPUS: dict[str, dict[str, Any]] = {
    "A100": {
        "spec": "a100_sxm_80.txtpb", "description": "NVIDIA A100-SXM4-80GB", "major": 8, "cores": 108, "fpus": 64,
        "shared": 167936, "shared_optin": 166912, "bandwidth": 2039040000000, "l2": 41943040, "clock": 1.41,
        "memory": 85100068864,
    },
    "H100": {
        "spec": "h100_sxm.txtpb", "description": "NVIDIA H100 80GB HBM3", "major": 9, "cores": 132, "fpus": 128,
        "shared": 233472, "shared_optin": 232448, "bandwidth": 3352320000000, "l2": 52428800, "clock": 1.98,
        "memory": 84942979072,
    },
    "H200": {
        "spec": "h200.txtpb", "description": "NVIDIA H200 141GB HBM3e", "major": 9, "cores": 132, "fpus": 128,
        "shared": 233472, "shared_optin": 232448, "bandwidth": 4800000000000, "l2": 52428800, "clock": 1.98,
        "memory": 151397597184,
    },
}  # fmt: skip
GPU_CONFIG = """gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  shared_memory_per_block_optin: {shared_optin}
  cuda_compute_capability {{ major: {major} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 patch: 0 }}
device_description_str: "{description}"
"""
EFFORTS: dict[str, dict[str, Any]] = {
    "default": {},
    "low": {"exec_time_optimization_effort": -1.0},
}  # of the TPU's compiler
# Triton's products can't be compiled without autotuning, which needs a GPU; the others undo what makes the compiler of
# simulated devices fast (experiments.shared.simulation).
GPU_OPTIONS = {
    "xla_gpu_enable_triton_gemm": False, "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Target:
    """A topology of chips to compile for; the machine needs none of them."""

    name: str  # as given
    chip: Chip
    layout: tuple[int, ...]
    slices: int = 1

    @property
    def is_tpu(self) -> bool:
        """True if the chips are TPUs, whose compiler refuses what does not fit."""
        return self.chip.name in TPU_AXES

    @property
    def count(self) -> int:
        """The number of devices, as JAX sees them."""
        return math.prod(self.layout) * self.slices * DEVICES_A_CHIP.get(self.chip.name, 1)

    @property
    def limit(self) -> float:
        """The bytes of a device that a program may take: by the TPU's compiler, or a GPU's memory less GPU_RESERVE."""
        if self.is_tpu:
            return TPU_LIMITS[self.chip.name]
        return (1 - GPU_RESERVE) * GPUS[self.chip.name]["memory"]

    def compiler_options(self, effort: str) -> dict[str, Any]:
        """Returns the options of the target's compiler; `effort` is in EFFORTS and is the TPU compiler's."""
        return EFFORTS[effort] if self.is_tpu else GPU_OPTIONS

    @property
    def memory_source(self) -> str:
        """A sentence on where the verdict on memory comes from."""
        if self.is_tpu:
            return "the verdict is the TPU compiler's own"
        return (
            f"computed: arguments, temporaries and outputs within the GPU's memory less {GPU_RESERVE:.0%} (the GPU "
            "compiler enforces no limit; a run needs XLA_PYTHON_CLIENT_MEM_FRACTION=0.9, as JAX takes 0.75 by itself); "
            f"the chip's figures are those of openxla/xla, {GPUS[self.chip.name]['spec']}"
        )


def parse_target(text: str) -> Target:
    """Returns the target of a name such as "v5p:4x4x4", "v5e:16x16,slices=2" or "H100:1x8x8".

    Raises:
      UserError: the chip or the form of its topology is unknown, or no such topology exists.
    """
    example = "v5p:4x4x4, v5e:16x16,slices=2 or H100:1x8x8"
    given = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)*)(?:,slices=([1-9]\d*))?", text.strip(), re.ASCII)
    if not given:
        raise UserError(f"The target is '{text}'; expected a chip and its topology, such as {example}.")
    known = {name.lower(): name for name in (*TPU_AXES, *GPUS)}
    name = known.get(given[1].lower())
    if name is None:
        raise UserError(f"The target's chip is '{given[1]}'; known are {', '.join(known.values())}, as in {example}.")
    layout, slices, chip = tuple(int(size) for size in given[2].split("x")), int(given[3] or 1), CHIPS[name]
    axes = TPU_AXES.get(name, 3)
    if len(layout) != axes:
        form = "x".join("248"[:axes]) if name in TPU_AXES else "domains x servers x GPUs a server, as 1x8x8"
        raise UserError(f"The target's topology is '{given[2]}'; a {name} has {axes} numbers: {form}.")
    if name not in TPU_AXES and slices > 1:
        raise UserError(f"The target is '{text}'; of GPUs the first number counts domains, as in {name}:{slices}x1x8.")
    if name not in TPU_AXES and layout[2] > chip.domain:
        raise UserError(f"The target's servers have {layout[2]} GPUs; a server of {name} has at most {chip.domain}.")
    devices = math.prod(layout) * DEVICES_A_CHIP.get(name, 1)
    if name in TPU_AXES and devices > chip.domain:
        raise UserError(
            f"The target's topology '{given[2]}' has {devices} devices; a slice of {name} has at most {chip.domain}: "
            "join several by the network with ,slices=N."
        )
    return Target(text.strip(), chip, layout, slices)


def prepare(target: Target) -> None:
    """Sets the environment in which this process, on the CPU, compiles for a target; before JAX is loaded.

    Raises:
      UserError: the compiler is not installed.
    """
    package, extra = ("libtpu", "tpu") if target.is_tpu else ("jax_plugins.xla_cuda12", "cuda12")
    if not _has(package):
        raise UserError(
            f"The target {target.name} needs the compiler of its chip; pip install 'contextjax[{extra}]' installs it, "
            "in an environment of its own."
        )
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "JAX_ENABLE_COMPILATION_CACHE": "false"}


def devices_of(target: Target) -> list[Any]:
    """Returns the target's devices: programs can be compiled for them, but not run.

    Raises:
      UserError: another process uses the TPU compiler, or there is no such topology.
    """
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    try:
        if not target.is_tpu:
            config, layout = GPU_CONFIG.format(**GPUS[target.chip.name]), "x".join(map(str, target.layout))
            return topologies.get_topology_desc(platform="cuda", target_config=config, topology=layout).devices
        if target.slices > 1:
            options["num_slices"] = target.slices
        if target.chip.name == "v4":
            options["chip_config_name"] = "megacore"  # one device a chip, as JAX has it on the real ones
        if math.prod(target.layout) < 4:  # fewer chips than a whole host has
            options["chips_per_host_bounds"] = (*target.layout, 1)[:3]
        name = f"{target.chip.name}:{'x'.join(map(str, target.layout))}"
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except Exception as error:  # JaxRuntimeError, or what the plugin raises where it is loaded
        if "lock" in str(error).lower() or "already in use" in str(error):
            raise UserError(
                "Another process of this machine uses the TPU library, which allows one at a time; wait until it has "
                "ended, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1."
            ) from error
        if "INVALID_ARGUMENT" in str(error):
            reason = str(error).splitlines()[0].partition("INVALID_ARGUMENT: ")[2]
            raise UserError(f"There is no topology {target.name}: {reason}") from error
        raise


def needed_bytes(refusal: str) -> float | None:
    """Returns the bytes that the TPU compiler says a program needs, from its refusal; None: it does not say."""
    match = re.search(r"\((\d+(?:\.\d+)?)([KMGT])\) exceeds available", refusal) or re.search(
        r"Used (\d+(?:\.\d+)?)([KMGT]) of \d", refusal
    )
    return float(match[1]) * 1024 ** ("KMGT".index(match[2]) + 1) if match else None


def _has(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
