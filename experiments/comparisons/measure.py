"""What a comparison of speed needs: rounds of alternating timings, model FLOPs, the machine, a Markdown table."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contextjax.models.clip import CLIPConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison: a program at a batch size and a number type; times are seconds per call, a round each."""

    name: str
    batch: int
    dtype: str
    flops: float
    difference: float
    ours: list[float]
    theirs: list[float]
    matmul: list[float]  # FLOP/s of a large matmul, in the same rounds

    def summary(self) -> dict[str, Any]:
        """Medians over the rounds; `ratio` is the median of the rounds' ratios, theirs / ours."""
        ratios = [b / a for a, b in zip(self.ours, self.theirs, strict=True)]
        roofline = [self.flops / t / rate for t, rate in zip(self.ours, self.matmul, strict=True)]
        return {
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "images_per_second": self.batch / statistics.median(self.ours),
            "pytorch_images_per_second": self.batch / statistics.median(self.theirs),
            "roofline": statistics.median(roofline),
            "matmul_gflops": statistics.median(self.matmul) / 1e9,
        }


def rounds(programs: Sequence[Callable[[], Any]], count: int, *, seconds: float = 1.5) -> list[list[float]]:
    """Seconds per call of each program: `count` rounds, all programs in turn in each, `seconds` or more for each.

    A program returns when its work is done. The order turns about from round to round, so none is always first.
    """
    repeats, times = [], [[] for _ in programs]
    for program in programs:
        program()  # compiles, allocates
        repeats.append(max(1, round(0.5 + seconds / _seconds(program, 1))))
    for number in range(count):
        order = range(len(programs))
        for i in order if number % 2 == 0 else reversed(order):
            times[i].append(_seconds(programs[i], repeats[i]))
    return times


def _seconds(program: Callable[[], Any], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        program()
    return (time.perf_counter() - begin) / repeats


def image_flops(c: VisionConfig, projection: int) -> float:
    """FLOPs of one picture's embedding: two for each multiply-add of its matrix products, nothing else counted."""
    patches = (c.image_size // c.patch_size) ** 2
    return _blocks(c, patches + 1) + _patch_embedding(c) + 2 * c.width * projection


def text_flops(c: TextConfig, projection: int, *, length: int) -> float:
    """FLOPs of one text's embedding; attention is counted whole, though causal."""
    return _blocks(c, length) + 2 * c.width * projection


def step_flops(c: CLIPConfig, batch: int, *, length: int) -> float:
    """FLOPs of a training step: the forward pass three times, less the gradient by the pixels, which nobody needs."""
    forward = image_flops(c.vision, c.projection) + text_flops(c.text, c.projection, length=length)
    return batch * (3 * forward - _patch_embedding(c.vision) + 3 * 2 * batch * c.projection)


def _blocks(c: VisionConfig | TextConfig, tokens: int) -> float:
    dense = 2 * tokens * (4 * c.width**2 + 2 * c.width * c.mlp)
    return c.layers * (dense + 2 * 2 * tokens**2 * c.width)


def _patch_embedding(c: VisionConfig) -> float:
    return 2 * (c.image_size // c.patch_size) ** 2 * 3 * c.patch_size**2 * c.width


def limit_threads(threads: int) -> None:
    """Keeps this process to the first `threads` of its cores. Before jax is imported: it sizes its pool by them.

    Raises:
      UserError: the machine has fewer.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < threads:
        raise UserError(f"--threads is {threads}; this machine offers {len(cores)} cores.")
    os.sched_setaffinity(0, cores[:threads])


def keep_memory() -> bool:
    """Has glibc keep freed memory for the next step, for all libraries of this process; False where there is no glibc.

    It gives large buffers back to the system at each call otherwise, which zeroes them anew, page by page: a sixth of a
    training step's time. Before threads start.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    arena_max, mmap_max, trim_threshold = -8, -4, -1
    # One arena: those of threads fall back on mmap for what is large.
    return all(mallopt(name, value) for name, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, -1)))


def cpu_model() -> str:
    """The processor's name, with the matrix extensions that bfloat16 depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = info.get("flags", "").split()
    extensions = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    model = info.get("model name", platform.processor())
    return f"{model}, family {info.get('cpu family')} model {info.get('model')} ({', '.join(extensions)})"


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of the rows."""
    columns = "row", "images/s", "PyTorch images/s", "ratio (min to max)", "of the matmul roofline", "max difference"
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows:
        s = row.summary()
        cells = (
            f"{row.name}, batch {row.batch}, {row.dtype}",
            f"{s['images_per_second']:.2f}",
            f"{s['pytorch_images_per_second']:.2f}",
            f"{s['ratio']:.2f}x ({s['ratio_min']:.2f} to {s['ratio_max']:.2f})",
            f"{100 * s['roofline']:.0f} % of {s['matmul_gflops']:.0f} GFLOP/s",
            f"{row.difference:.1e}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
