"""Connects to a Ray cluster, and checks it before work begins: reachable, the same code everywhere, shared folders."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextjax.types import UserError, listed
from data_pipelines.cluster.engine import RayEngine, ray_library, resources

PATIENCE = 4.0  # seconds that a cluster has to answer; after five, Ray itself prints warnings
CHECK = 120.0  # seconds in which every node has to start a process and to answer the check
SAMPLES = 8  # entries of a folder that every node has to see
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+):(?P<port>\d{1,5})")


@contextlib.contextmanager
def connected(
    address: str, *, reads: Sequence[Path] = (), writes: Path | None = None, log: Path | None = None
) -> Iterator[RayEngine]:
    """Connects this process to a cluster, and gives the engine that works there.

    Args:
      address: "auto", for the cluster that this machine is a node of, or HOST:PORT.
      reads: files and folders that the work reads.
      writes: a folder that the work writes to; it is made where there is none.
      log: see RayEngine.

    Raises:
      UserError: the cluster can't be reached, or one of its nodes has other versions, or does not see a file or folder.
    """
    ray = ray_library()
    address = _reachable(address)
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, logging_level="error", log_to_driver=False)
    except (RuntimeError, ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"The cluster at {address} does not take this process ({reason}); use one Ray and one Python everywhere, "
            "and run the command on a node of the cluster."
        ) from error
    finally:
        if is_main:  # the command's own handler, which Ray has replaced
            signal.signal(signal.SIGTERM, before)
    try:
        _check_nodes(reads, writes)
        yield RayEngine(log)
    finally:
        ray.shutdown()


def _reachable(address: str) -> str:
    """Returns the address as HOST:PORT, of a cluster that answers. Ray itself would try for minutes."""
    remedy = "start one with `ray start --head`, or see `ray status` there"
    if address == "auto":
        try:
            address = ray_library("ray._private.services").canonicalize_bootstrap_address("auto") or ""
        except ConnectionError:
            address = ""
        if not address:
            raise UserError(f"--cluster=auto finds no Ray cluster on this machine; {remedy}, or give its HOST:PORT.")
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise UserError(
            f"--cluster is '{address}'; expected auto or HOST:PORT, on a node of the cluster (from elsewhere: "
            "`ray job submit`)."
        )
    try:
        with socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=PATIENCE):
            pass
        answered = _in_time(lambda: _greet(address))
    except (OSError, OverflowError) as error:
        raise UserError(f"There is no Ray cluster at {address} ({error}); {remedy}, or check --cluster.") from error
    if not answered:
        raise UserError(
            f"What listens at {address} does not answer as a Ray cluster within {PATIENCE:g} s; check --cluster, whose "
            "port is that of `ray start --head`, 6379 by default."
        )
    return address


def _greet(address: str) -> None:
    ray_library("ray._raylet").GcsClient(address=address)


def _in_time(function: Callable[[], None]) -> bool:
    """Calls a function in a thread that may be left behind; returns whether it has ended well within PATIENCE."""
    ended = threading.Event()

    def call() -> None:
        with contextlib.suppress(Exception):
            function()
            ended.set()

    threading.Thread(target=call, daemon=True).start()
    return ended.wait(PATIENCE)


def _check_nodes(reads: Sequence[Path], writes: Path | None) -> None:
    """Asks every node for its versions, and for the files and folders. Raises UserError: something is not as here.

    A node that is lost before it answers is skipped: Ray lists it for some seconds more.
    """
    ray, strategies = ray_library(), ray_library("ray.util.scheduling_strategies")
    if not resources().nodes:
        raise UserError("No node of the cluster has a CPU to work with; start some with `ray start --address=...`.")
    probe = None if writes is None else _write_probe(writes)
    try:
        paths = [str(path) for path in (*_samples(reads), *([probe] if probe else []))]
        describe = _describer()
        own, asked = describe(paths), {}
        remote = ray.remote(num_cpus=0, max_retries=0)(describe)
        for node in ray.nodes():
            if node["Alive"]:
                strategy = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
                asked[remote.options(scheduling_strategy=strategy).remote(paths)] = name
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=CHECK)
        if late:
            raise UserError(f"Node {listed([asked[ref] for ref in late])} does not answer within {CHECK:g} s.")
        for ref in ready:
            try:
                answer = ray.get(ref)
            except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
                continue  # there is no such node any more
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[-1][:300]
                raise UserError(f"Node {asked[ref]} can't be checked ({reason}); see `ray status`.") from error
            _compare(asked[ref], own, answer)
    finally:
        if probe is not None:
            probe.unlink(missing_ok=True)


def _samples(paths: Sequence[Path]) -> Iterator[Path]:
    """Yields each path, and some entries of a folder."""
    for path in paths:
        yield (whole := path.absolute())
        if whole.is_dir():
            yield from sorted(whole.iterdir())[:SAMPLES]


def _write_probe(folder: Path) -> Path:
    """Writes a small file to the folder that the work writes to."""
    probe = folder.absolute() / f".cluster-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("This file shows that a node sees this folder.", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{folder} can't be written to ({error}); give a folder that all nodes can write to."
        ) from error
    return probe


def _compare(node: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raises a UserError where a node's versions are not those of this process, or where it does not see a path."""
    for name, version in own["versions"].items():
        if (there := other["versions"].get(name, "none")) != version:
            files = " (a hash of its files)" * (name == "contextjax")
            raise UserError(
                f"Node {node} has {name} {there}, and this machine {version}{files}; install the same on every node, "
                "since results could differ."
            )
    if unlike := [path for path, kind in own["paths"].items() if other["paths"][path] != kind]:
        raise UserError(
            f"Node {node} does not see {listed(unlike)} as this machine does; give folders that all nodes share under "
            "one path, on a file system that they mount."
        )


def _describer() -> Callable[[Sequence[str]], dict[str, Any]]:
    """Returns a function that describes its machine. It is sent by value, so that a node needs no contextjax."""

    def describe(paths: Sequence[str]) -> dict[str, Any]:
        import hashlib
        import importlib.metadata
        import importlib.util
        import platform
        from pathlib import Path

        def version(name: str) -> str:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return "none"

        digest = hashlib.blake2b(digest_size=6)
        for package in ("contextjax", "data_pipelines", "experiments"):
            spec = importlib.util.find_spec(package)
            for folder in list(spec.submodule_search_locations or []) if spec else []:
                for file in sorted(Path(folder).rglob("*.py")):
                    digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
        is_installed = importlib.util.find_spec("contextjax") is not None
        versions = {
            "contextjax": digest.hexdigest() if is_installed else "none", "Python": platform.python_version(),
            **{name: version(name) for name in ("jax", "jaxlib", "numpy", "pillow")},
        }  # fmt: skip

        def kind(path: str) -> str:
            try:
                return "a folder" if Path(path).is_dir() else f"{Path(path).stat().st_size} bytes"
            except OSError:
                return "nothing"

        return {"versions": versions, "paths": {path: kind(path) for path in paths}}

    return describe
