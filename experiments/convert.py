"""Weights in and out: CLIP and BLIP to Hugging Face's layout, a trained run to one folder of safetensors.

python -m experiments.convert --source=FOLDER_OR_HUB_ID --target=DIR [--format=hf|contextjax] [--dtype=bfloat16]
"""

import tempfile
from pathlib import Path

from absl import flags

from experiments.shared import cli

SOURCE = flags.DEFINE_string(
    "source",
    None,
    "A run's workdir, a folder in Hugging Face's or OpenCLIP's layout (or of the published ConText-CIR), a hub id, or "
    "(with --allow_pickle) a .pth file or a folder with pytorch_model.bin.",
)
TARGET = flags.DEFINE_string("target", None, "The folder to write.")
FORMAT = flags.DEFINE_enum(
    "format", None, ["hf", "contextjax"], "Default: hf for CLIP and BLIP, contextjax for a trained run."
)
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the written weights.")
IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Resize the position embeddings to this resolution.")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "A folder with the tokenizer, where the source has none.")
ALLOW_PICKLE = flags.DEFINE_bool("allow_pickle", False, "Read a pickle, in a process of its own: only if you trust it.")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt",
)  # fmt: skip


def main() -> None:
    """Source -> parameters -> target, with a forward pass of both where PyTorch is installed."""
    source, target = cli.required(SOURCE), Path(cli.required(TARGET))
    with tempfile.TemporaryDirectory() as scratch:
        if ALLOW_PICKLE.value:
            source = _from_pickle(Path(source), Path(scratch))
        (_convert_own if _is_own(Path(source)) else _convert_pretrained)(source, target)


def _is_own(folder: Path) -> bool:
    """Whether it is a run's workdir or an export of ours: only their config.json has a `model` section."""
    from contextjax.pretrained.tensors import read_json

    return (folder / "config.json").is_file() and "model" in read_json(folder / "config.json")


def _convert_pretrained(source: str | Path, target: Path) -> None:
    import jax

    from contextjax import pretrained
    from contextjax.models.blip import BLIP
    from contextjax.models.clip import CLIP
    from contextjax.types import UserError
    from contextjax.variants import describe

    found = pretrained.read_pretrained(source, image_size=IMAGE_SIZE.value)
    config = found.model.config
    towers = pretrained.towers(config)
    if not hasattr(towers, "vision"):
        raise UserError(f"{source} is a {found.family} text encoder; expected a CLIP, a BLIP or a system of them.")
    _describe(found.family, towers, sum(x.size for x in jax.tree.leaves(found.abstract)))
    if found.left_out:
        print(f"left out {len(found.left_out)} tensors that retrieval has no use for: {', '.join(found.left_out[:6])}")
    params = jax.tree.map(lambda leaf: leaf.read(), found.params)
    origin = f"From {found.family} weights{'' if Path(source).exists() else f' of {source}'}."
    if towers is not config and FORMAT.value != "hf":
        described = {"model": describe(config)}
        title = _title(found.model)
        pretrained.write_own(target, described, params, dtype=DTYPE.value, title=title, origin=origin)
        _copy_tokenizer(Path(TOKENIZER.value or found.folder), target)
        return _report(target)
    if FORMAT.value == "contextjax":
        raise UserError(
            "--format=contextjax is for ConText-CIR and ContextBLIP; a CLIP or BLIP is read in Hugging Face's layout."
        )
    module = BLIP if "blip" in params else CLIP
    params = params if towers is config else params[module.__name__.lower()]
    pretrained.write_pretrained(target, towers, params, dtype=DTYPE.value, origin=origin)
    _copy_tokenizer(Path(TOKENIZER.value or found.folder), target)
    _report(target)
    return _check(target, found.model if towers is config else module(towers), params)


def _convert_own(source: str | Path, target: Path) -> None:
    import jax

    import contextjax
    from contextjax import pretrained
    from contextjax.pretrained.tensors import read_json
    from contextjax.types import UserError

    if IMAGE_SIZE.value or TOKENIZER.value:
        raise UserError("--image_size and --tokenizer are for published weights; a run keeps its own: leave them out.")
    system = contextjax.load(source)
    config, title = pretrained.towers(system.model.config), _title(system.model)
    name = "blip" if "blip" in system.params else "clip"
    _describe(title, config, sum(x.size for x in jax.tree.leaves(system.params)))
    config_hash, _, step = system.fingerprint.rpartition("-")
    origin = f"Step {step} of a training run, config {config_hash}."
    if FORMAT.value == "hf":
        left_out = sorted(set(system.params) - {name})
        print(f"left out: {', '.join(left_out) or 'nothing'} (Hugging Face's {name.upper()} has no place for more)")
        pretrained.write_pretrained(target, config, system.params[name], dtype=DTYPE.value, origin=origin)
    else:
        described = {
            **read_json(Path(source) / "config.json"),
            "exported": {"config_hash": config_hash, "step": int(step)},
        }
        pretrained.write_own(target, described, system.params, dtype=DTYPE.value, title=title, origin=origin)
    system.tokenizer.save(target / "tokenizer.json")
    _report(target)


def _title(model) -> str:
    """A system's name as its paper writes it."""
    return {"ContextCIR": "ConText-CIR"}.get(type(model).__name__, type(model).__name__)


def _from_pickle(source: Path, scratch: Path) -> Path:
    """A folder of safetensors and JSON beside it, made of a pickle."""
    import shutil

    from contextjax.pretrained.unpickle import unpickle
    from contextjax.types import UserError

    file = source / "pytorch_model.bin" if source.is_dir() else source
    if not file.is_file():
        raise UserError(f"There is no pickle at {file}; give a .pth file, or a folder with pytorch_model.bin.")
    unpickle(file, scratch / "model.safetensors")
    for name in [path.name for path in file.parent.glob("*.json")] + ["vocab.txt", "merges.txt"]:
        if (file.parent / name).is_file() and not name.endswith(".index.json"):
            shutil.copyfile(file.parent / name, scratch / name)
    return scratch


def _describe(family: str, config, parameters: int) -> None:
    vision, text = config.vision, config.text
    print(f"read {family}: {parameters / 1e6:.1f} M parameters")
    print(
        f"  vision {vision.layers} x {vision.width}, {vision.heads} heads, patches of {vision.patch_size}, "
        f"{vision.image_size} px, {vision.activation}, epsilon {vision.epsilon:g}\n"
        f"  text {text.layers} x {text.width}, {text.heads} heads, {text.vocabulary} ids, {text.positions} positions, "
        f"{text.activation}, epsilon {text.epsilon:g}; projection {config.projection}"
    )


def _copy_tokenizer(folder: Path, target: Path) -> None:
    import shutil

    copied = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    for name in copied:
        shutil.copyfile(folder / name, target / name)
    if not copied:
        print(f"no tokenizer in {folder}: give its folder as --tokenizer, or copy {', '.join(TOKENIZER_FILES[:3])} in")


def _report(target: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
    print(f"wrote {target}: " + ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in sizes.items()))


def _check(target: Path, model, params) -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None or find_spec("transformers") is None:
        print("not compared with PyTorch: it is not installed (pip install 'contextjax[torch]')")
        return
    from experiments.comparisons.forward import largest_difference

    difference = largest_difference(target, model, params)
    print(f"largest difference from PyTorch transformers in a forward pass: {difference:.1e}")


if __name__ == "__main__":
    cli.run(main)
