"""Writes the weights of a run or of a published model: as an export, or converted to another layout."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

import contextjax
from contextjax import spec as specs
from contextjax.export.card import RANDOM, about_run
from contextjax.export.folder import MANIFEST, check_formats
from contextjax.export.write import write_export
from contextjax.files import check_absent, path_of
from contextjax.images import PADDED
from contextjax.models.clip import CLIPConfig
from contextjax.pretrained import clip4cir, read_pretrained, siglip, towers, write_own, write_pretrained
from contextjax.tokenizer_files import has_tokenizer
from contextjax.tokenizers import TextTokenizer
from contextjax.types import UserError
from contextjax.variants import FAMILIES, spec_of
from experiments.shared.run_config import read_config, read_evaluation

# A folder's pickles, and the names of their tensors; the first one that fits its config is read.
PICKLES = {
    "pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
    "combiner.pt": clip4cir.FILE,
}  # fmt: skip
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt",
    "spiece.model",
)  # fmt: skip


def export(source: str, target: Path, *, formats: list[str], dtype: str = "float32", checkpoint: str = "") -> None:
    """Writes an export of a run, or of a CLIP or BLIP, and prints what is in it.

    Args:
      source: a workdir, or a folder or hub id of a CLIP or BLIP.
      target: the folder to write.
      formats: see `write_export`.
      dtype: see `write_export`.
      checkpoint: see `contextjax.load`.

    Raises:
      UserError: a wrong format, a target that exists, or a source that is an export itself or can't be loaded.
    """
    folder, chosen = path_of(source), check_formats(formats)
    check_absent(target)
    if (folder / MANIFEST).exists():
        raise UserError(f"{source} is an export itself; give the --workdir of the run it was made of.")
    system = contextjax.load(source, checkpoint=checkpoint)
    config, recipe, evaluation = "", None, None
    if (folder / specs.FILE).exists():
        config, recipe = _read_recipe(folder, system.fingerprint.rpartition("-")[0])
        evaluation = _read_evaluation(folder, system.fingerprint)
    options = {"config": config, "recipe": recipe, "evaluation": evaluation}
    write_export(system, target, formats=chosen, dtype=dtype, **options)
    _print_files(target)
    if (target / "parity.json").exists():
        _print_parity(json.loads((target / "parity.json").read_text(encoding="utf-8")))


def _read_recipe(folder: Path, trained_with: str) -> tuple[str, Mapping[str, str] | None]:
    """Returns the text of a run's config.json and what the model card says of it; ("", None) where there is none."""
    if not (folder / "config.json").exists():
        return "", None
    config = read_config(folder, trained_with)
    try:
        return config.to_json(indent=2) + "\n", _recipe_rows(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} is no run's config ({error}); copy it again.") from error


def _recipe_rows(config: Any) -> dict[str, str]:
    """Returns how a run was trained, as `make_card` has it."""
    model, data, optimizer = config.model, config.data, config.optimizer
    sources = ", ".join(data.get("sources") or {}) or data.reader
    lora = model.get("lora", {})  # which runs of earlier versions have not
    adapters = {"Adapters": f"rank {lora.rank}, merged; their base was frozen"} if lora.get("rank") else {}
    return {
        "Started from": model.pretrained or ("an earlier run" if model.start else RANDOM), **adapters,
        "Trained on": f"{sources}, split {data.train_split}, {data.batch_size} a batch",
        "Steps": f"{config.training.steps} ({optimizer.name}, learning rate {optimizer.learning_rate:g}, "
                 f"{optimizer.schedule})",
        "Losses": ", ".join(f"{name} {weight:g}" for name, weight in config.loss.weights.items() if weight),
    }  # fmt: skip


def _read_evaluation(folder: Path, fingerprint: str) -> Mapping[str, Any] | None:
    """Returns a run's evaluation.json where it belongs to the checkpoint of this fingerprint."""
    file = folder / "evaluation.json"
    if not file.exists():
        return None
    evaluation = read_evaluation(file, remedy="evaluate the run again, or remove that file")
    if f"{evaluation.get('config_hash')}-{evaluation.get('step')}" == fingerprint:
        return evaluation
    print(f"{file} is of another checkpoint; the model card goes without metrics.")
    return None


def _print_parity(parity: Mapping[str, Any]) -> None:
    for form, programs in parity["largest_difference"].items():
        worst = ", ".join(f"{name} {max(batches.values()):.1e}" for name, batches in programs.items())
        print(f"largest difference from the live model, {form}: {worst} (at most {parity['tolerance']:g})")
    trained = parity["trained"]
    if apart := [max(batches.values()) for batches in trained["largest_difference"].values()]:
        print(
            f"trained in {trained['dtype']}: the live model as trained is up to {max(apart):.1e} from itself in "
            f"{parity['dtype']}"
        )


def convert(
    source: str | Path, target: Path, *, layout: str | None = None, dtype: str = "float32",
    image_size: int | None = None, tokenizer: str | None = None, from_pickle: bool = False,
) -> None:  # fmt: skip
    """Writes the weights of a run or of a published model in another layout, and prints what was read and written.

    Args:
      source: a workdir; a folder in Hugging Face's, OpenCLIP's or a paper's layout; a hub id; or a pickle.
      target: the folder to write.
      layout: "hf" or "contextjax" (our own parameter names); default: hf for CLIP and BLIP, else contextjax.
      dtype: the type of the written weights.
      image_size: the resolution that published position embeddings are resized to.
      tokenizer: the folder of the tokenizer, where the source has none.
      from_pickle: reads a .pth file, or pytorch_model.bin in a folder, in a process of its own.

    Raises:
      UserError: the source can't be read, or can't be written in this layout, or the target exists.
    """
    check_absent(target)
    with tempfile.TemporaryDirectory() as scratch:
        if from_pickle:
            source = _from_pickle(Path(source), Path(scratch))
        if not (Path(source) / specs.FILE).is_file():
            return _convert_published(source, target, layout, dtype, image_size=image_size, tokenizer=tokenizer)
        if image_size or tokenizer:
            raise UserError(
                "--image_size and --tokenizer are for published weights; a run keeps its own: leave them out."
            )
        return _convert_run(Path(source), target, layout, dtype)


def _convert_published(source: str | Path, target: Path, layout: str | None, dtype: str, *, image_size: int | None,
                       tokenizer: str | None) -> None:  # fmt: skip
    published = read_pretrained(source, image_size=image_size)
    config = towers(published.model.config)
    if not hasattr(config, "vision"):
        raise UserError(f"{source} is a {published.family} text encoder; expected a CLIP, a BLIP or a system of them.")
    spec = spec_of(published.model)
    if spec.is_plain and layout == "contextjax":
        raise UserError(
            "--format=contextjax is for ConText-CIR and ContextBLIP; a CLIP or BLIP is read in Hugging Face's layout."
        )
    _print_sizes(published.family, config, published.abstract)
    if left_out := published.left_out:
        print(f"left out {len(left_out)} tensors that retrieval has no use for: {', '.join(left_out[:6])}")
    params = jax.tree.map(lambda leaf: leaf.read(), published.params)
    origin = f"From {published.family} weights{'' if Path(source).exists() else f' of {source}'}."
    is_hf = spec.is_plain or layout == "hf"
    source_of_tokens = Path(tokenizer or published.folder)
    finish = functools.partial(_copy_tokenizer, source_of_tokens)
    if is_hf:
        params = params if spec.is_plain else params[FAMILIES[spec.family].towers]
        if has_tokenizer(source_of_tokens):
            config = _with_eos(config, TextTokenizer.read(source_of_tokens, length=config.text.positions))
        write_pretrained(target, config, params, dtype=dtype, origin=origin, finish=finish)
    else:
        write_own(target, spec, params, dtype=dtype, origin=origin, finish=finish)
    _print_files(target)
    if is_hf:
        module = published.model if spec.is_plain else FAMILIES[FAMILIES[spec.family].towers].module(config)
        _compare_with_torch(target, module, params)


def _convert_run(source: Path, target: Path, layout: str | None, dtype: str) -> None:
    system = contextjax.load(source)
    config, name = towers(system.model.config), FAMILIES[system.spec.family].towers
    _print_sizes(system.spec.title, config, system.params)
    config_hash, _, step = system.fingerprint.rpartition("-")
    origin = f"Step {step} of a training run, config {config_hash}."
    recipe = _read_recipe(source, config_hash)[1]
    evaluation = _read_evaluation(source, system.fingerprint)
    if layout == "hf" or (system.spec.is_plain and not layout):
        params = system.params[name] if name else system.params
        left_out = sorted(set(system.params) - {name}) if name else []
        kind = "SigLIP" if getattr(config, "is_siglip", False) else (name or system.spec.family).upper()
        print(f"left out: {', '.join(left_out) or 'nothing'} (Hugging Face's {kind} has no place for more)")
        if config.vision.fit in PADDED:
            print(f"pictures are padded first ('{config.vision.fit}'), which Hugging Face's processor can't: pad them.")

        def finish_hf(folder: Path) -> None:
            system.tokenizer.save(folder / "tokenizer.json")
            _add_to_card(folder, about_run(system.spec, recipe, None if left_out else evaluation))

        config = _with_eos(config, system.tokenizer)
        write_pretrained(target, config, params, dtype=dtype, origin=origin, finish=finish_hf)
    else:

        def finish(folder: Path) -> None:
            if (source / "config.json").is_file():
                shutil.copyfile(source / "config.json", folder / "config.json")
            system.tokenizer.save(folder / "tokenizer.json")
            _add_to_card(folder, about_run(system.spec, recipe, evaluation))

        write_own(target, system.spec, system.params, dtype=dtype, origin=origin, finish=finish)
    _print_files(target)


def _add_to_card(folder: Path, text: str) -> None:
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(text)


def _with_eos(config: Any, tokenizer: TextTokenizer) -> Any:
    """Returns the config of a CLIP with the id of its tokenizer's last token, at which transformers pools a text.

    That of a SigLIP gets the id of padding, too.
    """
    if not isinstance(config, CLIPConfig):
        return config
    config = siglip.with_pad(config, tokenizer.pad) if config.is_siglip else config
    return dataclasses.replace(config, text=dataclasses.replace(config.text, eos_token=tokenizer.last))


def _from_pickle(source: Path, scratch: Path) -> Path:
    """Writes a pickle's tensors as safetensors, with the JSON files beside it, and returns their folder."""
    from contextjax.pretrained.unpickle import unpickle  # imported only where a user has asked for it

    inside = {source / name: kept for name, kept in PICKLES.items() if (source / name).is_file()}
    files = inside if source.is_dir() else {source: "model.safetensors"}
    if not files or not next(iter(files)).is_file():
        raise UserError(f"There is no pickle at {source}; give a .pth file, or a folder with {' or '.join(PICKLES)}.")
    for file, kept in files.items():
        unpickle(file, scratch / kept)
    folder = source if source.is_dir() else source.parent
    if list(files.values()) == [clip4cir.FILE]:  # its CLIP has no pickle
        for path in folder.glob("*model*.safetensors*"):
            (scratch / path.name).symlink_to(path.resolve())
    for name in [path.name for path in folder.glob("*.json")] + ["vocab.txt", "merges.txt"]:
        if (folder / name).is_file() and not name.endswith(".index.json"):
            shutil.copyfile(folder / name, scratch / name)
    return scratch


def _copy_tokenizer(folder: Path, target: Path) -> None:
    copied = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    for name in copied:
        shutil.copyfile(folder / name, target / name)
    if not copied:
        print(f"no tokenizer in {folder}: give its folder as --tokenizer, or copy {', '.join(TOKENIZER_FILES[:3])} in")


def _print_sizes(family: str, config: Any, params: Any) -> None:
    vision, text = config.vision, config.text
    print(f"read {family}: {sum(x.size for x in jax.tree.leaves(params)) / 1e6:.1f} M parameters")
    print(
        f"  vision {vision.layers} x {vision.width}, {vision.heads} heads, patches of {vision.patch_size}, "
        f"{vision.image_size} px, {vision.activation}, epsilon {vision.epsilon:g}\n"
        f"  text {text.layers} x {text.width}, {text.heads} heads, {text.vocabulary} ids, {text.positions} positions, "
        f"{text.activation}, epsilon {text.epsilon:g}; projection {config.projection}"
    )


def _print_files(target: Path) -> None:
    sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(target.iterdir())}
    print(f"wrote {target}: " + ", ".join(f"{name} ({size:.2f} MB)" for name, size in sizes.items()))


def _compare_with_torch(target: Path, model: Any, params: Any) -> None:
    """Prints how far a forward pass is from that of PyTorch transformers with the written weights."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        print("not compared with PyTorch: it is not installed (pip install 'contextjax[torch]')")
        return
    from experiments.comparisons.forward import largest_difference

    difference = largest_difference(target, model, params)
    print(f"largest difference from PyTorch transformers in a forward pass: {difference:.1e}")
