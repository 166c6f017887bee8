"""Checks imports, the length of commands, docstrings and words: the rules of CONTRIBUTING.md."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SYSTEMS = {f"contextjax.models.{name}" for name in ("context_cir", "context_blip", "composed_blip", "covr2")}
PARTS = {
    f"contextjax.models.{name}"
    for name in (
        "dual_encoder", "clip", "blip", "blip2", "fusion", "adapter", "masking", "inter_context", "token_pooling",
        "combiner",
    )
}  # fmt: skip
TOWERS = {f"contextjax.models.{name}" for name in ("vision", "text", "multimodal", "qformer")}
ATTENTION = {f"contextjax.models.{name}" for name in ("attention", "linear", "placed")}
LAYERS = {"contextjax.models.layers"} | ATTENTION
TYPES = {"contextjax.types"}
FILES = {"contextjax.files", "contextjax.json_files"}
THREADS = {"contextjax.threads"}
SPEC = {"contextjax.spec"}
MODELS = SYSTEMS | PARTS | TOWERS | LAYERS | SPEC | {"contextjax.variants"}

# room (longest prefix wins) -> the project's modules (by prefix) it may import
ALLOWED: dict[str, set[str]] = {
    "contextjax.types": set(),
    "contextjax.files": TYPES,
    "contextjax.json_files": TYPES | FILES,
    "contextjax.threads": set(),
    "contextjax.contents": FILES | THREADS,
    "contextjax.spec": TYPES | FILES,
    "contextjax.models.placed": TYPES,
    "contextjax.models.linear": {"contextjax.models.placed"} | TYPES,
    "contextjax.models.attention": ATTENTION | TYPES,
    "contextjax.models.layers": ATTENTION | TYPES,
    "contextjax.models.vision": LAYERS | TYPES,
    "contextjax.models.text": LAYERS | TYPES,
    "contextjax.models.multimodal": {"contextjax.models.text"} | LAYERS | TYPES,
    "contextjax.models.qformer": {"contextjax.models.text", "contextjax.models.multimodal"} | LAYERS | TYPES,
    "contextjax.models.dual_encoder": TOWERS | LAYERS | TYPES,
    "contextjax.models.clip": {"contextjax.models.dual_encoder"} | TOWERS | LAYERS | TYPES,
    "contextjax.models.blip": {"contextjax.models.dual_encoder"} | TOWERS | LAYERS | TYPES,
    "contextjax.models.blip2": {"contextjax.models.dual_encoder"} | TOWERS | LAYERS | TYPES,
    "contextjax.models.fusion": TOWERS | LAYERS | TYPES,
    "contextjax.models.adapter": LAYERS | TYPES,
    "contextjax.models.masking": {"contextjax.models.adapter"} | TOWERS | LAYERS | TYPES,
    "contextjax.models.inter_context": TOWERS | LAYERS | TYPES,
    "contextjax.models.token_pooling": LAYERS | TYPES,
    "contextjax.models.combiner": LAYERS | TYPES,
    "contextjax.models.composed_blip": PARTS | TOWERS | LAYERS | TYPES,
    "contextjax.models.context_blip": PARTS | TOWERS | LAYERS | TYPES,
    "contextjax.models.context_cir": PARTS | TOWERS | LAYERS | TYPES,
    "contextjax.models.covr2": PARTS | TOWERS | LAYERS | TYPES,
    "contextjax.variants": SPEC | SYSTEMS | PARTS | TOWERS | LAYERS | TYPES,
    "contextjax.pretrained": MODELS
    | TYPES
    | FILES
    | {"contextjax.pretrained", "contextjax.tokenizers", "contextjax.tokenizer_files"},
    "contextjax.losses": TYPES | {"contextjax.losses"},
    "contextjax.metrics": TYPES,
    "contextjax.muon": set(),
    "contextjax.optim": TYPES | {"contextjax.muon"},
    "contextjax.lora": TYPES | {"contextjax.optim"},
    "contextjax.sharding": TYPES | {"contextjax.sharding"},
    "contextjax.analysis": TYPES | {"contextjax.analysis", "contextjax.sharding"},
    "contextjax.images": TYPES,
    "contextjax.tokenizer_files": TYPES | FILES,
    "contextjax.tokenizers": TYPES | FILES | {"contextjax.tokenizer_files"},
    "contextjax.checkpoints": {"contextjax.checkpoints"} | TYPES | FILES,
    "contextjax.objectives": MODELS | TYPES | {"contextjax.losses", "contextjax.objectives"},
    "contextjax.training": TYPES
    | FILES
    | {f"contextjax.{name}" for name in ("training", "sharding", "optim", "checkpoints", "lora")},
    "contextjax.retriever": TYPES | SPEC | {"contextjax.images", "contextjax.tokenizers"},
    "contextjax.programs": MODELS | TYPES,
    "contextjax.system": MODELS
    | TYPES
    | {f"contextjax.{name}" for name in ("programs", "retriever", "tokenizers", "pretrained", "sharding")},
    "contextjax.starts": {"contextjax.variants"}
    | TYPES
    | SPEC
    | FILES
    | {f"contextjax.{name}" for name in ("export", "checkpoints", "lora", "pretrained")},
    "contextjax.loading": {"contextjax.variants"}
    | TYPES
    | SPEC
    | FILES
    | {
        f"contextjax.{name}"
        for name in ("system", "retriever", "export", "starts", "sharding", "tokenizers", "pretrained")
    },
    "contextjax.export": TYPES
    | FILES
    | THREADS
    | SPEC
    | {f"contextjax.{name}" for name in ("export", "programs", "system", "retriever", "tokenizers", "pretrained")}
    | {"contextjax.checkpoints.integrity"},
    "contextjax.evaluation": TYPES | {f"contextjax.{name}" for name in ("evaluation", "system", "metrics", "images")},
    "contextjax.serving": TYPES
    | FILES
    | THREADS
    | {
        f"contextjax.{name}"
        for name in ("serving", "system", "retriever", "metrics", "images", "contents", "tokenizers", "sharding")
    },
    "contextjax.reports": TYPES | {f"contextjax.{name}" for name in ("reports", "system", "metrics", "evaluation")},
    "contextjax": TYPES,
    "data_pipelines": {
        "contextjax.types",
        "contextjax.files",
        "contextjax.json_files",
        "contextjax.contents",
        "contextjax.images",
        "contextjax.threads",
        "contextjax.tokenizers",
        "data_pipelines",
    },
    "configs": {"configs.base", "configs.towers"},
    "experiments": {"contextjax", "data_pipelines", "configs", "experiments"},
}
TESTED_ELSEWHERE = {
    "contextjax", "experiments",  # in interpreters of their own: wheel_test, interruption_test
    "experiments.comparisons.forward", "experiments.comparisons.pytorch", "experiments.comparisons.stage1_torch",
    # PyTorch's sides: by the comparisons that call them, and tests/parity
}  # fmt: skip
PROJECT = ("contextjax", "data_pipelines", "configs", "experiments")
COMMAND = re.compile(r"experiments\.(?!shared$|benchmarks$|comparisons$|fault_injection$|synthesis$)\w+")
PYTHON = sorted(path for top in (*PROJECT, "tests") for path in (ROOT / top).rglob("*.py"))
TEXTS = [path for path in PYTHON if path != Path(__file__)] + sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
)
FIRST_WORDS = {"Of", "What", "Its", "It", "Those", "As", "Where", "Whether", "That"}  # CONTRIBUTING.md: words
PRIVATE_WORDS = re.compile(r"\b(sick|anew|fading|drills?|drilling|guests|is told|are told|told as|the card's form)\b")
DATA_SETS = ("pictogram", "fashioniq", "imagecode", "nlvr")
ONLY_IN_SHARDING = {"Mesh", "PartitionSpec", "NamedSharding", "process_index", "process_count"}
NEVER_IN_LIBRARY = {"tensorflow_datasets", "tfds", "grain", "spacy", "torch", "transformers", "faiss"}
EXCEPTIONS = {
    "contextjax.pretrained.unpickle": {"torch"},  # the opt-in converter of pickles, in a process of its own
    "contextjax.tokenizer_files": {"transformers"},  # reads the tokenizers of checkpoints; imported only for that
}


def modules() -> dict[str, Path]:
    paths = [path for top in PROJECT for path in sorted((ROOT / top).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Every node of a file's syntax tree; parsed once for all tests."""
    return list(ast.walk(ast.parse(text_of(path))))


@functools.cache
def imports(path: Path) -> set[str]:
    names = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path} imports relatively; name the whole module"
            # `from a.b import c` imports the module a.b.c where there is one.
            whole = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in whole.values()}
    return names


def rule(module: str) -> set[str]:
    return ALLOWED[max((room for room in ALLOWED if (module + ".").startswith(room + ".")), key=len)]


def test_a_package_imports_only_what_it_may():
    wrong = [
        f"{module} imports {name}; it may import {sorted(rule(module))}"
        for module, path in MODULES.items()
        for name in imports(path)
        if name.split(".")[0] in PROJECT and not any((name + ".").startswith(room + ".") for room in rule(module))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_library_knows_no_data_set_and_no_data_library():
    wrong = []
    for module, path in MODULES.items():
        if module.startswith("contextjax"):
            heads = {name.split(".")[0] for name in imports(path)}
            wrong += [f"{module} imports {name}" for name in heads & NEVER_IN_LIBRARY - EXCEPTIONS.get(module, set())]
            wrong += [f"{module} names the data set {name}" for name in DATA_SETS if name in text_of(path).lower()]
    assert not wrong, "\n".join(wrong)


def test_only_sharding_says_mesh_and_process():
    wrong = []
    for module, path in MODULES.items():
        if module.startswith("contextjax") and ".sharding" not in module:
            names = {node.id for node in nodes_of(path) if isinstance(node, ast.Name)}
            names |= {node.attr for node in nodes_of(path) if isinstance(node, ast.Attribute)}
            wrong += [f"{module} says {name}" for name in names & ONLY_IN_SHARDING]
    assert not wrong, "\n".join(wrong)


def test_apply_is_called_in_two_places():
    callers = {
        module
        for module, path in MODULES.items()
        if not module.startswith("experiments.comparisons")  # which compare the bare modules with other frameworks
        for node in nodes_of(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "apply"
        and "model" in ast.unparse(node.func.value)
    }
    assert callers == {"contextjax.programs", "contextjax.objectives.runner"}


def test_the_step_stays_short():
    nodes = nodes_of(MODULES["contextjax.training.step"])
    step = next(node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == "train_step")
    assert step.end_lineno - step.lineno + 1 <= 35


def test_a_command_stays_short():
    lines = {name: text_of(path).count("\n") for name, path in MODULES.items() if COMMAND.fullmatch(name)}
    assert not {name: count for name, count in lines.items() if count > 80}


def test_no_command_is_imported():
    """Code that two commands need lies below them, in experiments.shared and the like."""
    inside = {name: imports(path) for name, path in MODULES.items() if name.startswith("experiments.")}
    assert not [(name, other) for name, names in inside.items() for other in names if COMMAND.fullmatch(other)]


def test_every_module_with_code_has_its_tests():
    """contextjax/a/b.py has tests/a/b_test.py, a/b.py of another package tests/PACKAGE/a/b_test.py."""
    without = []
    for module, path in MODULES.items():
        has_code = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(text_of(path)).body)
        own = path.relative_to(ROOT / "contextjax" if module.split(".")[0] == "contextjax" else ROOT)
        tests = ROOT / "tests" / own.with_name(f"{own.stem.strip('_')}_test.py")
        if has_code and not tests.exists() and module not in TESTED_ELSEWHERE:
            without.append(f"{path.relative_to(ROOT)} has no {tests.relative_to(ROOT)}")
    assert not without, "\n".join(without)


def test_imports_have_no_circles():
    """Packages of one file each stand for their modules: a circle between modules is one between files."""
    graph = {name: {target for target in imports(path) if target in MODULES} for name, path in MODULES.items()}
    while leaves := [name for name, targets in graph.items() if not targets]:
        for name in leaves:
            del graph[name]
        for targets in graph.values():
            targets.difference_update(leaves)
    assert not graph, f"these import each other: {sorted(graph)}"


def test_a_docstring_is_a_sentence_of_its_own():
    """Docstrings begin with a verb or the noun that they describe, and make sense without the name above them."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    wrong = []
    for path in PYTHON:
        documented = [node for node in nodes_of(path) if isinstance(node, kinds)]
        for text in filter(None, map(ast.get_docstring, documented)):
            if text.split()[0].strip(",.:;") in FIRST_WORDS:
                wrong.append(f"{path.relative_to(ROOT)}: {text.splitlines()[0]}")
    assert not wrong, "\n".join(wrong)


def test_words_are_the_terms_of_the_field():
    wrong = {path.relative_to(ROOT): PRIVATE_WORDS.findall(text_of(path)) for path in TEXTS}
    assert not {path: words for path, words in wrong.items() if words}


def test_no_test_replaces_the_clock_of_the_whole_process():
    """Servers' threads beside it would wait by another clock; see tests.commands.replace_clock."""
    replaces = re.compile(r"""setattr\(\s*("[\w.]*\btime\.\w+"|[\w.]*\btime, )""")
    found = [path for path in sorted((ROOT / "tests").rglob("*.py")) if replaces.search(path.read_text())]
    assert not found


HOST_SIDE = ("", ".types", ".files", ".json_files", ".images", ".threads", ".tokenizers", ".retriever")


def test_host_side_modules_import_no_framework():
    """One after the other in one interpreter, which names the first that imports one."""
    code = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not {"jax", "torch", "transformers"} & set(sys.modules), name
"""
    names = [f"contextjax{name}" for name in HOST_SIDE]
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
