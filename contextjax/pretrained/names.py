"""Name tables: the foreign tensors of which each parameter is made, and how, for reading and for writing.

A table maps our path, such as "vision/layer_{}/mlp/up/kernel", to the foreign names, where "{}" stands for the number
of the layer. Stacked parameters ("vision/layers/...", see models.layers.run_blocks) use the same rows.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from contextjax.pretrained.tensors import FLOATS, Tensor
from contextjax.types import UserError

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Conversion of foreign tensors to a parameter (`read`) and of a parameter to foreign tensors (`write`)."""

    read: Callable[..., Any]
    write: Callable[[Any], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class ForeignTensors:
    """The names of the foreign tensors that make one parameter, and their layout."""

    names: tuple[str, ...]
    layout: Layout


NameTable = Mapping[str, ForeignTensors]

SAME = Layout(lambda x: x, lambda x: [x])
MATRIX = Layout(lambda x: x.T, lambda x: [x.T])  # PyTorch's Linear is [out, in]
SEPARATE_QKV = Layout(lambda *qkv: np.stack([x.T for x in qkv], axis=1), lambda x: [x[:, i].T for i in range(3)])
SEPARATE_QKV_BIAS = Layout(lambda *qkv: np.stack(qkv), lambda x: [x[i] for i in range(3)])
FUSED_QKV = Layout(
    lambda x: x.reshape(3, -1, x.shape[1]).transpose(2, 0, 1),
    lambda x: [x.transpose(1, 2, 0).reshape(-1, x.shape[0])],
)
FUSED_QKV_BIAS = Layout(lambda x: x.reshape(3, -1), lambda x: [x.reshape(-1)])


def leading_ones(count: int) -> Layout:
    """Returns the layout of a foreign tensor with `count` leading axes of size one."""
    return Layout(lambda x: x.reshape(x.shape[count:]), lambda x: [x.reshape((1,) * count + x.shape)])


PATCHES = Layout(  # a convolution [out, channel, row, column] becomes a matrix over (row, column, channel)
    lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    lambda x: [x.reshape(*[math.isqrt(x.shape[0] // 3)] * 2, 3, x.shape[1]).transpose(3, 2, 0, 1)],
)


def linear(ours: str, theirs: str, *, bias: bool = True) -> dict[str, ForeignTensors]:
    """Returns the rows of a Linear."""
    rows = {f"{ours}/kernel": ForeignTensors((f"{theirs}.weight",), MATRIX)}
    return rows | ({f"{ours}/bias": ForeignTensors((f"{theirs}.bias",), SAME)} if bias else {})


def norm(ours: str, theirs: str) -> dict[str, ForeignTensors]:
    """Returns the rows of a LayerNorm."""
    return {
        f"{ours}/scale": ForeignTensors((f"{theirs}.weight",), SAME),
        f"{ours}/bias": ForeignTensors((f"{theirs}.bias",), SAME),
    }


def norms_and_mlp(ours: str, theirs: str, *, norms: Sequence[str], mlp: Sequence[str]) -> dict[str, ForeignTensors]:
    """Returns the rows of a pre-LN block but for its attention: both LayerNorms, and both layers of the MLP."""
    rows = norm(f"{ours}/attention_norm", f"{theirs}.{norms[0]}") | norm(f"{ours}/mlp_norm", f"{theirs}.{norms[1]}")
    return rows | linear(f"{ours}/mlp/up", f"{theirs}.{mlp[0]}") | linear(f"{ours}/mlp/down", f"{theirs}.{mlp[1]}")


def separate_attention(ours: str, theirs: Sequence[str], out: str) -> dict[str, ForeignTensors]:
    """Returns the rows of a self-attention whose query, key and value are three foreign Linears."""
    return {
        f"{ours}/qkv_kernel": ForeignTensors(tuple(f"{name}.weight" for name in theirs), SEPARATE_QKV),
        f"{ours}/qkv_bias": ForeignTensors(tuple(f"{name}.bias" for name in theirs), SEPARATE_QKV_BIAS),
        **linear(f"{ours}/out", out),
    }


def fused_attention(ours: str, weight: str, bias: str, out: str) -> dict[str, ForeignTensors]:
    """Returns the rows of a self-attention whose query, key and value are one foreign Linear, in this order."""
    return {
        f"{ours}/qkv_kernel": ForeignTensors((weight,), FUSED_QKV),
        f"{ours}/qkv_bias": ForeignTensors((bias,), FUSED_QKV_BIAS),
        **linear(f"{ours}/out", out),
    }


def pattern_of(path: str) -> str:
    """Returns the path as in a table, with "{}" for the number of the layer."""
    return re.sub(r"(^|/)(layer_\d+|layers)/", r"\1layer_{}/", path)


def own_table(paths: Iterable[str]) -> NameTable:
    """Returns the table of our own names: the path with "." for "/", stacked layers one by one."""
    patterns = {pattern_of(path) for path in paths}
    return {pattern: ForeignTensors((pattern.replace("/", "."),), SAME) for pattern in patterns}


def restack(params: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Returns flat parameters, with the layers stacked that `shapes` (path -> shape) has stacked."""
    flat: dict[str, Any] = {}
    for path, value in params.items():
        head, stack, tail = f"/{path}".partition("/layers/")
        layers = {f"{head}/layer_{i}/{tail}"[1:]: value[i] for i in range(len(value))} if stack else {path: value}
        flat |= layers
    for path, shape in shapes.items():
        head, stack, tail = f"/{path}".partition("/layers/")
        names = [f"{head}/layer_{i}/{tail}"[1:] for i in range(shape[0])] if stack else []
        if names and all(name in flat for name in names):
            flat[path] = np.stack([flat.pop(name) for name in names])
    return flat


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A parameter that is not read yet."""

    shape: Shape
    read: Callable[[], np.ndarray]


def bind(table: NameTable, shapes: Mapping[str, Shape]) -> dict[str, tuple[list[tuple[str, ...]], Layout, bool]]:
    """Looks parameters up in a table.

    Returns:
      path -> (foreign names, those of each layer for stacked parameters; layout; True for stacked parameters).

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


def match(table: NameTable, shapes: Mapping[str, Shape], tensors: Mapping[str, Tensor], *, where: str,
          ignored: str = "$^") -> tuple[dict[str, Leaf], list[str]]:  # fmt: skip
    """Matches a checkpoint's tensors with a model's parameters.

    Args:
      table: the names.
      shapes: path -> shape of each parameter.
      tensors: the checkpoint's.
      where: the checkpoint's name in messages.
      ignored: pattern of the names of tensors that are not needed.

    Returns:
      (path -> unread parameter, names of the tensors that were not needed).

    Raises:
      UserError: tensors are unknown, missing, or of another shape; the message counts and lists them.
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
        f"of a type other than {', '.join(sorted(FLOATS))}": [
            f"{name} {tensors[name].dtype}"
            for name in sorted(expected)
            if name in tensors and not tensors[name].is_float
        ],
    }
    listed = "; ".join(f"{len(names)} {kind} ({_list(names)})" for kind, names in trouble.items() if names)
    if listed:
        raise UserError(
            f"{where} does not fit the model its config describes: {listed}. Check config.json and weights."
        )
    return leaves, left_out


def write(table: NameTable, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns flat parameters (path -> array) as contiguous foreign tensors."""
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
    """Flattens a nested dict to path/with/slashes -> leaf."""
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))[0]
    return {"/".join(key.key for key in path): leaf for path, leaf in paths}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict of a flat one."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree
