"""A Ray cluster of three nodes on this machine, which tests of one process share."""

import atexit
import functools
import importlib.util
import os
from unittest import mock

import pytest

from tests.commands import ROOT

needs_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="no Ray: install the extra [ray]")
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


@functools.cache
def local_cluster():
    """A cluster whose nodes have a CPU each and the environment of the tests; ended with this process."""
    from ray.cluster_utils import Cluster

    with mock.patch.dict(os.environ, {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}):
        head = NODE | {"include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(**NODE)
    atexit.register(cluster.shutdown)
    return cluster


def add_node(cluster):
    """Adds a node, which a test may kill."""
    with mock.patch.dict(os.environ, {"PYTHONPATH": str(ROOT)}):
        return cluster.add_node(**NODE)
