"""A training step of six layers, small enough that its collectives and FLOPs can be said by hand.

tests/analysis/programs has it as XLA's compilers made it for v5e:2x4 (libtpu 0.0.42.1) and H100:1x1x8 (jax 0.10.2) with
data:2,fsdp:4, and the ring form of the contrastive loss (16 rows of 256 numbers a device) for v5e:2x4.
`save(target)` makes the first two again; what only the compiler reads (backend_config, of the TPU) is left out.
"""

import gzip
import re
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

LAYERS, WIDTH, HIDDEN, ROWS = 6, 1024, 4096, 1024
PROGRAMS = Path(__file__).parent / "programs"


def saved(name):
    """The text of a saved program."""
    return gzip.decompress((PROGRAMS / f"{name}.txt.gz").read_bytes()).decode()


def lowered(mesh):
    """The step, lowered for a mesh; parameters are cut along fsdp, rows over data and fsdp."""
    rows = NamedSharding(mesh, P(("data", "fsdp")))

    def loss(params, x):
        def layer(x, kernels):
            up, down = (kernel.astype(jnp.bfloat16) for kernel in kernels)
            return jax.lax.with_sharding_constraint(x + jax.nn.gelu(x @ up) @ down, rows), None

        return (jax.lax.scan(jax.checkpoint(layer), x, params)[0].astype(jnp.float32) ** 2).mean()

    def step(params, x):
        value, gradients = jax.value_and_grad(loss)(params, x)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradients), value

    places = tuple(NamedSharding(mesh, P(*spec)) for spec in ((None, "fsdp", None), (None, None, "fsdp")))
    sizes = (LAYERS, WIDTH, HIDDEN), (LAYERS, HIDDEN, WIDTH)
    params = tuple(jax.ShapeDtypeStruct(s, jnp.float32, sharding=p) for s, p in zip(sizes, places, strict=True))
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.bfloat16, sharding=rows)
    return jax.jit(step, donate_argnums=0, out_shardings=(places, None)).lower(params, x)


def save(name):
    """Compiles the step for the target of this name and saves its text."""
    from contextjax.analysis.targets import devices_of, parse_target, prepare
    from contextjax.sharding import make_mesh

    target = parse_target(name)
    prepare(target)
    program = lowered(make_mesh("data:2,fsdp:4", devices=devices_of(target)))
    text = program.compile(compiler_options=target.compiler_options("default") or None).as_text()
    text = re.sub(r" stack_frame_id=\d+", "", text)
    text = re.sub(r", backend_config=\{.*$", "", text, flags=re.MULTILINE) if target.is_tpu else text
    (PROGRAMS / f"{target.chip.name.lower()}_fsdp.txt.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
