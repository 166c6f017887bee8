"""Pictures as they come: every mode, odd sizes, broken files."""

import contextlib
import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from contextjax import images
from contextjax.types import UserError


def encoded(image, format="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("long", range(8, 17))
def test_the_rounded_crop_is_that_of_torchvision(long):
    """CenterCrop begins at int(round(rest / 2)), which rounds halves to even numbers; Resize is ours."""
    for pixels in (noise(8, long, 3), noise(long, 8, 3)):
        start = round((long - 8) / 2)
        rows, columns = (slice(start, start + 8) if side == long else slice(0, 8) for side in pixels.shape[:2])
        got = images.preprocess(Image.fromarray(pixels), 8, fit="crop_rounded")
        np.testing.assert_array_equal(got, pixels[rows, columns])


def test_too_little_memory_is_no_bad_picture(monkeypatch):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", short)
    with pytest.raises(MemoryError):
        images.decode(encoded(Image.new("RGB", (4, 4))))


def test_rgb_comes_back_exactly():
    pixels = noise(5, 7, 3)
    decoded = images.decode(encoded(Image.fromarray(pixels)))
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), pixels)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_jpeg_and_webp_are_read(format):
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    np.testing.assert_allclose(np.asarray(images.decode(encoded(flat, format))), np.asarray(flat), atol=4)


def test_grey_is_three_equal_channels():
    pixels = noise(4, 6)
    for image in (Image.fromarray(pixels), Image.fromarray(pixels // 128 * 255).convert("1")):
        decoded = np.asarray(images.decode(encoded(image)))
        np.testing.assert_array_equal(decoded, np.asarray(image.convert("L"))[..., None].repeat(3, -1))


def test_transparency_goes_to_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = [255, 0, 0, 255]
    pixels[1, 1] = [0, 0, 0, 128]
    decoded = np.asarray(images.decode(encoded(Image.fromarray(pixels))))
    assert decoded[0, 0].tolist() == [255, 0, 0]
    assert decoded[0, 1].tolist() == [255, 255, 255]
    np.testing.assert_allclose(decoded[1, 1], 127, atol=1)


def test_a_transparent_palette_colour_goes_to_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 10, 20, 30])
    image.putpixel((1, 0), 1)
    decoded = np.asarray(images.decode(encoded(image, transparency=0)))
    assert decoded.tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_grey_with_transparency_goes_to_white():
    image = Image.fromarray(np.asarray([[[0, 0], [0, 255]]], np.uint8), mode=None)
    assert image.mode == "LA"
    assert np.asarray(images.decode(encoded(image))).tolist() == [[[255] * 3, [0] * 3]]


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    decoded = np.asarray(images.decode(encoded(image, "JPEG", quality=95)))
    assert decoded.shape == (8, 8, 3)
    np.testing.assert_allclose(decoded[0, 0], [255, 0, 0], atol=12)


def test_sixteen_bits_keep_their_tones():
    deep = (np.arange(64, dtype=np.uint32).reshape(8, 8) * 1040).astype(np.uint16)
    decoded = np.asarray(images.decode(encoded(Image.fromarray(deep))))
    np.testing.assert_allclose(decoded[..., 0], deep / 257, atol=1)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_file_cut_short_names_itself(format):
    data = encoded(Image.fromarray(noise(20, 17, 3)), format)
    for length in (0, 3, 10, len(data) // 2, len(data) - 40):
        with pytest.raises(UserError, match=r"cat.png can't be read as a picture.*replace or remove it"):
            images.decode(data[:length], name="cat.png")


def test_other_formats_and_junk_are_refused():
    for data in (encoded(Image.new("RGB", (4, 4)), "BMP"), b"<svg></svg>", b"\x89PNG\r\n\x1a\n" + b"\0" * 50):
        with pytest.raises(UserError, match="x can't be read"):
            images.decode(data, name="x")


def test_flipped_bytes_never_crash():
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(noise(9, 9, 3)))
    for _ in range(200):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        with contextlib.suppress(UserError):
            images.decode(bytes(broken))


def bomb(width, height):
    """A PNG whose header promises more than it holds."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    chunk = lambda body: (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(b"IDAT" + zlib.compress(b"\0" * 10)) + chunk(b"IEND")


def test_too_many_pixels_are_refused_by_the_header():
    with pytest.raises(UserError, match="big"):
        images.decode(bomb(40_000, 40_000), name="big")
    with pytest.raises(UserError, match="big has 10 x 10 pixels; at most 99"):
        images.decode(encoded(Image.new("RGB", (10, 10))), name="big", max_pixels=99)
    assert images.decode(encoded(Image.new("RGB", (9, 11))), max_pixels=99).size == (9, 11)


def test_between_the_decoders_own_limit_and_ours_there_is_no_warning():
    with pytest.raises(UserError):
        images.decode(bomb(9_900, 10_000), name="large")


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (9, 31), (31, 9), (1, 2), (640, 481), (3, 100)])
@pytest.mark.parametrize("fit", images.FITS)
def test_preprocess_gives_a_square_of_any_size(size, fit):
    picture = images.preprocess(Image.fromarray(noise(size[1], size[0], 3)), 8, fit=fit)
    assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8


@pytest.mark.parametrize("fit", images.FITS)
def test_a_picture_of_the_right_size_is_left_alone(fit):
    pixels = noise(8, 8, 3)
    np.testing.assert_array_equal(images.preprocess(Image.fromarray(pixels), 8, fit=fit), pixels)


def test_fits_agree_on_a_square():
    square = Image.fromarray(noise(31, 31, 3))
    np.testing.assert_array_equal(images.preprocess(square, 8), images.preprocess(square, 8, fit="squash"))


def test_the_crop_is_of_the_centre():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert images.preprocess(Image.fromarray(pixels), 10).min() == 255
    assert images.preprocess(Image.fromarray(pixels.transpose(1, 0, 2)), 10).min() == 255


def test_squash_keeps_everything_in_its_place():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:5, :15], pixels[5:, 15:] = 90, 255
    squashed = images.preprocess(Image.fromarray(pixels), 20, fit="squash")
    quarters = [
        squashed[rows, columns] for rows in (slice(0, 7), slice(13, 20)) for columns in (slice(0, 7), slice(13, 20))
    ]
    for quarter, grey in zip(quarters, (90, 0, 0, 255), strict=True):
        np.testing.assert_allclose(quarter, grey, atol=1)
    mirrored = images.preprocess(Image.fromarray(pixels[:, ::-1]), 20, fit="squash")
    np.testing.assert_allclose(mirrored[:, ::-1].astype(int), squashed, atol=1)


@pytest.mark.parametrize("fit", images.FITS)
@pytest.mark.parametrize("size", [(60, 24), (24, 61), (40, 40), (200, 3)])
def test_what_is_outside_the_seen_part_is_not_kept(size, fit):
    """But for two pixels at its edge, which the filter and rounding mix."""
    width, height = size
    left, top, right, bottom = images.seen(width, height, fit=fit)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = 255
    assert (images.preprocess(Image.fromarray(pixels), min(width, height), fit=fit) == 255).all()
    kept = images.preprocess(Image.fromarray(255 - pixels), 8, fit=fit)
    assert (kept == 0).all()


def test_an_unknown_fit_is_refused():
    with pytest.raises(UserError, match=r"fit of pictures is 'stretch'; expected one of crop, crop_rounded, squash"):
        images.load(noise(4, 6, 3), 8, fit="stretch")


def test_a_thread_of_a_picture_needs_no_giant_in_between(monkeypatch):
    """The long side grows with the short one: 1 x 5,000 pixels at 224 would be 250 million."""
    sizes = []
    resize = Image.Image.resize

    def spy(self, size, *rest, **options):
        sizes.append(size[0] * size[1])
        return resize(self, size, *rest, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    with contextlib.suppress(UserError):  # refused, or only its middle computed
        assert images.preprocess(images.decode(encoded(Image.new("RGB", (1, 5000)))), 16).shape == (16, 16, 3)
    assert max(sizes, default=0) <= 100_000


def test_load_takes_paths_pictures_and_arrays(tmp_path):
    pixels = noise(12, 20, 3)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    crop, squash = (images.preprocess(Image.fromarray(pixels), 8, fit=fit) for fit in ("crop", "squash"))
    assert (crop != squash).any()
    for source in (path, str(path), Image.fromarray(pixels), pixels):
        np.testing.assert_array_equal(images.load(source, 8), crop)
        np.testing.assert_array_equal(images.load(source, 8, fit="squash"), squash)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.png", "no picture at nowhere.png"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]; expected uint8"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
    ],
)
def test_load_says_what_it_got(source, message):
    with pytest.raises(UserError, match=message):
        images.load(source, 8)


def test_the_crop_is_that_of_the_whole_picture_resized():
    """Pixel for pixel, though columns that are cut are never resized in height."""
    rng = np.random.default_rng(0)
    for _ in range(120):
        width, height = (int(side) for side in rng.integers(1, 90, 2))
        size = int(rng.integers(1, 60))
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        short = min(width, height)
        whole = (int(width * size / short), int(height * size / short))
        left, top = (whole[0] - size) // 2, (whole[1] - size) // 2
        resized = image.resize(whole, Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
        np.testing.assert_array_equal(images.preprocess(image, size), np.asarray(resized))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_as_pillow_turns_copies(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(noise(8, 14, 3)), format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(images.decode(data)), np.asarray(expected))
