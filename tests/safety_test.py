"""Nothing that runs code from a file, or unpacks one anywhere, is reachable from the commands: read from the source."""

import ast
import functools
from pathlib import Path

import pytest

from tests.architecture_test import MODULES, PROJECT, imports

MODULES_OF_CODE = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "tarfile"}
CALLS = {
    "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "shutil.unpack_archive", "pandas.read_pickle",
    "eval", "exec", "os.system",
}  # fmt: skip
METHODS = {"extractall", "extract", "unpack_archive", "read_pickle"}  # of whatever object
NUMPY = {"numpy.load", "numpy.lib.npyio.NpzFile"}
# Opt-in (experiments.convert --allow_pickle), in a process of its own, and there torch's reader of tensors alone.
UNPICKLE, ITS_CALLER = "contextjax.pretrained.unpickle", "experiments.shared.weights"


def entry_points() -> list[str]:
    """The modules that people run."""
    return [name for name, path in MODULES.items() if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]


def reachable(start: str) -> set[str]:
    """The project's modules that one imports, at whatever place, directly or not; packages count with their parts."""
    found, todo = set(), [start]
    while todo:
        name = todo.pop()
        if name in found or name not in MODULES:
            continue
        found.add(name)
        todo += [other for other in imports_of(name) if other.split(".")[0] in PROJECT]
        todo += [name.rpartition(".")[0]]
    return found


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """The full name of what is called: np.load is numpy.load; "" where it is no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return ""


def dangers(source: str) -> list[str]:
    """Returns what runs code from data, or unpacks an archive, in a module."""
    tree, names, found = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                      for alias in node.names}  # fmt: skip
            heads = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            heads = {node.module.split(".")[0]}
        else:
            continue
        found += [f"imports {name}" for name in heads & MODULES_OF_CODE]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = dotted(call.func, names)
        if name in CALLS or (isinstance(call.func, ast.Attribute) and call.func.attr in METHODS):
            found.append(f"calls {name}")
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if given.get("allow_pickle", "False") != "False" or (name in NUMPY and "allow_pickle" not in given):
            found.append(f"calls {name} without allow_pickle=False")
    return found


@functools.cache
def dangers_of(module: str) -> list[str]:
    """Returns the dangers of one of the project's modules."""
    return dangers(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports_of(module: str) -> set[str]:
    """Returns what one of the project's modules imports."""
    return imports(MODULES[module])


@pytest.mark.parametrize("entry", entry_points())
def test_no_command_reads_what_can_run_code(entry):
    modules = reachable(entry)
    assert modules > {entry} or entry == UNPICKLE
    for module in sorted(modules - {UNPICKLE}):
        assert not dangers_of(module), f"{module}, by way of {entry}"


def test_the_converter_of_pickles_is_alone_and_asked_for():
    """One function imports it, which `convert` calls behind its flag."""
    assert dangers(MODULES[UNPICKLE].read_text(encoding="utf-8")) == ["calls torch.load"]
    assert [name for name, path in MODULES.items() if UNPICKLE in imports(path)] == [ITS_CALLER]
    tree = ast.parse(MODULES[ITS_CALLER].read_text(encoding="utf-8"))
    within = lambda node: UNPICKLE in {getattr(inner, "module", "") for inner in ast.walk(node)}
    assert [node.name for node in tree.body if within(node)] == ["_from_pickle"]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "_from_pickle(" in ast.unparse(node)]
    assert ast.unparse(calls[0].test) == "from_pickle"
    assert "from_pickle=ALLOW_PICKLE.value" in MODULES["experiments.convert"].read_text(encoding="utf-8")


def test_the_commands_are_known():
    assert {"experiments.train", "experiments.evaluate", "experiments.search", "experiments.selftest"} <= {
        *entry_points()
    }
    assert {"contextjax.checkpoints.reader", "data_pipelines.loader", "contextjax.serving.gallery"} <= (
        reachable("experiments.train") | reachable("experiments.search")
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import pickle", "imports pickle"),
        ("def f():\n    from pickle import loads", "imports pickle"),
        ("import torch as t\nt.load('x')", "calls torch.load"),
        ("from torch import load\nload('x', weights_only=True)", "calls torch.load"),
        ("import numpy as np\nnp.load('x')", "without allow_pickle=False"),
        ("import numpy\nnumpy.load('x', allow_pickle=True)", "without allow_pickle=False"),
        ("import zipfile\nzipfile.ZipFile('x').extractall('y')", "extractall"),
        ("import shutil\nshutil.unpack_archive('x')", "unpack_archive"),
        ("eval('1')", "calls eval"),
    ],
)
def test_what_is_looked_for_is_found(source, said):
    assert any(said in found for found in dangers(source)), dangers(source)


@pytest.mark.parametrize(
    "source", ["import numpy as np\nnp.load('x', allow_pickle=False)", "model.eval()", "json.load(f)"]
)
def test_what_is_harmless_is_let_through(source):
    assert not dangers(source)


def test_numpy_refuses_a_pickle_where_the_gallery_is_read(tmp_path):
    """The one file of numpy's that a command reads."""
    import numpy as np

    path: Path = tmp_path / "x.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(path, allow_pickle=False)
