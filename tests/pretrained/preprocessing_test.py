"""Preprocessing that a checkpoint's files ask for is that of transformers' processors, or is refused in a sentence."""

import json

import numpy as np
import pytest
from PIL import Image

from contextjax import images
from contextjax.models.vision import VisionConfig
from contextjax.pretrained import read_pretrained
from contextjax.pretrained.preprocessing import read_hf, read_open_clip, write_hf
from contextjax.types import UserError
from tests.photographs import NAMES, photograph

SIZE = 24
CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIZE}, "crop_size": SIZE}
SQUARE = {"height": SIZE, "width": SIZE}
PUBLISHED = {
    "clip": CLIP,
    "clip of 2021": {"feature_extractor_type": "CLIPFeatureExtractor", "size": SIZE, "crop_size": SIZE, "resample": 3},
    "clip squashed": {**CLIP, "size": SQUARE, "do_center_crop": False},
    "clip squashed, then cut": {**CLIP, "size": [SIZE, SIZE], "crop_size": SQUARE},
    "clip not normalised": {**CLIP, "do_normalize": False},
    "clip not rescaled": {**CLIP, "do_rescale": False, "image_mean": [90, 100, 110], "image_std": [50, 60, 70]},
    "clip scaled to -1 .. 1": {**CLIP, "rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
    "clip with one mean": {**CLIP, "image_mean": 0.5, "image_std": 0.5, "do_convert_rgb": False},
    "blip": {"image_processor_type": "BlipImageProcessor", "size": SQUARE, "do_pad": False},
    "blip of 2022": {"image_processor_type": "BlipImageProcessorFast", "size": SIZE},
    "blip cut": {"image_processor_type": "BlipImageProcessor", "size": {"shortest_edge": SIZE}, "crop_size": SIZE,
                 "do_center_crop": True},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE},
    "siglip 2": {"image_processor_type": "SiglipImageProcessorFast", "size": SQUARE, "resample": 2},
    "clip squashed bilinearly": {**CLIP, "size": SQUARE, "do_center_crop": False, "resample": 2},
}  # fmt: skip


def theirs(settings, image):
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    kind = next(value for key, value in settings.items() if key.endswith("_type"))
    made = {"C": CLIPImageProcessorPil, "B": BlipImageProcessorPil, "S": SiglipImageProcessorPil}
    make = made[kind[0]]
    own = {key: value for key, value in settings.items() if not key.endswith("_type")}
    return np.asarray(make(**own)(image)["pixel_values"][0]).transpose(1, 2, 0)


def wide_and_tall():
    yield from map(photograph, NAMES)
    rng = np.random.default_rng(0)
    for height, width in ((30, 71), (65, 31), (24, 24), (25, 90)):
        yield Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def write(folder, settings, name="preprocessor_config.json"):
    (folder / name).write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("settings", PUBLISHED.values(), ids=PUBLISHED)
def test_pixels_are_those_of_transformers(settings, tmp_path):
    pixels = read_hf(write(tmp_path, settings), "CLIP", sizes=(SIZE,))
    again = write_hf(VisionConfig(SIZE, 8, 8, 1, 1, 8, **pixels), "CLIP")
    for image in wide_and_tall():
        ours = images.preprocess(image, SIZE, fit=pixels["fit"]) / 255
        ours = (ours - np.asarray(pixels["mean"])) / np.asarray(pixels["std"])
        std = 1 / 255 / min(pixels["std"])  # transformers may round a grey level otherwise
        assert np.abs(ours - theirs(settings, image)).max() <= 1.01 * std
        np.testing.assert_allclose(theirs(again, image), theirs(settings, image), atol=1e-4)  # what `convert` writes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"do_center_crop": False}, "without do_center_crop: the pictures would not be square"),
        ({"do_resize": False}, "do_resize=false"),
        ({"resample": 2}, r"resample=2 \(bilinear\)"),
        ({"resample": "bicubic"}, "resample=bicubic"),
        ({"size": {"shortest_edge": 32}}, "not one number"),
        ({"size": {"shortest_edge": 32}, "crop_size": 32}, "the model's image_size is 24"),
        ({"size": {"height": 24, "width": 48}}, "not one number"),
        ({"crop_size": {"height": 24, "width": 48}}, "not one number"),
        ({"size": {"shortest_edge": 24, "longest_edge": 40}}, "asks for size="),
        ({"size": "large"}, "asks for size="),
        ({"size": [24]}, "asks for size="),
        ({"do_pad": True}, "do_pad=True, which is not known"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order=True"),
        ({"crop_pct": 0.9}, "crop_pct=0.9"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is .*three numbers"),
        ({"image_std": [0, 1, 1]}, "image_std is .*other than 0"),
        ({"do_normalize": "no"}, "do_normalize is 'no'"),
        ({"image_processor_type": "ViTImageProcessor"}, "of a ViTImageProcessor; expected CLIP's, BLIP's or"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "of a Siglip2ImageProcessor; expected"),
    ],
)
def test_what_is_not_followed_is_refused(changes, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        read_hf(write(tmp_path, {**CLIP, **changes}), "CLIP", sizes=(SIZE,))


def test_the_nested_file_goes_first_as_in_transformers(tmp_path):
    write(tmp_path, CLIP)
    nested = {"processor_class": "CLIPProcessor", "image_processor": {**CLIP, "size": SQUARE, "do_center_crop": False}}
    assert (
        read_hf(write(tmp_path, {"processor_class": "X"}, "processor_config.json"), "Blip", sizes=(SIZE,))["fit"]
        == "crop"
    )
    assert read_hf(write(tmp_path, nested, "processor_config.json"), "Blip", sizes=(SIZE,))["fit"] == "squash"


@pytest.mark.long
@pytest.mark.parametrize("image_size", [None, 32])
def test_pictures_may_have_the_size_that_is_asked_for(folder, image_size, name, edit_json):
    edit_json(folder / "preprocessor_config.json", lambda c: json.loads(json.dumps(c).replace("16", "32")))
    if image_size:
        assert read_pretrained(folder, image_size=image_size).model.config.vision.image_size == 32
        return
    with pytest.raises(UserError, match="size=32, but the model's image_size is 16"):
        read_pretrained(folder)


@pytest.mark.parametrize(
    ("settings", "fit"),
    [
        ({}, "crop_rounded"),
        ({"resize_mode": "squash", "size": [24, 24]}, "squash"),
        ({"interpolation": "random"}, "crop_rounded"),
    ],
)
def test_open_clip_is_followed(settings, fit, tmp_path):
    assert read_open_clip(settings, file=tmp_path, sizes=(SIZE,))["fit"] == fit


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resize_mode": "longest"}, "resize_mode='longest'"),
        ({"interpolation": "bilinear"}, "interpolation='bilinear'"),
        ({"mode": "L"}, "mode 'L'"),
        ({"size": [24, 32]}, r"size=\[24, 32\]"),
        ({"crop_pct": 1.0}, "unknown key crop_pct"),
        ({"mean": [1]}, "mean is"),
    ],
)
def test_of_open_clip_the_rest_is_refused(settings, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        read_open_clip(settings, file=tmp_path, sizes=(SIZE,))
