"""load(...): a system from a workdir, an export of ours, or a CLIP or BLIP folder or hub id.

Flax, Optax and Orbax are imported where they are used: the programs of an export run without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contextjax.files import path_of
from contextjax.json_files import read_json
from contextjax.tokenizers import TextTokenizer
from contextjax.types import UserError

if TYPE_CHECKING:
    from contextjax.export.exported import Exported
    from contextjax.system import System


def load(source: str | Path, *, mesh: str = "", image_size: int | None = None, text_length: int | None = None,
         dtype: Any = None, checkpoint: str | int = "") -> System | Exported:  # fmt: skip
    """The system of a workdir, of an export, or of a CLIP or BLIP folder or hub id.

    Of a workdir it is the best checkpoint where the run had a rule of what is best (training.best), else the newest. An
    export that holds programs comes back as an Exported, which runs them (StableHLO where there is both).

    Args:
      source: a --workdir, a folder that `experiments.export` or `convert` wrote, a folder in Hugging Face's or
        OpenCLIP's layout, or a hub id, "owner/name".
      mesh: where the parameters of a CLIP, a BLIP or an export go, as "fsdp:8"; default: the first device.
      image_size: another resolution of a CLIP or BLIP; its position embeddings are resized.
      text_length: tokens of a text at most, where a CLIP's or BLIP's own limit is not wanted.
      dtype: of the computation of a CLIP or BLIP; parameters are float32.
      checkpoint: of a workdir: "best", "newest", or a step, where another one is wanted.

    Raises:
      UserError: `source` is none of these, is not whole, or has no such checkpoint.
    """
    folder = path_of(source)
    if (folder / "export.json").exists() and (programs := _open_export(folder, mesh, image_size, dtype, checkpoint)):
        return programs
    from contextjax import pretrained
    from contextjax.system import System

    config = _own_config(folder)
    if config is not None:
        return _load_own(folder, config, mesh, checkpoint)
    if checkpoint:
        raise UserError(f"A checkpoint ('{checkpoint}') is asked for, but {source} is no run; leave it out.")
    found = pretrained.read_pretrained(source, image_size=image_size, dtype=dtype)
    config = pretrained.towers(found.model.config)
    if not hasattr(config, "vision"):
        raise UserError(f"{source} is a {found.family} text encoder without pictures; expected a CLIP or a BLIP.")
    text = config.text
    tokenizer = TextTokenizer.read(found.folder, length=min(text_length or text.positions, text.positions))
    if tokenizer.vocabulary > text.vocabulary:
        raise UserError(
            f"{found.folder}'s tokenizer has {tokenizer.vocabulary} ids, but its model's table {text.vocabulary} rows; "
            "tokenizer and weights are not of one model."
        )
    return System(
        found.model,
        _placed(found.params, found.abstract, mesh),
        tokenizer,
        fingerprint=f"{source}@{config.vision.image_size}-0",
    )


def _open_export(folder: Path, *options: Any) -> Exported | None:
    """An export's programs, its files checked; None where it holds none."""
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


def read_length(config: Any) -> int:
    """Tokens that a run's system reads of a text: ContextBLIP's, as far as in training."""
    positions = config.model.text["positions"]
    return min(positions, config.data.text_length) if config.model.get("system") == "context_blip" else positions


def read_propositions(config: Any) -> tuple[int, int]:
    """Into how many propositions a run's system splits a text, and of how many tokens; none: (0, 0)."""
    if not config.model.get("propositions"):
        return 0, 0
    return config.data.propositions, config.data.proposition_length


def _own_config(folder: Path) -> Any:
    """The config of a workdir or an export of ours; None where `folder` is something else."""
    file = folder / "config.json"
    if not file.exists():
        if folder.is_dir() and not any(folder.glob("*.safetensors*")) and not any(folder.glob("*config.json")):
            raise UserError(f"{folder} holds no config.json; expected the --workdir of a training run, or a model.")
        return None
    config = read_json(file, layout="a run or a model", remedy="copy it again")
    if not isinstance(config.get("model"), Mapping):
        return None
    from ml_collections import ConfigDict

    return ConfigDict(dict(config))


def _load_own(folder: Path, config: Any, mesh: str, checkpoint: str | int) -> System:
    import jax
    import jax.numpy as jnp

    from contextjax import pretrained
    from contextjax.checkpoints.reader import CheckpointReader
    from contextjax.system import System
    from contextjax.variants import make_model

    propositions = read_propositions(config)
    for tower in (config.model.vision, config.model.text):
        tower.attention = "xla"  # which runs everywhere, and gives the same numbers
    tokenizer = TextTokenizer.read(folder / "tokenizer.json", length=read_length(config))
    trained = config.get("data", {}).get("vocabulary", 0)  # else the tokenizer came with the towers
    model = make_model(config.model, vocabulary=tokenizer.vocabulary if trained else None)
    if (folder / "model.safetensors").exists():
        if checkpoint:
            raise UserError(f"A checkpoint ('{checkpoint}') is asked for, but {folder} is an export; leave it out.")
        unread, abstract = pretrained.read_own(folder, model)
        meta = config.get("exported", {})
        fingerprint = f"{meta.get('config_hash', '')}-{meta.get('step', 0)}"
        params = _placed(unread, abstract, mesh)
        return System(model, params, tokenizer, propositions=propositions, fingerprint=fingerprint)
    checkpoints = CheckpointReader(folder / "checkpoints")
    try:
        params, meta = checkpoints.restore_params(checkpoint)
    finally:
        checkpoints.close()
    fingerprint = f"{meta['config_hash']}-{meta['step']}"
    params = jax.tree.map(jnp.asarray, params)  # on the device once, not at every call
    return System(model, params, tokenizer, propositions=propositions, fingerprint=fingerprint)


def _placed(unread: Any, abstract: Any, mesh: str) -> Any:
    import jax
    import jax.numpy as jnp

    from contextjax.sharding import make_mesh, place_params

    if mesh:
        return place_params(unread, abstract, make_mesh(mesh))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), unread)
