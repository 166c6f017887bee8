"""The parameters of a run's checkpoint, and those that a model starts from: a run's, an export's or published ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn

from contextjax.checkpoints.reader import CheckpointReader, Which
from contextjax.export.folder import MANIFEST, read_manifest
from contextjax.files import path_of
from contextjax.lora import Lora, digest
from contextjax.pretrained import Pretrained, abstract_params, read_own, read_pretrained
from contextjax.pretrained.names import flatten, restack, unflatten
from contextjax.spec import SystemSpec
from contextjax.types import UserError
from contextjax.variants import FAMILIES, Family, make_model


def read_run(folder: Path, spec: SystemSpec, abstract: Any, which: Which = "") -> tuple[Any, dict[str, Any]]:
    """Returns the parameters (numpy) and the meta of a run's checkpoint; adapters are merged into their base.

    Args:
      folder: the workdir.
      spec: its system.json.
      abstract: the model's parameters as shapes, see `abstract_params`.
      which: see CheckpointReader.

    Raises:
      UserError: there is no such checkpoint, or its adapters' base is not there or is another.
    """
    checkpoints = CheckpointReader(folder / "checkpoints")
    try:
        params, meta = checkpoints.restore_params(which)
    finally:
        checkpoints.close()
    return (_merged(params, meta["lora"], spec, abstract, folder) if "lora" in meta else params), meta


def _merged(params: Any, record: Mapping[str, Any], spec: SystemSpec, abstract: Any, folder: Path) -> Any:
    """Returns the model's parameters: those of a checkpoint without its base, merged into the base it was trained on.

    Raises:
      UserError: the base is not there, or is another.
    """
    source, family = record["start"] or record["pretrained"], FAMILIES[spec.family]
    shapes = {path: x.shape for path, x in flatten(nn.unbox(abstract)).items()}
    missing, where = shapes.keys() - flatten(params).keys(), f"The adapters in {folder} were trained on {source}"
    try:
        if record["start"]:
            given = params_of_run(path_of(source), family, shapes)
        else:
            scan = {name: {"scan": getattr(spec, name)["scan"]} for name in ("vision", "text")}
            published = read_pretrained(source, image_size=spec.vision["image_size"], **scan)
            given = {path: leaf.read() for path, leaf in published_leaves(published, family).items() if path in missing}
    except UserError as error:
        raise UserError(f"{where}, which can't be read: {error}") from error
    if odd := sorted(path for path in missing if path not in given or tuple(given[path].shape) != shapes[path]):
        there = list(given[odd[0]].shape) if odd[0] in given else "missing"
        raise UserError(
            f"{where}, where {odd[0]} is {there} now and was {list(shapes[odd[0]])}; put the base that they were "
            "trained on back."
        )
    base = {path: given[path] for path in missing}
    if (now := digest(unflatten(base))) != record["base"]:
        raise UserError(
            f"{where} with the digest {record['base']}, and the parameters there have {now} now; put the base that "
            "they were trained on back."
        )
    return Lora(record["rank"], record["alpha"], tuple(record["paths"])).merge(unflatten({**flatten(params), **base}))


def params_of_run(folder: Path, own: Family, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the flat parameters that a model of the family `own` takes from a run or an export of any family.

    From another family the towers are taken, of CLIP and BLIP each to its own; from one to the other the image tower
    alone. Layers are stacked where `shapes`, path -> shape, has them so.
    """
    spec = SystemSpec.read(folder)
    family, abstract = FAMILIES[spec.family], abstract_params(make_model(spec))
    if (folder / "model.safetensors").exists():
        if (folder / MANIFEST).exists():
            read_manifest(folder)  # which compares the files with their checksums
        theirs = {path: leaf.read() for path, leaf in flatten(read_own(folder, abstract)).items()}
    else:
        theirs = flatten(read_run(folder, spec, abstract)[0])
    if family is not own:
        before, after = (f"{each.towers}/" if each.towers else "" for each in (family, own))
        shared = ("",) if family.tower_config is own.tower_config else ("vision/", "visual_projection/")
        kept = tuple(before + name for name in shared)
        theirs = {after + path.removeprefix(before): x for path, x in theirs.items() if path.startswith(kept)}
    return restack(theirs, shapes)


def published_leaves(published: Pretrained, own: Family) -> dict[str, Any]:
    """Returns path -> unread parameter of a model of the family `own` that starts from published towers.

    Raises:
      UserError: they are towers of another kind.
    """
    if not isinstance(published.model.config, own.tower_config):
        name = own.tower_config.__name__.removesuffix("Config")
        raise UserError(f"model.pretrained is a {published.family}; expected a {name}.")
    leaves, towers = flatten(published.params), f"{own.towers}/" if own.towers else ""
    copies = {
        copy + path.removeprefix(part): leaf
        for copy, part in own.copies.items() for path, leaf in leaves.items() if path.startswith(f"{part}/")
    }  # fmt: skip
    return {towers + path: leaf for path, leaf in leaves.items()} | copies
