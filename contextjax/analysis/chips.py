"""Named chips, from their vendors' public data sheets as read on 2026-11-25 (tpu7x: 2026-11-28).

FLOP/s are dense (NVIDIA's sheets give twice as much, "with sparsity"). `link` is the bandwidth from a chip to the
others of its domain, in one direction: half of a sheet's bidirectional figure; for a TPU v4, the pod's all-reduce
bandwidth over its chips. `network` is the bandwidth beyond the domain. By default JAX multiplies float32 in bfloat16 on
TPUs, so a TPU has one figure; on GPUs `float32` is that of the float32 units (TF32, which XLA may choose, is faster).
"""

from __future__ import annotations

import dataclasses

from contextjax.types import UserError

T, G, GIB = 1e12, 1e9, 1 << 30
ATTAINABLE = 0.5  # share of a chip's peak that a step's matrix products reach: an assumption, not a measurement
USABLE = 0.9  # usable share of a chip's memory; the runtime takes the rest


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device of a chip as the compiler sees it: both cores of a TPU v4 or v5p, one of the two of a tpu7x."""

    name: str
    kinds: tuple[str, ...]  # values of jax.Device.device_kind
    bfloat16: float  # FLOP/s
    float32: float  # FLOP/s
    memory: float  # bytes
    bandwidth: float  # bytes/s of the memory
    link: float  # bytes/s to chips of its domain
    domain: int  # chips joined by links: a server (GPU) or a pod (TPU)
    network: float  # bytes/s beyond the domain; 0: not published
    source: str

    def peak(self, dtype: str) -> float:
        """Returns the peak FLOP/s of matrix products in "bfloat16" or "float32"."""
        return {"bfloat16": self.bfloat16, "float32": self.float32}[dtype]


_TPU = "docs.cloud.google.com/tpu/docs"
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip(
            "A100", ("NVIDIA A100-SXM4-80GB",), 312 * T, 19.5 * T, 80 * G, 2039 * G, 300 * G, 8, 25 * G,
            "NVIDIA A100 datasheet (SXM, 80 GB); DGX A100 datasheet: 8 x 200 Gb/s",
        ),
        Chip(
            "H100", ("NVIDIA H100 80GB HBM3",), 989.5 * T, 67 * T, 80 * G, 3350 * G, 450 * G, 8, 50 * G,
            "NVIDIA H100 datasheet (SXM); DGX H100 datasheet: 8 x 400 Gb/s",
        ),
        Chip(
            "H200", ("NVIDIA H200",), 989.5 * T, 67 * T, 141 * G, 4800 * G, 450 * G, 8, 50 * G,
            "NVIDIA H200 datasheet (SXM); DGX H200 datasheet: 8 x 400 Gb/s",
        ),
        Chip("v4", ("TPU v4",), 275 * T, 275 * T, 32 * GIB, 1200 * G, 268 * G, 4096, 0.0, f"{_TPU}/v4"),
        Chip(
            "v5e", ("TPU v5 lite", "TPU v5e"), 197 * T, 197 * T, 16 * GIB, 819 * G, 200 * G, 256, 3.125 * G,
            f"{_TPU}/v5e",
        ),
        Chip(
            "v5p", ("TPU v5", "TPU v5p"), 459 * T, 459 * T, 95 * GIB, 2765 * G, 600 * G, 6144, 6.25 * G,
            f"{_TPU}/v5p",
        ),
        Chip(
            "v6e", ("TPU v6 lite", "TPU v6e"), 918 * T, 918 * T, 32 * GIB, 1638 * G, 400 * G, 256, 12.5 * G,
            f"{_TPU}/v6e",
        ),
        Chip(  # one of its two cores, each a device with half of the memory and, here, half of the links
            "tpu7x", ("TPU7x",), 1153.5 * T, 1153.5 * T, 96 * GIB, 3690 * G, 300 * G, 18432, 6.25 * G, f"{_TPU}/tpu7x",
        ),
    )
}  # fmt: skip


def chip(name: str) -> Chip:
    """Returns the chip of this name, in upper or lower case.

    Raises:
      UserError: there is no such chip in the table.
    """
    for known in CHIPS.values():
        if known.name.lower() == name.lower():
            return known
    raise UserError(f"The chip is '{name}'; known are {', '.join(CHIPS)}.")


def chip_of_kind(kind: str) -> Chip | None:
    """Returns the chip of a jax.Device.device_kind; None for a CPU and for chips that are not in the table."""
    return next((known for known in CHIPS.values() if kind in known.kinds), None)
