"""`load` makes a system of a workdir, an export of ours, or a CLIP, SigLIP or BLIP folder or hub id.

Flax, Optax and Orbax are imported where they are used: the programs of an export run without them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contextjax import spec
from contextjax.export.folder import MANIFEST
from contextjax.files import path_of
from contextjax.tokenizers import TextTokenizer
from contextjax.types import UserError

if TYPE_CHECKING:
    from contextjax.export.exported import Exported
    from contextjax.system import System


def load(source: str | Path, *, mesh: str = "", image_size: int | None = None, text_length: int | None = None,
         dtype: Any = None, checkpoint: str | int = "") -> System | Exported:  # fmt: skip
    """Loads the system of a workdir, of an export, or of a CLIP or BLIP folder or hub id.

    A workdir gives its best checkpoint where the run had a rule of what is best (training.best), else the newest. An
    export that holds programs comes back as an Exported, which runs them (StableHLO where there are both).

    Args:
      source: a --workdir, a folder that `experiments.export` or `convert` wrote, a folder in Hugging Face's or
        OpenCLIP's layout, or a hub id, "owner/name".
      mesh: shards the parameters of a CLIP, a BLIP or an export, as "fsdp:8"; default: the first device.
      image_size: another resolution of a CLIP or BLIP; its position embeddings are resized.
      text_length: the most tokens of a text, instead of a CLIP's or BLIP's own limit.
      dtype: type of the computation of a CLIP or BLIP; parameters are float32.
      checkpoint: the checkpoint of a workdir to load instead: "best", "newest", or a step.

    Raises:
      UserError: `source` is none of these, is incomplete, or has no such checkpoint.
    """
    folder = path_of(source)
    if (folder / MANIFEST).exists() and (programs := _open_export(folder, mesh, image_size, dtype, checkpoint)):
        return programs
    if (folder / spec.FILE).exists():
        return _load_own(folder, mesh, checkpoint)
    is_model = any(folder.glob("*.safetensors*")) or any(folder.glob("*config.json")) if folder.is_dir() else True
    if not is_model or (folder / "checkpoints").exists():
        raise UserError(f"{folder} holds no {spec.FILE}; expected the --workdir of a training run, or a model.")
    if checkpoint:
        raise UserError(f"A checkpoint ('{checkpoint}') is asked for, but {source} is no run; leave it out.")
    return _load_pretrained(source, mesh, image_size=image_size, text_length=text_length, dtype=dtype)


def _open_export(folder: Path, *options: Any) -> Exported | None:
    """Opens the programs of an export after a check of its files; returns None where it holds none."""
    from contextjax.export.exported import RUNTIMES, open_export
    from contextjax.export.folder import read_manifest

    manifest = read_manifest(folder)
    if not any(name in manifest["formats"] for name in RUNTIMES):
        return None
    if any(options):
        raise UserError(
            f"{folder} holds programs, which run as they were exported; leave out mesh, image_size, dtype and "
            "checkpoint, or load an export with --format=safetensors alone."
        )
    return open_export(folder, manifest=manifest)


def _load_own(folder: Path, mesh: str, checkpoint: str | int) -> System:
    """Loads a workdir, or a model under our own parameter names: an export of parameters alone, or a converted one."""
    import jax
    import jax.numpy as jnp

    from contextjax.pretrained import read_own
    from contextjax.starts import read_run
    from contextjax.system import System

    own = spec.SystemSpec.read(folder)
    model, abstract = _make_model(own, folder / spec.FILE)
    tokenizer = TextTokenizer.read(folder / "tokenizer.json", length=own.text_length)
    fingerprint = own.fingerprint
    if (folder / "model.safetensors").exists():
        if checkpoint:
            raise UserError(f"A checkpoint ('{checkpoint}') is asked for, but {folder} is an export; leave it out.")
        params = _placed(read_own(folder, abstract), abstract, mesh)
    else:
        params, meta = read_run(folder, own, abstract, checkpoint)
        _check_shapes(params, abstract, folder)
        params = jax.tree.map(jnp.asarray, params)  # on the device once, not at every call
        fingerprint = f"{meta['config_hash']}-{meta['step']}"
    return System(model, params, tokenizer, query=own.query, score=own.score, propositions=own.propositions,
                  fingerprint=fingerprint, template=own.template)  # fmt: skip


def _make_model(own: spec.SystemSpec, file: Path) -> tuple[Any, Any]:
    """Returns the module of a spec and the tree of its parameters' shapes, with attention that runs everywhere.

    Raises:
      UserError: the spec describes no model; the message names its file.
    """
    from contextjax.pretrained import abstract_params
    from contextjax.variants import make_model

    towers = {name: {**getattr(own, name), "attention": "xla"} for name in ("vision", "text")}
    try:
        model = make_model(dataclasses.replace(own, **towers))
        return model, abstract_params(model)
    except UserError as error:
        raise UserError(f"{file} describes no model. {error}") from error
    except Exception as error:  # of sizes that fit no layer: Flax and JAX raise what they like
        raise UserError(f"{file} describes no model ({error}); {spec.REMEDY}.") from error


def _check_shapes(params: Any, abstract: Any, folder: Path) -> None:
    """Raises a UserError where a checkpoint's parameters are not those of the model that system.json describes."""
    import flax.linen as nn

    from contextjax.pretrained.names import flatten

    restored, expected = ({path: x.shape for path, x in flatten(t).items()} for t in (params, nn.unbox(abstract)))
    if odd := sorted(path for path in restored.keys() | expected.keys() if restored.get(path) != expected.get(path)):
        raise UserError(
            f"{odd[0]} has the shape {restored.get(odd[0])} in {folder}'s checkpoint, but {expected.get(odd[0])} in "
            f"the model that {spec.FILE} describes; {spec.REMEDY}."
        )


def _load_pretrained(
    source: str | Path, mesh: str, *, image_size: int | None, text_length: int | None, dtype: Any
) -> System:
    """Loads a folder or hub id in the layout of Hugging Face or OpenCLIP."""
    from contextjax.pretrained import read_pretrained, towers
    from contextjax.system import System

    published = read_pretrained(source, image_size=image_size, dtype=dtype)
    config = towers(published.model.config)
    if not hasattr(config, "vision"):
        raise UserError(f"{source} is a {published.family} text encoder without pictures; expected a CLIP or a BLIP.")
    text = config.text
    tokenizer = TextTokenizer.read(published.folder, length=min(text_length or text.positions, text.positions))
    if tokenizer.vocabulary > text.vocabulary:
        raise UserError(
            f"{published.folder}'s tokenizer has {tokenizer.vocabulary} ids, but its model's table {text.vocabulary} "
            "rows; tokenizer and weights are not of one model."
        )
    params = _placed(published.params, published.abstract, mesh)
    return System(published.model, params, tokenizer, fingerprint=f"{source}@{config.vision.image_size}-0")


def _placed(unread: Any, abstract: Any, mesh: str) -> Any:
    """Reads parameters, each straight to where it belongs on the mesh, or to the first device without one."""
    import jax
    import jax.numpy as jnp

    from contextjax.sharding import make_mesh, place_params

    if mesh:
        return place_params(unread, abstract, make_mesh(mesh))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), unread)
