"""How tests run commands in processes of their own."""

import os

# A third of the time to compile a training step; the tests compile much and run little.
FAST_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)


def environment(*, devices: int = 1, **more: str) -> dict[str, str]:
    """This process's, with so many CPU devices, and programs compiled as fast as can be: little of them is run."""
    flags = f"--xla_force_host_platform_device_count={devices} {FAST_COMPILATION}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **more}
