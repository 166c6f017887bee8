"""Preprocessing that a checkpoint's files ask for: Hugging Face's image processors and OpenCLIP's `preprocess_cfg`.

Every key is applied, or refused with an error: a different crop or filter would silently change every embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import UserError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's, which BLIP has too
HALF = (0.5, 0.5, 0.5)
DEFAULTS: Any = {  # of transformers' processors, by the beginning of their names, where a file leaves a key out
    "CLIP": {"do_center_crop": True, "default_to_square": False, "image_mean": MEAN, "image_std": STD},
    "Blip": {"do_center_crop": False, "default_to_square": True, "image_mean": MEAN, "image_std": STD},
    "Siglip": {
        "do_center_crop": False, "default_to_square": False, "image_mean": HALF, "image_std": HALF,
        "size": {"height": 224, "width": 224},
    },
}  # fmt: skip
# Keys that change no pixel of an RGB picture: names, the layout of theirs, and what has defaults only.
HARMLESS = {
    "image_processor_type", "feature_extractor_type", "processor_class", "model_input_names", "return_tensors",
    "data_format", "input_data_format", "device", "disable_grouping", "image_seq_length", "_valid_processor_keys",
    "do_convert_rgb", "transformers_version", "_name_or_path", "name_or_path", "auto_map", "_commit_hash",
}  # fmt: skip
FOLLOWED = {
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "default_to_square",
}  # fmt: skip
FILTERS = {0: "nearest", 1: "Lanczos", 2: "bilinear", 4: "box", 5: "Hamming"}
REMEDY = "pictures are only resized by bicubic interpolation to the model's image size, cut to its centre or squashed"
BICUBIC, BILINEAR = 3, 2  # the latter for squashed pictures alone, as SigLIP 2 has them


def read_hf(folder: Path, processor: str, *, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Returns mean, std and fit of VisionConfig from the file of Hugging Face's image processor.

    Args:
      folder: the checkpoint's.
      processor: a key of DEFAULTS, which hold where there is no such file, or the file does not name its processor.
      sizes: the image sizes that pictures may have: the model's, or the one that is asked for instead.

    Raises:
      UserError: the file asks for something that is not done here.
    """
    file, settings = _hf_settings(folder)
    if file is None:
        usual = DEFAULTS[processor]
        fit = "crop" if usual["do_center_crop"] else "squash"
        return {"mean": usual["image_mean"], "std": usual["image_std"], "fit": fit}
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "")
    family = next((name for name in DEFAULTS if kind.startswith((f"{name}I", f"{name}F"))), "")
    if kind and not family:
        raise UserError(f"{file} is of a {kind}; expected CLIP's, BLIP's or SigLIP's image processor.")
    usual = DEFAULTS[family or processor]
    settings = {**usual, **settings}
    unknown = sorted(key for key in settings.keys() - HARMLESS - FOLLOWED if settings[key] not in (None, False))
    if unknown:
        raise UserError(f"{file} asks for {unknown[0]}={settings[unknown[0]]!r}, which is not known; {REMEDY}.")
    said = lambda key, default: default if settings.get(key) is None else settings[key]
    for key in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "default_to_square"):
        if not isinstance(said(key, True), bool):
            raise UserError(f"{file}: {key} is {settings[key]!r}; expected true or false.")
    if not said("do_resize", True):
        raise UserError(f"{file} asks for do_resize=false, pictures of any size; {REMEDY}.")
    resample, fit = said("resample", BICUBIC), _hf_fit(file, settings, sizes)
    if resample == BILINEAR and fit == "squash":
        fit = "squash_bilinear"
    elif resample != BICUBIC:
        name = f" ({FILTERS[resample]})" if isinstance(resample, int) and resample in FILTERS else ""
        raise UserError(f"{file} asks for resample={resample}{name}; only 3 (bicubic) is known.")
    scale = 255 * _number(file, "rescale_factor", said("rescale_factor", 1 / 255)) if said("do_rescale", True) else 255
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if said("do_normalize", True):
        mean = _colours(file, "image_mean", said("image_mean", usual["image_mean"]))
        std = _colours(file, "image_std", said("image_std", usual["image_std"]))
    # Theirs is (x * factor - mean) / std of a grey level x, ours (x / 255 - mean) / std.
    scaled = lambda values: values if math.isclose(scale, 1) else tuple(value / scale for value in values)
    return {"mean": scaled(mean), "std": scaled(std), "fit": fit}


def read_open_clip(settings: Mapping[str, Any], *, file: Path, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Returns mean, std and fit of VisionConfig from the `preprocess_cfg` of an open_clip_config.json.

    Raises:
      UserError: it asks for something that is not done here.
    """
    known = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}
    section = {key: value for key, value in settings.items() if value is not None}
    if unknown := sorted(section.keys() - known):
        raise UserError(
            f"{file}: preprocess_cfg has the unknown key {unknown[0]}; expected {', '.join(sorted(known))}."
        )
    fits = {"shortest": "crop_rounded", "squash": "squash"}
    resize = section.get("resize_mode", "shortest")
    if resize not in fits:
        raise UserError(f"{file} asks for resize_mode={resize!r}; {REMEDY}: expected 'shortest' or 'squash'.")
    # OpenCLIP takes "random", which is for training, as bicubic.
    if (interpolation := section.get("interpolation", "bicubic")) not in ("bicubic", "random"):
        raise UserError(f"{file} asks for interpolation={interpolation!r}; only 'bicubic' is known.")
    if (mode := section.get("mode", "RGB")) != "RGB":
        raise UserError(f"{file} asks for pictures of the mode {mode!r}; only 'RGB' is known.")
    _check_size(file, "size", section.get("size", sizes[0]), sizes)
    mean, std = (_colours(file, key, section.get(key, default)) for key, default in (("mean", MEAN), ("std", STD)))
    return {"mean": mean, "std": std, "fit": fits[resize]}


def write_hf(vision: Any, processor: str) -> dict[str, Any]:
    """Returns the preprocessor_config.json of a VisionConfig, every key written out; `processor` is in DEFAULTS."""
    square = {"height": vision.image_size, "width": vision.image_size}
    # Theirs has no rounding; a pixel's shift of some pictures is what it costs.
    is_cut = not vision.fit.startswith("squash")
    return {
        # CLIP's processor squashes, too, but crops where nothing is said; older ones of the others can't crop.
        "image_processor_type": f"{'CLIP' if is_cut else processor}ImageProcessor",
        "do_center_crop": is_cut,
        **({"crop_size": square} if is_cut else {}),
        "size": {"shortest_edge": vision.image_size} if is_cut else square,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(vision.mean),
        "image_std": list(vision.std),
        "resample": BILINEAR if vision.fit == "squash_bilinear" else BICUBIC,
        "rescale_factor": 1 / 255,
    }


def _hf_settings(folder: Path) -> tuple[Path | None, Mapping[str, Any]]:
    """Returns the file of the image processor and its settings; a nested section goes first, as in transformers."""
    nested, own = folder / "processor_config.json", folder / "preprocessor_config.json"
    if nested.exists():
        section = read_json(nested, layout="a checkpoint").get("image_processor")
        if isinstance(section, dict):
            return nested, section
    return (own, read_json(own, layout="a checkpoint")) if own.exists() else (None, {})


def _hf_fit(file: Path, settings: Mapping[str, Any], sizes: tuple[int, ...]) -> str:
    """Returns how the settings make a picture square, after a check that it gets the model's size."""
    size, is_cut = settings.get("size"), bool(settings.get("do_center_crop"))
    if isinstance(size, int) and not isinstance(size, bool):
        size = {"height": size, "width": size} if settings.get("default_to_square") else {"shortest_edge": size}
    elif isinstance(size, list):
        size = dict(zip(("height", "width"), size, strict=False)) if len(size) == 2 else {"size": size}
    elif size is None:
        names = ("height", "width") if settings.get("default_to_square") else ("shortest_edge",)
        size = dict.fromkeys(names, sizes[0])
    elif isinstance(size, dict):
        size = {key: value for key, value in size.items() if value is not None}
    if not isinstance(size, dict) or set(size) not in ({"shortest_edge"}, {"height", "width"}):
        raise UserError(f"{file} asks for size={settings.get('size')!r}; {REMEDY}.")
    if set(size) == {"shortest_edge"} and not is_cut:
        raise UserError(
            f"{file} asks for size={settings.get('size')!r} without do_center_crop: the pictures would not be square; "
            "set do_center_crop, or a size with height and width."
        )
    values, crop = list(size.values()), settings.get("crop_size")
    if is_cut and crop is not None:
        values += crop.values() if isinstance(crop, dict) else crop if isinstance(crop, list) else [crop]
    if any(value != values[0] for value in values):
        raise UserError(
            f"{file} asks for size={settings.get('size')!r} and crop_size={crop!r}, which is not one number; {REMEDY}."
        )
    _check_size(file, "size", values[0], sizes)
    return "crop" if set(size) == {"shortest_edge"} else "squash"  # a square of this size has nothing to crop


def _check_size(file: Path, key: str, value: Any, sizes: tuple[int, ...]) -> None:
    """Raises a UserError where pictures get another size than the model sees."""
    sides = value if isinstance(value, list) and value else [value]
    if not any(all(side == size for side in sides) for size in sizes):
        raise UserError(
            f"{file} asks for {key}={value!r}, but the model's image_size is {sizes[0]}; mend the file, or give "
            "another image_size, for which the position embeddings are resized."
        )


def _number(file: Path, key: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise UserError(f"{file}: {key} is {value!r}; expected a number above 0.")
    return float(value)


def _colours(file: Path, key: str, value: Any) -> tuple[float, ...]:
    """Returns three numbers, one for each colour, of a list of them or of one number for all."""
    values = [value] * 3 if type(value) in (int, float) else list(value) if isinstance(value, list | tuple) else []
    finite = [float(x) for x in values if type(x) in (int, float) and math.isfinite(x)]
    if len(finite) != 3 or len(values) != 3 or ("std" in key and 0 in finite):
        zero = " other than 0" if "std" in key else ""
        raise UserError(f"{file}: {key} is {value!r}; expected three numbers{zero}, one for each colour.")
    return tuple(finite)
