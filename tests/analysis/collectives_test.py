"""Bytes of collectives: of programs compiled here, by the formulas; and of other backends' notations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from contextjax.analysis.collectives import KINDS, bytes_by_type, bytes_sent, collectives
from tests.analysis.small_programs import HIDDEN, LAYERS, WIDTH, saved


def compiled(body, *, rows=16):
    """The text of `body` over a mesh of 2 x 4 devices; a device has float32 [rows / 8, 3]."""
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    spec = P(("a", "b"))
    program = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    return program.lower(jax.ShapeDtypeStruct((rows, 3), jnp.float32)).compile().as_text()


@pytest.mark.parametrize(
    ("kind", "body", "share"),
    [  # `share` of the bytes that a device holds
        ("all-gather", lambda x: x + jax.lax.all_gather(x, "b").sum(0), 3.0),
        ("all-reduce", lambda x: jax.lax.psum(x, "b"), 2 * 3 / 4),
        ("all-reduce", lambda x: jax.lax.psum(x, ("a", "b")), 2 * 7 / 8),
        ("reduce-scatter", lambda x: jax.lax.psum_scatter(x, "a", tiled=True), 1 / 2),
        ("all-to-all", lambda x: jax.lax.all_to_all(x, "a", 0, 0, tiled=True), 1 / 2),
        ("collective-permute", lambda x: jax.lax.ppermute(x, "b", [(i, (i + 1) % 4) for i in range(4)]), 1.0),
    ],
)
def test_each_kind_by_its_formula(kind, body, share):
    rows = np.random.default_rng(int(1000 * share)).integers(1, 9) * 16
    sent = bytes_sent(collectives(compiled(body, rows=int(rows))))
    assert sent == dict.fromkeys(KINDS, 0.0) | {kind: share * rows / 8 * 3 * 4}


def test_a_loop_counts_as_often_as_it_runs():
    ring = [(i, (i + 1) % 8) for i in range(8)]

    def body(x):
        def inner(x, _):
            return jax.lax.ppermute(x, ("a", "b"), ring) * 2, None

        def outer(x, _):
            return jax.lax.psum(jax.lax.scan(inner, x, None, length=5)[0], ("a", "b")) + x, None

        return jax.lax.scan(outer, x, None, length=3)[0]

    found = collectives(compiled(body))
    assert {(c.kind, c.times, c.is_exact) for c in found} == {("collective-permute", 15, True), ("all-reduce", 3, True)}
    assert all("while/body" in c.source for c in found)


def test_a_loop_of_unknown_length_says_so_and_counts_once():
    def body(x):
        return jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: jax.lax.psum(x, "a") + 1, x)

    (found,) = collectives(compiled(body))
    assert (found.times, found.is_exact) == (1, False)


@pytest.mark.parametrize(("axes", "group", "span"), [("a", 2, 5), ("b", 4, 4), (("a", "b"), 8, 8)])
def test_how_many_take_part_and_how_far_they_reach(axes, group, span):
    (found,) = collectives(compiled(lambda x: jax.lax.psum(x, axes)))
    assert (found.group, found.span) == (group, span)


def test_groups_by_the_axes_of_a_mesh():
    """XLA writes them so where a partitioned program has them from the compiler, not from shard_map."""
    line = "  ROOT %r = f32[8]{0} all-reduce(%x), replica_groups=GROUP, to_apply=%a"
    text = f"HloModule m, num_partitions=8\n\nENTRY %m () -> f32[8] {{\n{line}\n}}\n"

    def found(groups):
        (operation,) = collectives(text.replace("GROUP", groups))
        return operation.group, operation.span

    mesh = "mesh['axis_0'=4,'axis_1'=1,'axis_2'=2]"
    assert found(mesh + " {'axis_2'}") == (2, 2)
    assert found(mesh + " {'axis_0'}") == (4, 7)
    assert found(mesh + " {'axis_0','axis_2'}") == (8, 8)
    assert found("mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_1'}") == (2, 5)
    assert found("mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}") == (4, 4)
    with pytest.raises(ValueError, match="unknown way"):
        found("mesh['axis_0'=4,'axis_1'=2] {'axis_0':(1)2}")


def test_a_program_without_collectives_sends_nothing():
    assert not collectives(compiled(lambda x: x * 2))
    with pytest.raises(ValueError, match="ENTRY"):
        collectives("no program")


ASYNC = """HloModule m, is_scheduled=true, replica_count=1, num_partitions=8

%wrapped (p: bf16[64]) -> bf16[8] {
  %p = bf16[64]{0} parameter(0)
  ROOT %rs = bf16[8]{0} reduce-scatter(%p), channel_id=5, replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
}

%small (q: f32[8]) -> f32[8] {
  ROOT %q = f32[8]{0} parameter(0)
}

%large (r: f32[8]) -> f32[8] {
  %r = f32[8]{0} parameter(0)
  ROOT %ar = f32[8]{0} all-reduce(%r), channel_id=6, replica_groups={}, to_apply=%add
}

ENTRY %main (x: bf16[64], y: f32[8]) -> f32[8] {
  %x = bf16[64]{0:T(1024)} parameter(0)
  %ag = (bf16[64]{0:T(1024)}, bf16[256]{0:T(1024)S(1)}) all-gather-start(%x), replica_groups=[2,4]<=[4,2]T(1,0)
  %agd = bf16[256]{0} all-gather-done(%ag)
  %cp = (bf16[64]{0}, bf16[64]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), PAIRS
  %cpd = bf16[64]{0} collective-permute-done(%cp)
  %home = bf16[64]{0} collective-permute(%x), source_target_pairs={{0,0},{1,1}}
  %many = (f32[8]{0}, /*index=1*/f8e4m3fn[16]{0}) all-reduce-start(%y, %z), PAIRED, to_apply=%add
  %manyd = (f32[8]{0}, f8e4m3fn[16]{0}) all-reduce-done(%many)
  %rss = ((bf16[64]{0}), bf16[8]{0}, u32[]) async-start(%x), calls=%wrapped
  %rsd = bf16[8]{0} async-done(%rss), calls=%wrapped
  %a2a = ((s4[64]{0}), s4[64]{0}) all-to-all-start(%w), replica_groups={{0,1,2,3}}
  ROOT %either = f32[8]{0} conditional(%index, %y, %y), branch_computations={%small, %large}
}
""".replace("PAIRS", "source_target_pairs={{0,1},{1,0}}").replace("PAIRED", "replica_groups={{0,1},{2,3},{4,5},{6,7}}")


def test_asynchronous_forms_and_other_notations():
    assert bytes_sent(collectives(ASYNC)) == {
        "all-gather": 512 * 3 / 4,
        "collective-permute": 128,
        "all-reduce": (32 + 16) * 2 / 2 + 32 * 2 * 7 / 8,
        "reduce-scatter": 16 * 7,
        "all-to-all": 32 * 3 / 4,
    }
    with pytest.raises(ValueError, match="unknown way"):
        collectives(ASYNC.replace("replica_groups={}", "replica_groups=mesh"))


@pytest.mark.parametrize("name", ["v5e_fsdp", "h100_fsdp"])
def test_programs_of_real_compilers_by_the_formulas(name):
    """Two kernels a layer: gathered for both passes, gradients scattered over fsdp:4 and added up over data:2."""
    found = collectives(saved(name))
    kernel = WIDTH * HIDDEN * 2  # bytes, bfloat16
    sent = bytes_by_type(found)
    assert sent["all-gather"] == {"bf16": 4 * LAYERS * kernel * 3 / 4}
    assert sent["all-reduce"] == {"bf16": 2 * LAYERS * kernel / 4, "f32": 2 * 4 * 7 / 8}
    scattered = 2 * LAYERS * kernel * 3 / 4
    assert scattered <= sent["reduce-scatter"]["bf16"] < 1.02 * scattered  # the TPU fills rows up to whole tiles
    assert all(operation.is_exact for operation in found)


def test_a_ring_of_a_real_compiler_by_the_formula():
    """Embeddings of 16 rows go to 7 other devices three times; a channel's number is no key of a permutation."""
    sent = [c for c in collectives(saved("v5e_ring")) if c.kind == "collective-permute" and c.sent == 16 * 256 * 4]
    assert [operation.times for operation in sent] == [7, 7, 7]
