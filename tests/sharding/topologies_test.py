"""Meshes on the topologies of real TPUs, which their library describes on any machine."""

import pytest

from contextjax.analysis.targets import devices_of, parse_target, prepare
from contextjax.sharding import make_mesh
from contextjax.types import UserError

pytest.importorskip("libtpu", reason="the extra [tpu] is not installed")
TOPOLOGIES = (
    "v4:4x4x4", "v5e:2x4", "v5e:16x16", "v5e:16x16,slices=2", "v5p:2x2x1", "v5p:4x4x4", "v5p:4x8x8", "v5p:16x16x16",
    "v6e:8x8", "v6e:16x16", "v6e:16x16,slices=16", "tpu7x:4x4x4", "tpu7x:2x2x1",
)  # fmt: skip


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_mesh_can_be_laid_out(name, monkeypatch):
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # another worker may be at it
    target = parse_target(name)
    prepare(target)
    devices = devices_of(target)
    assert len(devices) == target.count
    powers = [2**i for i in range(target.count.bit_length()) if 2**i <= target.count]
    for fsdp in powers:
        for tensor in (size for size in (1, 2, 8) if fsdp * size <= target.count):
            data = target.count // fsdp // tensor
            mesh = make_mesh(f"data:{data},fsdp:{fsdp},tensor:{tensor}", devices=devices)
            assert tuple(mesh.shape.values()) == (data, fsdp, tensor)
            assert len({device.id for device in mesh.devices.ravel()}) == target.count
            if target.slices > 1 and data % target.slices == 0:  # data across the slices, the other axes within
                slices = [{device.slice_index for device in row.ravel()} for row in mesh.devices]
                assert all(len(each) == 1 for each in slices)


def test_a_mesh_that_does_not_fill_the_topology_is_refused(monkeypatch):
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    target = parse_target("v5e:2x4")
    prepare(target)
    with pytest.raises(UserError, match="mesh 'data:4' needs 4 of devices, but there are 8"):
        make_mesh("data:4", devices=devices_of(target))
    with pytest.raises(UserError, match="no topology v5e:3x3"):
        devices_of(parse_target("v5e:3x3"))
    assert make_mesh("data:-1", devices=devices_of(parse_target("v5e:1x1"))).size == 1
