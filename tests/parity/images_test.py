"""Pictures are those of transformers' image processors of CLIP, BLIP and SigLIP 2, to one grey level."""

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image

from contextjax import images
from contextjax.types import UserError

pytestmark = pytest.mark.parity

SHAPES = [  # width, height
    (1, 1), (1, 9), (9, 1), (1, 100), (100, 1), (2, 3), (17, 31), (223, 224), (224, 224), (224, 225), (225, 224),
    (384, 384), (333, 500), (500, 333), (640, 481), (31, 3100), (3100, 31), (1999, 1501),
]  # fmt: skip
FORMATS = {"PNG": {}, "JPEG": {"quality": 80}, "WEBP": {"quality": 80}, "WEBP lossless": {"lossless": True}}
MODES = ["L", "P", "1", "RGB", "RGBA", "CMYK", "LA"]
NO_SUCH_FILE = {("P", "JPEG"), ("RGBA", "JPEG"), ("LA", "JPEG"), ("CMYK", "PNG")}


def picture(size, *, seed: int) -> Image.Image:
    """Noise on a slope with hard edges: nothing that a wrong filter, shift or rounding would leave as it is."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    pixels = np.stack([x, y, 255 * ((x // 9 + y // 7) % 2)], axis=-1) + rng.normal(scale=20, size=(size[1], size[0], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format.split()[0], **FORMATS[format], **options)
    return file.getvalue()


@pytest.fixture(scope="module", params=["crop", "squash", "squash_bilinear"])
def processor(request):
    """(fit, size, the processor without its scaling and normalising: uint8 pixels)."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    size, kind, options = {
        "crop": (224, CLIPImageProcessorPil, {}),
        "squash": (384, BlipImageProcessorPil, {}),
        "squash_bilinear": (224, SiglipImageProcessorPil, {"resample": 2}),
    }[request.param]
    return request.param, size, kind(do_rescale=False, do_normalize=False, **options)


def difference(processor, data: bytes, path) -> int:
    """The largest, in grey levels, between our picture of a file and theirs."""
    from transformers.image_utils import load_image

    fit, size, process = processor
    path.write_bytes(data)
    theirs = np.asarray(process(load_image(str(path)))["pixel_values"][0]).transpose(1, 2, 0)
    ours = images.load(path, size, fit=fit)
    assert ours.shape == theirs.shape == (size, size, 3)
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())


@pytest.mark.parametrize("size", SHAPES, ids=lambda size: "x".join(map(str, size)))
def test_every_shape(processor, size, tmp_path):
    assert difference(processor, encoded(picture(size, seed=sum(size)), "PNG"), tmp_path / "a") <= 1


@pytest.mark.parametrize(("mode", "format"), [pair for pair in product(MODES, FORMATS) if pair not in NO_SUCH_FILE])
def test_every_mode_and_format(processor, mode, format, tmp_path):
    image = picture((301, 203), seed=1).convert(mode)
    assert difference(processor, encoded(image, format), tmp_path / "a") <= 1


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", FORMATS)
def test_every_exif_orientation(processor, turn, format, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    assert difference(processor, encoded(picture((120, 90), seed=turn), format, exif=exif), tmp_path / "a") <= 1


def test_many_random_shapes(processor, tmp_path):
    rng = np.random.default_rng(0)
    worst = 0
    for seed in range(60):
        size = tuple(int(side) for side in rng.integers(1, 700, 2))
        if max(size) <= images.MAX_ASPECT * min(size):
            worst = max(worst, difference(processor, encoded(picture(size, seed=seed), "PNG"), tmp_path / "a"))
    assert worst <= 1


def test_normalised_pixels_agree(tmp_path):
    """The whole processors, whose scaling and normalising are inside the compiled program here."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    image = picture((333, 500), seed=3)
    for kind, size, fit in ((CLIPImageProcessorPil, 224, "crop"), (BlipImageProcessorPil, 384, "squash")):
        theirs = np.asarray(kind()(image)["pixel_values"][0]).transpose(1, 2, 0)
        np.testing.assert_allclose((images.load(image, size, fit=fit) / 255 - mean) / std, theirs, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # Pillow's, of their load_image
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_the_first_deliberate_difference(processor, mode, tmp_path):
    """Ours and their processors' is white; only their load_image drops the alpha channel."""
    fit, size, process = processor
    image = picture((300, 200), seed=4)
    if mode == "P":
        data = encoded(image.convert("P"), "PNG", transparency=bytes(range(256)))
    else:
        alpha = np.linspace(-100, 400, 300 * 200).clip(0, 255).astype(np.uint8).reshape(200, 300)
        image.putalpha(Image.fromarray(alpha))
        data = encoded(image.convert(mode), "PNG")
    assert difference(processor, data, tmp_path / "a") > 50
    theirs = np.asarray(process(Image.open(tmp_path / "a"))["pixel_values"][0]).transpose(1, 2, 0)
    assert np.abs(images.load(tmp_path / "a", size, fit=fit).astype(int) - theirs).max() <= 1


def test_sixteen_bit_greys_are_the_second_deliberate_difference(processor, tmp_path):
    """Theirs are clipped at 255 of 65,535: they agree with ours on the same tones in 8 bits only."""
    deep = (np.arange(90 * 120, dtype=np.uint32).reshape(90, 120) * 6).astype(np.uint16)
    assert difference(processor, encoded(Image.fromarray(deep), "PNG"), tmp_path / "a") > 100
    eight = Image.fromarray((deep / 257).round().astype(np.uint8))
    fit, size, process = processor
    theirs = np.asarray(process(eight)["pixel_values"][0]).transpose(1, 2, 0).astype(int)
    assert np.abs(images.load(Image.fromarray(deep), size, fit=fit).astype(int) - theirs).max() <= 1


def test_what_is_too_thin_is_refused():
    """The third: a 1 x 5,000 picture would be 250 million pixels in between, theirs takes seconds for it."""
    with pytest.raises(UserError, match="1 x 5000 pixels"):
        images.decode(encoded(picture((1, 5000), seed=0), "PNG"))
