"""Name tables: which foreign tensors a parameter is made of, and how; usable in both directions.

A table maps our path, "vision/layer_{}/mlp/up/kernel", to a Source with the foreign names, where "{}" stands
for the number of the layer. Stacked parameters ("vision/layers/...", see models.layers.run_blocks) use the same rows.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from contextjax.pretrained.tensors import Tensor
from contextjax.types import UserError

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How foreign tensors become a parameter (`read`), and a parameter foreign tensors (`write`)."""

    read: Callable[..., Any]
    write: Callable[[Any], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Source:
    """Foreign names and their layout."""

    names: tuple[str, ...]
    layout: Layout


Table = Mapping[str, Source]

SAME = Layout(lambda x: x, lambda x: [x])
MATRIX = Layout(lambda x: x.T, lambda x: [x.T])  # PyTorch's Linear holds [out, in]
SEPARATE_QKV = Layout(lambda *qkv: np.stack([x.T for x in qkv], axis=1), lambda x: [x[:, i].T for i in range(3)])
SEPARATE_QKV_BIAS = Layout(lambda *qkv: np.stack(qkv), lambda x: [x[i] for i in range(3)])
FUSED_QKV = Layout(
    lambda x: x.reshape(3, -1, x.shape[1]).transpose(2, 0, 1),
    lambda x: [x.transpose(1, 2, 0).reshape(-1, x.shape[0])],
)
FUSED_QKV_BIAS = Layout(lambda x: x.reshape(3, -1), lambda x: [x.reshape(-1)])


def leading_ones(count: int) -> Layout:
    """A parameter that has `count` leading axes of size one elsewhere."""
    return Layout(lambda x: x.reshape(x.shape[count:]), lambda x: [x.reshape((1,) * count + x.shape)])


PATCHES = Layout(  # a convolution [out, channel, row, column] as a matrix over (row, column, channel)
    lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    lambda x: [x.reshape(*[math.isqrt(x.shape[0] // 3)] * 2, 3, x.shape[1]).transpose(3, 2, 0, 1)],
)


def linear(ours: str, theirs: str, *, bias: bool = True) -> dict[str, Source]:
    """The rows of a Linear."""
    rows = {f"{ours}/kernel": Source((f"{theirs}.weight",), MATRIX)}
    return rows | ({f"{ours}/bias": Source((f"{theirs}.bias",), SAME)} if bias else {})


def norm(ours: str, theirs: str) -> dict[str, Source]:
    """The rows of a LayerNorm."""
    return {f"{ours}/scale": Source((f"{theirs}.weight",), SAME), f"{ours}/bias": Source((f"{theirs}.bias",), SAME)}


def separate_attention(ours: str, theirs: Sequence[str], out: str) -> dict[str, Source]:
    """The rows of a self-attention whose query, key and value are three Linears elsewhere."""
    return {
        f"{ours}/qkv_kernel": Source(tuple(f"{name}.weight" for name in theirs), SEPARATE_QKV),
        f"{ours}/qkv_bias": Source(tuple(f"{name}.bias" for name in theirs), SEPARATE_QKV_BIAS),
        **linear(f"{ours}/out", out),
    }


def fused_attention(ours: str, weight: str, bias: str, out: str) -> dict[str, Source]:
    """The rows of a self-attention whose query, key and value are one Linear elsewhere, in this order."""
    return {
        f"{ours}/qkv_kernel": Source((weight,), FUSED_QKV),
        f"{ours}/qkv_bias": Source((bias,), FUSED_QKV_BIAS),
        **linear(f"{ours}/out", out),
    }


def pattern_of(path: str) -> str:
    """The path as a table has it, with "{}" for the number of the layer."""
    return re.sub(r"(^|/)(layer_\d+|layers)/", r"\1layer_{}/", path)


def own_table(paths: Iterable[str]) -> Table:
    """Our own names: the path with "." between its parts, the layers one by one also where they are stacked."""
    patterns = {pattern_of(path) for path in paths}
    return {pattern: Source((pattern.replace("/", "."),), SAME) for pattern in patterns}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A parameter that has not been read yet."""

    shape: Shape
    read: Callable[[], np.ndarray]


def bind(table: Table, shapes: Mapping[str, Shape]) -> dict[str, tuple[list[tuple[str, ...]], Layout, bool]]:
    """For each parameter path: foreign names (of each layer, where stacked), layout, whether it is stacked.

    Raises:
      UserError: the table has no row for a parameter.
    """
    bound, homeless = {}, []
    for path, shape in shapes.items():
        number = re.search(r"(^|/)layer_(\d+)/", path)
        stacked = "/layers/" in f"/{path}"
        pattern = pattern_of(path)
        if pattern not in table:
            homeless.append(path)
            continue
        numbers = range(shape[0]) if stacked else [number.group(2) if number else ""]
        names = [tuple(name.replace("{}", str(n)) for name in table[pattern].names) for n in numbers]
        bound[path] = (names, table[pattern].layout, stacked)
    if homeless:
        raise UserError(
            f"This format has no name for {len(homeless)} parameters of the model ({', '.join(homeless[:5])}); "
            "choose another format."
        )
    return bound


def match(table: Table, shapes: Mapping[str, Shape], tensors: Mapping[str, Tensor], *, where: str,
          ignored: str = "$^") -> tuple[dict[str, Leaf], list[str]]:  # fmt: skip
    """The parameters as unread leaves, and the tensors that were left out because they match `ignored`.

    Raises:
      UserError: tensors are unknown, missing, or of another shape; all of them are told.
    """
    leaves: dict[str, Leaf] = {}
    expected: dict[str, Shape] = {}
    for path, (names, layout, stacked) in bind(table, shapes).items():
        own = shapes[path][1:] if stacked else shapes[path]
        foreign = jax.eval_shape(layout.write, jax.ShapeDtypeStruct(own, np.float32))
        for group in names:
            expected |= {name: x.shape for name, x in zip(group, foreign, strict=True)}
        leaves[path] = Leaf(shapes[path], _reader([[tensors.get(n) for n in g] for g in names], layout, stacked))
    left_out = sorted(name for name in tensors if name not in expected and re.search(ignored, name))
    trouble = {
        "missing": sorted(set(expected) - set(tensors)),
        "unknown": sorted(set(tensors) - set(expected) - set(left_out)),
        "of another shape": [
            f"{name} {list(tensors[name].shape)}, expected {list(shape)}"
            for name, shape in sorted(expected.items())
            if name in tensors and tensors[name].shape != tuple(shape)
        ],
    }
    told = "; ".join(f"{len(names)} {kind} ({_list(names)})" for kind, names in trouble.items() if names)
    if told:
        raise UserError(f"{where} does not fit the model its config describes: {told}. Check config.json and weights.")
    return leaves, left_out


def write(table: Table, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Flat parameters (path -> array) as foreign tensors, contiguous."""
    tensors = {}
    for path, (names, layout, stacked) in bind(table, {p: tuple(x.shape) for p, x in params.items()}).items():
        value = np.asarray(params[path])
        for group, part in zip(names, value if stacked else [value], strict=True):
            tensors |= {n: np.asarray(x, order="C") for n, x in zip(group, layout.write(part), strict=True)}
    return tensors


def _reader(groups: list[list[Any]], layout: Layout, stacked: bool) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        parts = [np.asarray(layout.read(*(tensor.read() for tensor in group))) for group in groups]
        return np.stack(parts) if stacked else parts[0]

    return read


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def flatten(tree: Any) -> dict[str, Any]:
    """path/with/slashes -> leaf."""
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))[0]
    return {"/".join(key.key for key in path): leaf for path, leaf in paths}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict of a flat one."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree
