"""LoRA (Hu et al. 2021, arXiv 2106.09685): the product of two thin matrices is added to each of some frozen ones.

The adapters are parameters beside the model's own: "lora/PATH_OF_A_KERNEL/a" and ".../b". No model sees them: `merge`
computes the effective kernels, kernel + alpha / rank * a @ b, inside the compiled step. The frozen parameters are the
base. They are those of the run or the published model that training starts from, so checkpoints leave them out and hold
their digest.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from contextjax.optim import KERNELS, STACK, along, under
from contextjax.types import UserError

NAME, KEY = "lora", "model.lora.paths"


@dataclasses.dataclass(frozen=True)
class Lora:
    """The adapters of a model.

    Attributes:
      rank: the rank of each product; query, key and value have a product each.
      alpha: a product is scaled by alpha / rank.
      paths: beginnings of parameters' paths, as optimizer.freeze has them; the matrices under them have adapters.
    """

    rank: int
    alpha: float
    paths: tuple[str, ...]

    def add(self, params: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        """Returns fresh parameters, boxed with logical axes or not, with adapters whose products are 0."""
        adapters, flat = {}, _flat(params)
        for number, path in enumerate(self._marks(params)):
            adapters |= {f"{path}/{name}": x for name, x in self._adapter(path, flat[path], key, number).items()}
        return {**params, NAME: _nested(adapters)}

    def merge(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the model's own parameters with the products added, in float32."""
        own = {name: x for name, x in params.items() if name != NAME}
        flat, adapters = _flat(own), _flat(params[NAME])
        for path, mark in self._marks(own).items():
            change = self.alpha / self.rank * _product(path)(adapters[f"{path}/a"], adapters[f"{path}/b"])
            flat[path] = flat[path] + (jnp.where(along(mark, change), change, 0) if np.ndim(mark) else change)
        return _nested(flat)

    def check(self, params: Mapping[str, Any], frozen: Sequence[str]) -> None:
        """Checks the paths against a model's parameters or their shapes.

        Raises:
          UserError: there is no path; a path names nothing, or no matrix; or a matrix with an adapter is not frozen.
        """
        if not self.paths:
            raise UserError(
                f"model.lora.rank is {self.rank}, but {KEY} is empty; name parameters, as ('clip/vision',)."
            )
        for path in self.paths:
            named = [name for name, mark in _flat(under(path, key=KEY)(params)).items() if np.any(mark)]
            if not any(map(_is_matrix, named)):
                raise UserError(
                    f"{KEY} names '{path}', where there is no matrix but {named[0]}; name a part with some."
                )
        is_frozen = _flat(under(*frozen)(params))
        if trained := [path for path in self._marks(params) if not np.all(is_frozen[path])]:
            raise UserError(
                f"{trained[0]} has an adapter and is trained itself; add it, or the part that it is in, to "
                "optimizer.freeze."
            )

    def _marks(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns path -> mark (see optim.under) of the matrices that have adapters."""
        marks = _flat(under(*self.paths, key=KEY)(nn.unbox(params)))
        return {path: mark for path, mark in marks.items() if _is_matrix(path) and np.any(mark)}

    def _adapter(self, path: str, kernel: Any, key: jax.Array, number: int) -> dict[str, Any]:
        """Returns a [..., rank], drawn as PyTorch draws a Linear's weights, and b [..., rank, output], which is 0."""
        shape, axes = getattr(kernel, "value", kernel).shape, getattr(kernel, "names", ())
        *lead, last = range(len(shape))
        apart = [i for i in lead if i in _apart(path, shape)]  # the axes that count matrices
        sides = {"a": lead, "b": [*apart, last]}
        sizes = {"a": (*(shape[i] for i in lead), self.rank), "b": (*(shape[i] for i in apart), self.rank, shape[last])}
        bound = math.prod(shape[i] for i in lead if i not in apart) ** -0.5
        draw = jax.random.uniform(jax.random.fold_in(key, number), sizes["a"], jnp.float32, -bound, bound)
        adapter = {"a": draw, "b": jnp.zeros(sizes["b"], jnp.float32)}
        if not axes:
            return adapter
        names = {name: [axes[i] for i in side] for name, side in sides.items()}
        names["a"].append(None)
        names["b"].insert(len(apart), None)
        return {name: kernel.replace(value=x, names=tuple(names[name])) for name, x in adapter.items()}


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns path -> leaf, which may be boxed."""
    flat: Any = flatten_dict(tree, sep="/")
    return flat


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    return unflatten_dict(flat, sep="/")


def _is_matrix(path: str) -> bool:
    return path.rpartition("/")[2] in KERNELS


def _is_stacked(path: str) -> bool:
    return STACK in path.split("/")


def _apart(path: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the axes of a kernel that count matrices: a stack's layers; query, key and value."""
    stack = (0,) if _is_stacked(path) else ()
    return (*stack, len(shape) - 2) if path.endswith("qkv_kernel") else stack


def _product(path: str) -> Any:
    """Returns the function (a, b) -> a @ b of a kernel's adapter; inputs may have several axes."""
    axes = "itr,tro->ito" if path.endswith("qkv_kernel") else "...r,ro->...o"
    multiply = functools.partial(jnp.einsum, axes, precision=jax.lax.Precision.HIGHEST)
    return jax.vmap(multiply) if _is_stacked(path) else multiply


@dataclasses.dataclass(frozen=True)
class Adapted:
    """An objective that is given parameters with adapters, and represents batches with the merged ones."""

    objective: Any
    lora: Lora

    def represent(self, params: Any, batch: Any, rng: Any) -> dict[str, Any]:
        """Returns all that the terms compare."""
        return self.objective.represent(self.lora.merge(params), batch, rng)

    @property
    def diagnose(self) -> Any:
        """The function `diagnose` of the objective, which is given the merged parameters."""
        run = self.objective.diagnose
        return lambda params, batch: run(self.lora.merge(params), batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)


# ------------------------------------------------------------------------------------------ the base


def split(params: Mapping[str, Any], frozen: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the parameters that are trained, and the base: those that are frozen as a whole."""
    flat, marks = _flat(params), _flat(under(*frozen)(params))
    parts = [{path: x for path, x in flat.items() if bool(np.all(marks[path])) is part} for part in (False, True)]
    trained, base = map(_nested, parts)
    return trained, base


def join(trained: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that `split` was given."""
    return _nested({**_flat(trained), **_flat(base)})


def digest(params: Mapping[str, Any]) -> str:
    """Returns a digest of parameters, sixteen hex digits of their paths, shapes and bits, whatever their sharding."""
    sums = {path: (list(x.shape), np.asarray(_sums(x)).tolist()) for path, x in _flat(params).items()}
    return hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()[:16]


@jax.jit
def _sums(x: Any) -> Any:
    """Returns two sums uint32 [2] of an array's numbers, each mixed with its place: no shard has to be moved."""
    bits = jax.lax.bitcast_convert_type(jnp.asarray(x, jnp.float32), jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    mixed = bits ^ (place * np.uint32(0x9E3779B1))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the constants of MurmurHash3's finalizer
        mixed = (mixed ^ (mixed >> shift)) * np.uint32(factor)
    mixed = mixed ^ (mixed >> 16)
    return jnp.stack([mixed.sum(dtype=jnp.uint32), (mixed * (mixed | 1) ^ place).sum(dtype=jnp.uint32)])
