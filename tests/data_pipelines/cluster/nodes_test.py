"""Connections to a cluster, and what is found before work begins: no cluster, other versions, folders of one node."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contextjax.types import UserError
from data_pipelines.cluster import nodes
from data_pipelines.cluster.nodes import connected
from tests.clusters import add_node, local_cluster, needs_ray
from tests.commands import ROOT

pytestmark = [needs_ray, pytest.mark.filterwarnings("default")]  # Ray deprecates settings that it makes itself


needs_namespaces = pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0,
    reason="mount namespaces need root",
)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("address", ["ray://host:10001", "host", "host:port", "", "a b:1"])
def test_an_address_has_a_host_and_a_port(address):
    with pytest.raises(UserError, match=r"expected auto or HOST:PORT"), connected(address):
        pass


def test_a_cluster_that_is_away_is_reported_at_once():
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"There is no Ray cluster at 127\.0\.0\.1:\d+ .*ray start --head"):
        nodes._reachable(f"127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"There is no Ray cluster at 127\.0\.0\.1:99999"):
        nodes._reachable("127.0.0.1:99999")
    assert time.monotonic() - begin < 5


def test_no_cluster_on_this_machine(monkeypatch):
    def missing(address):
        raise ConnectionError(address)

    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", missing)
    with pytest.raises(UserError, match=r"--cluster=auto finds no Ray cluster on this machine"):
        nodes._reachable("auto")


def test_a_server_that_is_no_cluster(monkeypatch):
    monkeypatch.setattr(nodes, "PATIENCE", 0.5)
    monkeypatch.setattr(nodes, "_greet", lambda address: time.sleep(2))
    slow = pytest.raises(UserError, match=r"does not answer as a Ray cluster within 0\.5 s")
    with socket.create_server(("127.0.0.1", 0)) as server, slow:
        nodes._reachable(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.long
def test_a_cluster_whose_nodes_see_the_folders_is_given(tmp_path):
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "a.png").write_bytes(b"x")
    cluster = local_cluster()
    before = signal.getsignal(signal.SIGTERM)
    with connected(cluster.address, reads=[tmp_path / "read"], writes=tmp_path / "new" / "written"):
        assert signal.getsignal(signal.SIGTERM) is before
    assert list((tmp_path / "new" / "written").iterdir()) == []


@pytest.mark.long
def test_a_node_that_is_lost_before_it_is_asked_is_passed_over(tmp_path, monkeypatch):
    cluster = local_cluster()
    node = add_node(cluster)
    describer = nodes._describer

    def lose():
        cluster.remove_node(node, allow_graceful=False)
        return describer()

    with connected(cluster.address):
        listed = nodes.ray_library().nodes()
    monkeypatch.setattr(nodes, "_describer", lose)
    monkeypatch.setattr("ray.nodes", lambda: listed)  # as the cluster does for some seconds
    with connected(cluster.address, writes=tmp_path / "written"):
        pass


@contextlib.contextmanager
def node_that_sees(mount: str, address: str):
    """A fourth node, in a mount namespace of its own, in which the shell command `mount` has been run."""
    import ray

    start = f"{mount} && exec {Path(sys.executable).parent / 'ray'} start --address={address} --num-cpus=1 --block"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(["unshare", "-m", "sh", "-c", start], start_new_session=True, env=env)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
        before = time.monotonic() + 100
        while sum(node["Alive"] for node in ray.nodes()) < 4:
            assert time.monotonic() < before and process.poll() is None
            time.sleep(0.2)
        ray.shutdown()
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.long
@needs_namespaces
def test_a_node_with_other_code_is_named(tmp_path):
    shutil.copytree(ROOT / "contextjax", tmp_path / "contextjax")
    with (tmp_path / "contextjax" / "types.py").open("a") as file:
        file.write("\n# another version\n")
    cluster = local_cluster()
    other = pytest.raises(UserError, match=r"Node .* has contextjax \w+, and this machine \w+ \(a hash")
    mount = f"mount --bind {tmp_path / 'contextjax'} {ROOT / 'contextjax'}"
    with node_that_sees(mount, cluster.address), other, connected(cluster.address):
        pass


@pytest.mark.long
@needs_namespaces
@pytest.mark.parametrize("kind", ["reads", "writes"])
def test_a_node_that_does_not_see_a_folder_is_named(kind, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"x")
    cluster = local_cluster()
    unseen = pytest.raises(UserError, match=r"Node .* does not see .*data/.* as this machine does")
    given = {kind: [folder] if kind == "reads" else folder}
    with node_that_sees(f"mount -t tmpfs none {folder}", cluster.address), unseen, connected(cluster.address, **given):
        pass
    assert [path.name for path in folder.iterdir()] == ["a.png"]
