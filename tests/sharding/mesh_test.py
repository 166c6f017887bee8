"""Meshes from a line of config."""

import jax
import pytest

from contextjax.sharding import make_mesh, process_rows
from contextjax.sharding.mesh import parse_mesh
from contextjax.types import UserError


@pytest.mark.parametrize(
    ("text", "devices", "sizes"),
    [
        ("data:8", 8, (8, 1, 1)),
        ("data:-1", 8, (8, 1, 1)),
        ("data:-1", 1, (1, 1, 1)),
        ("data:4,tensor:2", 8, (4, 1, 2)),
        ("tensor:2, fsdp:-1", 8, (1, 4, 2)),
        ("data:2,fsdp:2,tensor:2", 8, (2, 2, 2)),
        ("data:-1,fsdp:8", 8, (1, 8, 1)),
    ],
)
def test_sizes(text, devices, sizes):
    assert tuple(parse_mesh(text, devices).items()) == tuple(zip(("data", "fsdp", "tensor"), sizes, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data",
        "data:",
        "data:x",
        "data:0",
        "data:-2",
        "data:8,tensor:-10",
        "data:--8",
        "data:²",
        "data:8.0",
        "model:8",
        "data:4",
        "data:3,fsdp:-1",
        "data:16",
        "data:16,fsdp:-1",
        "data:-1,fsdp:-1",
        "data:2,data:8",
    ],
)
def test_what_is_no_mesh_of_eight_devices_is_told(text):
    with pytest.raises(UserError, match="mesh"):
        parse_mesh(text, 8)


def test_the_mesh_is_of_all_devices():
    mesh = make_mesh("fsdp:4,data:2")
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert set(mesh.devices.ravel()) == set(jax.devices())


def test_a_batch_must_divide_over_the_batch_axes():
    assert process_rows(make_mesh("data:4,tensor:2"), 12).tolist() == list(range(12))
    with pytest.raises(UserError, match=r"batch_size is 12, but the mesh cuts a batch into 8 parts.*multiple of 8"):
        process_rows(make_mesh("data:4,fsdp:2"), 12)
